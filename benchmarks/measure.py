"""Measures what was asked for, part by part, on a broker that runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from riverrun.connectors.kafka import KafkaLog

from . import large_state, latency, recovery, scaling, start, throughput
from .cpu_limit import NoLimitError
from .engine import EngineFailedError
from .load import LoadNotKeptError
from .orders import TIMEOUT_MS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from riverrun.engine.log import Log

    from .report import Report

THROUGHPUT_JOBS = ("filter", "window", "window-1m", "session", "python")
PARTS = (
    *THROUGHPUT_JOBS,
    "latency",
    "recovery",
    "checkpoint",
    "scaling",
    "start",
    "large-state",
)
DEFAULT_PARTS = PARTS
LESS = 0.6
"""Share of a load that is tried where the machine cannot carry all of it; never of the first."""
SCALING_FACTOR = 2
"""How many times ``--records`` the processes share, so that they are busy for some seconds."""


async def measure(arguments: argparse.Namespace, broker: str, report: Report) -> None:
    """Measure, in the order of the goals; parts that give no figures are noted as failures."""
    log = KafkaLog(broker)
    await log.start(TIMEOUT_MS)
    try:
        for part in _Parts(log, broker, arguments, report).wanted():
            await part()
    finally:
        await log.close()


class _Parts:
    def __init__(
        self, log: Log, broker: str, arguments: argparse.Namespace, report: Report
    ) -> None:
        self._log = log
        self._broker = broker
        self._given = arguments
        self._report = report
        self._command = tuple((arguments.engine_command or sys.executable).split())
        self._topics: dict[int, throughput.Preloaded] = {}

    def wanted(self) -> list[Callable[[], Awaitable[None]]]:
        jobs = set(self._given.job)
        parts: list[Callable[[], Awaitable[None]]] = []
        if jobs.intersection(THROUGHPUT_JOBS):
            parts.append(self._throughput)
        if "latency" in jobs:
            parts.append(self._latency)
        if jobs & {"recovery", "checkpoint"}:
            parts.append(self._recovery)
        if "scaling" in jobs:
            parts.append(self._scaling)
        if "start" in jobs:
            parts.append(self._start)
        if "large-state" in jobs:
            parts.append(self._large_state)
        return parts

    async def _try(self, name: str, what: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part; if it gives no figures the others still do."""
        say(what)
        try:
            await run()
        except (
            EngineFailedError,
            throughput.WrongOutputError,
            LoadNotKeptError,
            NoLimitError,
        ) as error:
            self._report.failures[name] = str(error)

    async def _throughput(self) -> None:
        for job in (each for each in THROUGHPUT_JOBS if each in self._given.job):

            async def drain(job: str = job) -> None:
                keys = throughput.KEYS.get(job, self._given.keys)
                topics = await self._filled(keys)
                found = await throughput.measure(
                    self._log, self._broker, job, topics, self._command
                )
                self._report.throughputs.append(found)

            await self._try(job, f"throughput of {job}", drain)

    async def _filled(self, keys: int) -> throughput.Preloaded:
        if keys not in self._topics:
            say(f"writing {self._given.records:,} records of {keys:,} users")
            self._topics[keys] = await throughput.prepare(
                self._log,
                self._given.records,
                keys=keys,
                rate=self._given.event_rate,
                partitions=self._given.partitions,
            )
        return self._topics[keys]

    async def _latency(self) -> None:
        for guarantee in ("at_least_once", "exactly_once"):
            for rate in self._given.rate:

                async def load(guarantee: str = guarantee, rate: int = rate) -> None:
                    try:
                        await self._load(guarantee, rate)
                    except LoadNotKeptError as error:
                        if rate == self._given.rate[0]:
                            raise
                        less = int(rate * LESS)
                        say(f"{error}: {less:,} records/s instead")
                        await self._load(guarantee, less)

                what = f"latency, {guarantee.replace('_', ' ')}, {rate:,} records/s"
                await self._try(what, what, load)

    async def _load(self, guarantee: str, rate: int) -> None:
        found = await latency.measure(
            self._log,
            self._broker,
            guarantee,
            rate=rate,
            warm_up_s=self._given.warm_up,
            seconds=self._given.seconds,
            command=self._command,
        )
        self._report.latencies.append(found)

    async def _recovery(self) -> None:
        wanted = "recovery" in self._given.job
        sizes = self._given.state_mb if wanted else self._given.state_mb[-1:]
        for size_mb in sizes:
            last = "checkpoint" in self._given.job and size_mb == sizes[-1]

            async def run(size_mb: int = size_mb, last: bool = last) -> None:
                found = await recovery.measure(
                    self._log,
                    self._broker,
                    size_mb,
                    recovery=wanted,
                    checkpoint_s=self._given.checkpoint_seconds if last else 0.0,
                    times=max(self._given.repeats, 2),
                )
                self._report.recoveries += found.recoveries
                self._report.checkpoint = found.checkpoint or self._report.checkpoint

            what = f"recovery and snapshots, {size_mb:,} MB of state"
            await self._try(what, what, run)

    async def _scaling(self) -> None:
        for cores_each, processes in scaling.STEPS:

            async def run(
                cores_each: float | None = cores_each, processes: int = processes
            ) -> None:
                found = await scaling.measure(
                    self._log,
                    self._broker,
                    processes,
                    self._given.records * SCALING_FACTOR,
                    self._given.keys,
                    cores_each,
                )
                self._report.scaling.append(found)

            limit = "" if cores_each is None else f" of {cores_each:g} cores each"
            what = f"scaling, {processes} processes{limit}"
            await self._try(what, what, run)

    async def _start(self) -> None:
        async def run() -> None:
            self._report.start = await start.measure(self._log, self._broker, self._given.repeats)

        await self._try("start", "start to ready, idle worker", run)

    async def _large_state(self) -> None:
        async def run() -> None:
            self._report.large_state = await large_state.measure(
                self._log, self._broker, self._given.large_keys, self._given.state_memory
            )

        await self._try("large-state", f"large state, {self._given.large_keys:,} keys", run)


def say(what: str) -> None:
    """Tell on stderr what is done now."""
    print(f"... {what}", file=sys.stderr, flush=True)
