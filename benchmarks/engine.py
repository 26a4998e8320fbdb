"""Runs a worker as a process of its own, the way a user does, and watches it from outside."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from riverrun.engine.log import TopicPartition
from riverrun.engine.reference.record_batches import ReferenceRecordBatchCodec
from riverrun.engine.restore import last_commit

from .machine import Usage, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from riverrun.engine.log import Log

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.05
STOP_TIMEOUT_S = 30.0

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
    """

    def __init__(self, run: Run, settings: Mapping[str, str] | None = None) -> None:
        self.run = run
        self.home = Path(tempfile.mkdtemp(prefix="riverrun-bench-"))
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
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
            **self._settings,
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
                    str(self.home / "state"),
                    "--guarantee",
                    run.guarantee,
                    "--commit-interval",
                    "100ms",
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
        lines = (self.home / "log").read_text(errors="replace").splitlines()[-30:]
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
        """Return the size of its local state."""
        sizes: list[int] = []
        for path in (self.home / "state").rglob("*"):
            try:
                sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue  # RocksDB has just compacted it
        return sum(sizes)

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
        commit = await last_commit(log, changelog, span, ReferenceRecordBatchCodec())
        if commit is None:
            return -1
        return next((p.offset for p in commit.positions if p.topic == where.topic), -1)
