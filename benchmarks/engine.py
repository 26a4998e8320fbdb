"""Runs a worker as a process of its own, the way a user does, and watches it from outside."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from riverrun.engine.log import TopicPartition
from riverrun.engine.planes import select_plane
from riverrun.engine.restore import last_commit

from .machine import Usage, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from riverrun.engine.log import Log

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.05
STOP_TIMEOUT_S = 30.0
READY_POLL_S = 0.002
READY_TIMEOUT_S = 60.0

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Run:
    """One job on topics of its own.

    Attributes:
        topology: Which one, by its name in ``benchmarks.jobs.JOBS``.
        broker: ``host:port``.
        job: Name of the job.
        source: Topic that it reads.
        sink: Topic that it writes.
        guarantee: ``exactly_once`` or ``at_least_once``.
        command: What to start Python with, for profilers: ``py-spy record ... -- python``.
    """

    topology: str
    broker: str
    job: str
    source: str
    sink: str
    guarantee: str = "exactly_once"
    command: tuple[str, ...] = (sys.executable,)

    @staticmethod
    def new(topology: str, broker: str, source: str, **more: str) -> Run:
        """Return a run that reads ``source``, with a job and an output topic of its own."""
        job = f"{topology}-{next(_numbers)}"
        return Run(topology, broker, job, source, f"{job}-output", **more)

    @property
    def changelog(self) -> str:
        """Name of the changelog topic."""
        return f"{self.job}-0-changelog"


class EngineFailedError(Exception):
    """The worker ended, or did not get as far as it should; the message has its last lines."""


class Engine:
    """A worker process and its state directory. Both are gone after ``with``.

    Args:
        run: What it runs.
        settings: More environment variables for it.
        options: More options of ``riverrun worker``.

    All three may be changed between two starts.
    """

    def __init__(
        self,
        run: Run,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.run = run
        self.home = Path(tempfile.mkdtemp(prefix="riverrun-bench-"))
        self.options = tuple(options)
        self.settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.codec = select_plane().record_batches
        self.started_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def state_dir(self) -> Path:
        """Its local disk."""
        return self.home / "state"

    @property
    def plane(self) -> str:
        """The data plane that it says it runs on; empty as long as it has said nothing."""
        found = re.findall(r"^riverrun: .*\bplane (\w+)", self._log(), re.MULTILINE)
        return found[-1] if found else ""

    def _log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start a process on the state that is there."""
        run = self.run
        environment = {
            **os.environ,
            "BENCH_TOPOLOGY": run.topology,
            "BENCH_JOB": run.job,
            "BENCH_INPUT": run.source,
            "BENCH_OUTPUT": run.sink,
            # The Python of a user is not asked for UTF-8 mode or unbuffered output either.
            **self.settings,
        }
        with (self.home / "log").open("ab") as log:
            self.started_s = time.monotonic()
            self._process = subprocess.Popen(
                (
                    *run.command,
                    "-m",
                    "riverrun",
                    "worker",
                    "benchmarks.jobs:topology",
                    "--broker",
                    f"kafka://{run.broker}",
                    "--state-dir",
                    str(self.state_dir),
                    "--guarantee",
                    run.guarantee,
                    "--commit-interval",
                    "100ms",
                    *self.options,
                ),
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def usage(self) -> Usage:
        """Return what it has used.

        Raises:
            EngineFailedError: If it has ended.
        """
        self.check()
        return usage_of(self.pid)

    def check(self) -> None:
        """Do nothing as long as it runs.

        Raises:
            EngineFailedError: If it has ended.
        """
        assert self._process is not None
        if self._process.poll() is not None:
            raise self.failed(f"ended with exit code {self._process.returncode}")

    def failed(self, what: str) -> EngineFailedError:
        """Return the error that says what happened."""
        lines = self._log().splitlines()[-30:]
        return EngineFailedError("\n".join([f"the worker of {self.run.job} {what}", *lines]))

    def kill(self) -> None:
        """Kill it as a crash would, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """Let it commit and leave; kill it if that takes too long."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def state_bytes(self) -> int:
        """Return the size of its local state; what a checkpoint links to counts once."""
        sizes: dict[int, int] = {}
        for path in self.state_dir.rglob("*"):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue  # RocksDB has just compacted it
            sizes[found.st_ino] = found.st_size
        return sum(sizes.values())

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ready(self, port: int, tasks: int = 1) -> dict[str, Any]:
        """Wait until ``/readyz`` answers yes and it runs so many tasks; return the answer.

        Raises:
            EngineFailedError: If it ends, or is not ready in time.
        """
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            self.check()
            answer = await asyncio.to_thread(_answer, f"http://127.0.0.1:{port}/readyz")
            if answer is not None:
                status: dict[str, Any] = msgspec.json.decode(answer)
                if len(status["tasks"]) == tasks:
                    return status
            await asyncio.sleep(READY_POLL_S)
        raise self.failed(f"was not ready within {READY_TIMEOUT_S:.0f} s")

    async def wait_committed(self, log: Log, partitions: int, timeout_s: float) -> None:
        """Wait until everything that is in the source now is processed and committed.

        Raises:
            EngineFailedError: If the worker ends, or does not get there within the time.
        """
        wanted = [TopicPartition(self.run.source, p) for p in range(partitions)]
        ends = {where: span.end for where, span in (await log.offsets(wanted)).items()}
        deadline_s = time.monotonic() + timeout_s
        while behind := [w for w in wanted if await self._position(log, w) < ends[w]]:
            self.check()
            if time.monotonic() > deadline_s:
                raise self.failed(f"has not processed all of {behind[0]} within {timeout_s:.0f} s")
            await asyncio.sleep(POLL_S)

    async def _position(self, log: Log, where: TopicPartition) -> int:
        changelog = TopicPartition(self.run.changelog, where.partition)
        if await log.describe_topic(changelog.topic) is None:
            return -1
        span = (await log.offsets([changelog]))[changelog]
        commit = await last_commit(log, changelog, span, self.codec)
        if commit is None:
            return -1
        return next((p.offset for p in commit.positions if p.topic == where.topic), -1)


def _answer(url: str) -> bytes | None:
    """Return what is there, None if nobody answers or the answer is no."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            body: bytes = response.read()
            return body
    except (OSError, urllib.error.URLError):
        return None
