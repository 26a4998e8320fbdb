"""A worker that holds much state: built once, then killed and started again in several ways."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from riverrun.engine.log import TopicPartition
from riverrun.engine.planes import select_plane
from riverrun.engine.restore import last_commit

from .engine import Engine, Run
from .orders import TIMEOUT_MS, new_topic, start_of_day_before_ms
from .throughput import WrongOutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from riverrun.engine.log import Log, LogReader

FIRST_RESULT_TIMEOUT_S = 120.0
PAYLOAD_BYTES = 16_000
BATCH_BYTES = 900_000
PENDING_BYTES_MAX = 32 * 1024 * 1024
BUILD_TIMEOUT_S = 240.0
SNAPSHOT_TIMEOUT_S = 240.0
SESSION_TIMEOUT_S = 3.0


class HeldState:
    """The job ``state`` with the last payload of each of many users, in a worker that runs.

    Args:
        log: Where the topics are.
        broker: The same, ``host:port``.
        state_mb: How much.

    Attributes:
        engine: The worker.
        build_s: How long it took to fill it.
    """

    def __init__(self, log: Log, broker: str, state_mb: int) -> None:
        self._log = log
        run = Run.new("state", broker, "")
        self._run = Run("state", broker, run.job, f"{run.job}-visits", run.sink)
        self._users = state_mb * 1_000_000 // PAYLOAD_BYTES
        self._restarts = 0
        self.engine = Engine(self._run, options=("--session-timeout", f"{SESSION_TIMEOUT_S:.0f}s"))
        self.build_s = 0.0

    def __enter__(self) -> Self:
        self.engine.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.engine.__exit__(kind, error, trace)

    async def build(self) -> None:
        """Start the worker and give each user a payload."""
        await new_topic(self._log, self._run.source)
        await new_topic(self._log, self._run.sink)
        self.engine.start()
        began_s = time.monotonic()
        await _visits(self._log, self._run.source, range(self._users))
        await self.wait_committed()
        self.build_s = time.monotonic() - began_s

    async def wait_committed(self) -> None:
        """Wait until all visits are counted."""
        await self.engine.wait_committed(self._log, 1, BUILD_TIMEOUT_S)

    @property
    def size_mb(self) -> float:
        """How much state there is; on disk or, the newest of it, in memory and the changelog."""
        return self._users * PAYLOAD_BYTES / 1e6

    def snapshots_to(self, url: str, settings: dict[str, str], interval: str) -> None:
        """Let the next start make snapshots, and know where they are."""
        session = ("--session-timeout", f"{SESSION_TIMEOUT_S:.0f}s")
        self.engine.options = (*session, "--snapshots", url, "--snapshot-interval", interval)
        self.engine.settings = settings

    async def restart(self, *, bare: bool = False) -> float:
        """Kill the worker, start it again, and return how long its first new result took.

        Args:
            bare: Whether its local disk is lost, as on another machine. The group has noticed by
                then that the old one is dead: how long that takes is the session timeout.

        Raises:
            WrongOutputError: If the result does not follow from all visits before it.
            EngineFailedError: If the worker ends, or gives no result.
        """
        engine = self.engine
        engine.kill()
        if bare:
            shutil.rmtree(engine.state_dir)
            await asyncio.sleep(SESSION_TIMEOUT_S + 1)
        # Each time another user, whose second visit it is.
        user = (self._restarts * 7919) % self._users
        self._restarts += 1
        await _visits(self._log, self._run.source, [user])
        sink = TopicPartition(self._run.sink, 0)
        reader = await self._log.open_reader({sink: (await self._log.offsets([sink]))[sink].end})
        engine.start()
        values = await next_values(reader, engine)
        taken_s = time.monotonic() - engine.started_s
        await reader.close()
        found = [msgspec.json.decode(value) for value in values]
        if found != [{"user": f"user-{user:06}", "visits": 2}]:
            raise WrongOutputError(f"the first result after a restart is {found} for {user}")
        await self.wait_committed()
        return taken_s

    async def wait_snapshot(self, before: str | None = None) -> str:
        """Wait until a snapshot is part of a commit; return its id.

        Args:
            before: The id of one that was there already.
        """
        deadline_s = time.monotonic() + SNAPSHOT_TIMEOUT_S
        user = 0
        while time.monotonic() < deadline_s:
            self.engine.check()
            found = await self.snapshot_id()
            if found is not None and found != before:
                return found
            # Snapshots come after commits, and commits after records.
            user += 1
            await _visits(self._log, self._run.source, [self._users + user])
            await asyncio.sleep(0.25)
        raise self.engine.failed(f"made no snapshot within {SNAPSHOT_TIMEOUT_S:.0f} s")

    async def snapshot_id(self) -> str | None:
        """Return the snapshot of the last commit."""
        changelog = TopicPartition(self._run.changelog, 0)
        span = (await self._log.offsets([changelog]))[changelog]
        commit = await last_commit(self._log, changelog, span, self.engine.codec)
        return commit.snapshot.id if commit and commit.snapshot else None


async def next_values(reader: LogReader, engine: Engine) -> list[bytes]:
    """Return the next records that become readable.

    Raises:
        EngineFailedError: If the worker ends, or none come.
    """
    deadline_s = time.monotonic() + FIRST_RESULT_TIMEOUT_S
    while time.monotonic() < deadline_s:
        for chunk in await reader.poll(100):
            values = [value for value in engine.codec.decode(chunk).values if value is not None]
            if values:
                return values
        engine.check()
    raise engine.failed(f"gave no result within {FIRST_RESULT_TIMEOUT_S:.0f} s")


async def _visits(log: Log, topic: str, users: Sequence[int]) -> None:
    """Write a visit of each user, with a payload that does not compress well."""
    encode = select_plane().record_batches.encode
    writer = await log.open_writer("", transactional=False, timeout_ms=TIMEOUT_MS)
    chance = np.random.default_rng(len(users))
    per_batch = BATCH_BYTES // PAYLOAD_BYTES
    now_ms = start_of_day_before_ms()
    letters = np.frombuffer(bytes(range(48, 58)) + bytes(range(97, 123)), dtype=np.uint8)
    for first in range(0, len(users), per_batch):
        part = users[first : first + per_batch]
        keys = [b"user-%06d" % user for user in part]
        values = [
            b'{"user":"%b","payload":"%b","ts":%d}'
            % (key, letters[chance.integers(0, len(letters), PAYLOAD_BYTES)].tobytes(), now_ms)
            for key in keys
        ]
        for batch in encode(keys, values, [now_ms] * len(keys), None, 1_000_000):
            writer.append(topic, 0, batch)
        if writer.pending_bytes() > PENDING_BYTES_MAX:
            await writer.flush(TIMEOUT_MS)
        await asyncio.sleep(0)
    await writer.flush(TIMEOUT_MS)
    await writer.close()
