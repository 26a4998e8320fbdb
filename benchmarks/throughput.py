"""Throughput: drain a topic that is full, once with few records and once with all.

What the runs differ by has no start-up in it: neither imports nor joining the group.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .engine import Engine, Run
from .jobs import AMOUNT_MIN
from .orders import OrderStream, parse, preload, read_all, start_of_day_before_ms

if TYPE_CHECKING:
    import polars as pl

    from riverrun.engine.log import Log

DRAIN_TIMEOUT_S = 240.0
SHORT_SHARE = 0.1

MANY_KEYS = 1_000_000
KEYS = {"window-1m": MANY_KEYS}
"""Distinct users of the jobs that have a number of their own."""
TOPOLOGIES = {"window-1m": "window"}
"""Topologies of the jobs that do not have their name."""


@dataclass(frozen=True, slots=True)
class Drained:
    """One drain.

    Attributes:
        records: Records in the topic.
        cpu_s: CPU of the worker, from its start until all was committed.
        wall_s: Wall time of the same.
        peak_mb: Largest resident memory.
        plane: Data plane that the worker said it ran on.
    """

    records: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    plane: str


@dataclass(frozen=True, slots=True)
class Throughput:
    """What one job does.

    Attributes:
        job: Its name.
        records: Records drained.
        record_bytes: Mean size of a value.
        per_cpu_s: Records per second of CPU of the worker, start-up taken out.
        per_wall_s: Records per second of wall time, start-up taken out.
        startup_cpu_s: CPU that starting took.
        peak_mb: Largest resident memory.
        results: Records put out, all equal to what was computed from the input.
        plane: Data plane that the worker said it ran on.
    """

    job: str
    records: int
    record_bytes: float
    per_cpu_s: float
    per_wall_s: float
    startup_cpu_s: float
    peak_mb: float
    results: int
    plane: str = ""


@dataclass(frozen=True, slots=True)
class Preloaded:
    """Topics that all jobs of a run drain."""

    short_topic: str
    short: OrderStream
    long_topic: str
    long: OrderStream
    record_bytes: float


class WrongOutputError(Exception):
    """The output is not what follows from the input; no figure is worth anything then."""


async def prepare(log: Log, records: int, *, keys: int, rate: int, partitions: int) -> Preloaded:
    """Fill the topics."""
    start_ms = start_of_day_before_ms()
    long = OrderStream(records, keys, rate, start_ms, partitions)
    short = OrderStream(int(records * SHORT_SHARE), keys, rate, start_ms, partitions)
    name = f"orders-{keys}"
    await preload(log, f"{name}-short", short)
    size = await preload(log, f"{name}-long", long)
    return Preloaded(f"{name}-short", short, f"{name}-long", long, size / records)


async def measure(
    log: Log, broker: str, job: str, topics: Preloaded, command: tuple[str, ...] = (sys.executable,)
) -> Throughput:
    """Drain both topics with a job, check what came out, and return what it took.

    Raises:
        WrongOutputError: If a result is missing, twice, or not what it should be.
        EngineFailedError: If the worker ends by itself or takes too long.
    """
    topology = TOPOLOGIES.get(job, job)
    short_run = Run.new(topology, broker, topics.short_topic)
    long_run = Run.new(topology, broker, topics.long_topic)
    short = await drain(log, short_run, topics.short)
    long = await drain(log, Run(**{**_fields(long_run), "command": command}), topics.long)
    await check(log, short_run, topics.short)
    results = await check(log, long_run, topics.long)
    records = long.records - short.records
    per_cpu_s = rate(records, long.cpu_s - short.cpu_s)
    return Throughput(
        job=job,
        records=long.records,
        record_bytes=topics.record_bytes,
        per_cpu_s=per_cpu_s,
        per_wall_s=rate(records, long.wall_s - short.wall_s),
        startup_cpu_s=short.cpu_s - short.records / per_cpu_s,
        peak_mb=long.peak_mb,
        results=results,
        plane=long.plane,
    )


def rate(records: int, seconds: float) -> float:
    """Return records per second; not a number where a start took longer than all the rest."""
    return records / seconds if seconds > 0 else math.nan


def _fields(run: Run) -> dict[str, object]:
    return {name: getattr(run, name) for name in run.__slots__}


async def drain(log: Log, run: Run, stream: OrderStream) -> Drained:
    """Run a worker until it has processed and committed a whole topic."""
    with Engine(run) as engine:
        engine.start()
        await engine.wait_committed(log, stream.partitions, DRAIN_TIMEOUT_S)
        wall_s = time.monotonic() - engine.started_s
        usage, plane = engine.usage(), engine.plane
        if run.command == (sys.executable,):
            engine.kill()
        else:
            engine.stop()  # a profiler has to write down what it has seen
    return Drained(stream.count, usage.cpu_s, wall_s, usage.peak_mb, plane)


async def check(log: Log, run: Run, stream: OrderStream) -> int:
    """Compare all output of a run with what follows from its input; return how much it is.

    Raises:
        WrongOutputError: If a result is missing, twice, or not what it should be.
    """
    values = await read_all(log, run.sink, stream.partitions)
    expected, found = await asyncio.to_thread(_both, run.topology, stream, values)
    if not found.equals(expected):
        raise WrongOutputError(_difference(run, found, expected))
    return len(values)


def _both(job: str, stream: OrderStream, values: list[bytes]) -> tuple[pl.DataFrame, pl.DataFrame]:
    if job == "filter":
        expected = stream.expected_filter()
        return expected, parse(values, expected).sort("order")
    if job == "session":
        expected = stream.expected_sessions()
    else:
        expected = stream.expected_window(AMOUNT_MIN if job == "python" else 0.0)
    return expected, parse(values, expected).sort("window_start", "user")


def _difference(run: Run, found: pl.DataFrame, expected: pl.DataFrame) -> str:
    missing = expected.join(found, on=expected.columns, how="anti")
    extra = found.join(expected, on=expected.columns, how="anti")
    return (
        f"the output of {run.job} is wrong: {found.height} results where {expected.height} are "
        f"expected; {missing.height} are missing, like {missing.head(2).to_dicts()}, and "
        f"{extra.height} should not be there, like {extra.head(2).to_dicts()}"
    )
