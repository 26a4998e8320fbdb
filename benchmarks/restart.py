"""Start to first result, and restart after ``kill -9`` with local state to first new result."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from riverrun.engine.log import TopicPartition
from riverrun.engine.reference.record_batches import ReferenceRecordBatchCodec

from .engine import Engine, Run
from .orders import TIMEOUT_MS, OrderStream, new_topic, preload, start_of_day_before_ms

if TYPE_CHECKING:
    from riverrun.engine.log import Log, LogReader

FIRST_RESULT_TIMEOUT_S = 60.0
PAYLOAD_BYTES = 16_000
BATCH_BYTES = 900_000
PENDING_BYTES_MAX = 32 * 1024 * 1024
BUILD_TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True)
class Start:
    """Fresh starts.

    Attributes:
        first_result_s: From the start of the process until its first result is readable; the
            middle one of several.
        all_s: All of them.
    """

    first_result_s: float
    all_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart after ``kill -9``.

    Attributes:
        state_mb: Size of the state directory.
        build_s: How long it took to fill it.
        first_result_s: From the start of the new process until its first new result is readable.
        all_s: All restarts; ``first_result_s`` is the middle one.
    """

    state_mb: float
    build_s: float
    first_result_s: float
    all_s: tuple[float, ...]


async def measure_start(log: Log, broker: str, times: int = 3) -> Start:
    """Start ``filter`` on a topic with a few records, several times."""
    await preload(log, "few-orders", OrderStream(2_000, start_ms=start_of_day_before_ms()))
    taken: list[float] = []
    for _ in range(times):
        run = Run.new("filter", broker, "few-orders")
        await new_topic(log, run.sink)
        reader = await log.open_reader({TopicPartition(run.sink, 0): 0})
        with Engine(run) as engine:
            engine.start()
            await _next_values(reader, engine)
            taken.append(time.monotonic() - engine.started_s)
        await reader.close()
    return Start(statistics.median(taken), tuple(taken))


async def _next_values(reader: LogReader, engine: Engine) -> list[bytes]:
    """Return the next records that become readable."""
    codec = ReferenceRecordBatchCodec()
    deadline_s = time.monotonic() + FIRST_RESULT_TIMEOUT_S
    while time.monotonic() < deadline_s:
        for chunk in await reader.poll(100):
            values = [value for value in codec.decode(chunk).values if value is not None]
            if values:
                return values
        engine.check()
    raise engine.failed(f"gave no result within {FIRST_RESULT_TIMEOUT_S:.0f} s")


async def measure_restart(log: Log, broker: str, state_mb: int, times: int = 3) -> Restart:
    """Build local state, then kill the worker and start it again, several times.

    Raises:
        AssertionError: If a result after a restart does not follow from all visits before it.
    """
    run = Run.new("state", broker, f"visits-{state_mb}")
    await new_topic(log, run.source)
    await new_topic(log, run.sink)
    users = state_mb * 1_000_000 // PAYLOAD_BYTES
    taken: list[float] = []
    with Engine(run) as engine:
        engine.start()
        began_s = time.monotonic()
        await _visits(log, run.source, range(users))
        await engine.wait_committed(log, 1, BUILD_TIMEOUT_S)
        build_s = time.monotonic() - began_s
        size_mb = engine.state_bytes() / 1e6
        for number in range(times):
            engine.kill()
            user = (number * 7919) % users
            await _visits(log, run.source, [user])
            sink = TopicPartition(run.sink, 0)
            end = (await log.offsets([sink]))[sink].end
            reader = await log.open_reader({sink: end})
            engine.start()
            values = await _next_values(reader, engine)
            taken.append(time.monotonic() - engine.started_s)
            await reader.close()
            found = [msgspec.json.decode(value) for value in values]
            assert found == [{"user": f"user-{user:06}", "visits": 2}], found
            await engine.wait_committed(log, 1, BUILD_TIMEOUT_S)
    return Restart(size_mb, build_s, statistics.median(taken), tuple(taken))


async def _visits(log: Log, topic: str, users: range | list[int]) -> None:
    """Write a visit of each user, with a payload that does not compress well."""
    codec = ReferenceRecordBatchCodec()
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
        for batch in codec.encode(keys, values, [now_ms] * len(keys), None, 1_000_000):
            writer.append(topic, 0, batch)
        if writer.pending_bytes() > PENDING_BYTES_MAX:
            await writer.flush(TIMEOUT_MS)
        await asyncio.sleep(0)
    await writer.flush(TIMEOUT_MS)
    await writer.close()
