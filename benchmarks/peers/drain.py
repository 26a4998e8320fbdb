"""Drain a topic with another engine, as ``benchmarks.throughput`` does with riverrun.

Twice, a short topic and a long one that begins with the same records; what the two runs differ by
has no start-up in it: no imports, no joining of the group, no first compilation.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from benchmarks.orders import OrderStream, new_topic, parse, preload, read_all
from benchmarks.throughput import WrongOutputError
from riverrun.engine.log import TopicPartition

from .catalog import ALL_COMMITTED, ENDED, RIVERRUN, Peer, Size
from .environments import command, variables
from .process import ProcessTree

if TYPE_CHECKING:
    from benchmarks.throughput import Throughput
    from riverrun.engine.log import Log, LogReader

POLL_MS = 50
SAMPLE_S = 0.25
DRAIN_TIMEOUT_S = 240.0

_LENGTH = struct.Struct(">i")
_LENGTH_AT, _ATTRIBUTES_AT, _COUNT_AT, _HEAD_BYTES = 8, 22, 57, 12
_CONTROL_BIT = 0x20

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class PeerResult:
    """What one engine does in one job, or why that is not known.

    Attributes:
        engine: Its name.
        job: ``filter`` or ``window``.
        records: Records drained.
        per_cpu_s: Records per second of CPU of all its processes, start-up taken out.
        per_wall_s: Records per second of wall time, start-up taken out.
        startup_cpu_s: CPU that starting took.
        first_result_s: From the start of the process until its first result could be read, on
            the short topic.
        peak_mb: Largest resident memory of all its processes together.
        results: Records put out.
        reason: Why there are no figures; empty if there are.
    """

    engine: str
    job: str
    records: int = 0
    per_cpu_s: float = 0.0
    per_wall_s: float = 0.0
    startup_cpu_s: float = 0.0
    first_result_s: float | None = None
    peak_mb: float = 0.0
    results: int = 0
    reason: str = ""

    @staticmethod
    def of_riverrun(measured: Throughput) -> PeerResult:
        """Return a figure of riverrun, to stand beside those of the peers."""
        return PeerResult(
            engine=RIVERRUN,
            job=measured.job,
            records=measured.records,
            per_cpu_s=measured.per_cpu_s,
            per_wall_s=measured.per_wall_s,
            startup_cpu_s=measured.startup_cpu_s,
            peak_mb=measured.peak_mb,
            results=measured.results,
        )


@dataclass(frozen=True, slots=True)
class _Drained:
    cpu_s: float
    wall_s: float
    peak_mb: float
    first_result_s: float | None
    results: int


class Inputs:
    """Topics that are filled, by the number of their records: engines of one size share them."""

    def __init__(self, log: Log, *, keys: int, rate: int, start_ms: int) -> None:
        self._log = log
        self._keys, self._rate, self._start_ms = keys, rate, start_ms
        self._filled: set[str] = set()

    def stream(self, records: int) -> OrderStream:
        """Return the first so many orders."""
        return OrderStream(records, self._keys, self._rate, self._start_ms)

    async def topic(self, records: int) -> str:
        """Return the name of a topic that holds them, and a record that closes all windows."""
        name = f"peer-orders-{records}"
        if name not in self._filled:
            await preload(self._log, name, self.stream(records))
            self._filled.add(name)
        return name


def readable_records(payload: bytes) -> int:
    """Return how many records are in whole record batches, not counting control records."""
    at, count = 0, 0
    while at < len(payload):
        if not payload[at + _ATTRIBUTES_AT] & _CONTROL_BIT:
            count += _LENGTH.unpack_from(payload, at + _COUNT_AT)[0]
        at += _HEAD_BYTES + _LENGTH.unpack_from(payload, at + _LENGTH_AT)[0]
    return count


def expected(job: str, stream: OrderStream) -> pl.DataFrame:
    """Return what the job has to put out."""
    return stream.expected_window() if job == "window" else stream.expected_filter()


def final_results(
    job: str, values: list[bytes], like: pl.DataFrame, *, updates: bool
) -> pl.DataFrame:
    """Return the output as a frame in the order of what is expected.

    The order that closes the windows is no order, and of updates the last one counts.
    """
    found = parse(values, like)
    if job == "filter":
        return found.sort("order")
    if updates:
        found = found.unique(["user", "window_start"], keep="last")
    return found.filter(pl.col("user") != "closing").sort("window_start", "user")


async def measure(
    log: Log, broker: str, peer: Peer, job: str, inputs: Inputs, *, size: Size
) -> PeerResult:
    """Drain both topics, check what came out, and return what it took.

    Raises:
        EngineFailedError: If the engine ends or takes too long.
        WrongOutputError: If a result is missing, twice, or not what it should be.
    """
    drains = _Drains(log, broker, peer, job)
    short = await drains.run(await inputs.topic(size.short), inputs.stream(size.short))
    long = await drains.run(await inputs.topic(size.long), inputs.stream(size.long))
    records = size.long - size.short
    per_cpu_s = records / (long.cpu_s - short.cpu_s)
    return PeerResult(
        engine=peer.name,
        job=job,
        records=size.long,
        per_cpu_s=per_cpu_s,
        per_wall_s=records / (long.wall_s - short.wall_s),
        startup_cpu_s=short.cpu_s - size.short / per_cpu_s,
        first_result_s=short.first_result_s,
        peak_mb=long.peak_mb,
        results=long.results,
    )


@dataclass(frozen=True, slots=True)
class _Drains:
    log: Log
    broker: str
    peer: Peer
    job: str

    async def run(self, source: str, stream: OrderStream) -> _Drained:
        """Drain one topic and compare all that came out."""
        name = f"{self.peer.name.replace('_', '-')}-{self.job}-{next(_numbers)}"
        sink = f"{name}-output"
        await new_topic(self.log, sink)
        like = await asyncio.to_thread(expected, self.job, stream)
        reader = await self.log.open_reader({TopicPartition(sink, 0): 0})
        settings = {
            "BENCH_BROKER": self.broker,
            "BENCH_JOB": name,
            "BENCH_TOPOLOGY": self.job,
            "BENCH_INPUT": source,
            "BENCH_OUTPUT": sink,
        }
        try:
            with ProcessTree(name, command(self.peer), settings | variables(self.peer)) as tree:
                watch = _Watch(self.log, reader, tree)
                await self._until_end(watch, name, source, self._results(stream, like))
                usage = tree.usage()
                wall_s = time.monotonic() - tree.started_s
        finally:
            await reader.close()
        values = await read_all(self.log, sink)
        updates = self.peer.updates
        found = await asyncio.to_thread(final_results, self.job, values, like, updates=updates)
        if not found.equals(like):
            raise WrongOutputError(_difference(name, found, like))
        return _Drained(usage.cpu_s, wall_s, usage.peak_mb, watch.first_result_s, len(values))

    def _results(self, stream: OrderStream, like: pl.DataFrame) -> int:
        if self.peer.updates and self.job == "window":
            return stream.count + 1  # of the record that closes the windows there is one too
        return like.height

    async def _until_end(self, watch: _Watch, name: str, source: str, results: int) -> None:
        if self.peer.end == ENDED:
            await watch.until_ended()
        elif self.peer.end == ALL_COMMITTED:
            await watch.until_committed(name, source)
        else:
            await watch.until_readable(results)


class _Watch:
    """Looks at the output and at the processes until a drain is done."""

    def __init__(self, log: Log, reader: LogReader, tree: ProcessTree) -> None:
        self._log, self._reader, self._tree = log, reader, tree
        self._results = 0
        self._next_sample_s = 0.0
        self.first_result_s: float | None = None

    async def until_readable(self, wanted: int) -> None:
        while self._results < wanted:
            await self._look()

    async def until_committed(self, group: str, source: str) -> None:
        where = TopicPartition(source, 0)
        end = (await self._log.offsets([where]))[where].end
        while (await self._log.group_offsets(group, [where])).get(where, 0) < end:
            await self._look()

    async def until_ended(self) -> None:
        while self._tree.exit_code() is None:
            await self._look(may_end=True)
        if self._tree.exit_code() != 0:
            raise self._tree.failed(f"ended with exit code {self._tree.exit_code()}")

    async def _look(self, *, may_end: bool = False) -> None:
        for chunk in await self._reader.poll(POLL_MS):
            self._results += readable_records(chunk.payload)
        spent_s = time.monotonic() - self._tree.started_s
        if self._results and self.first_result_s is None:
            self.first_result_s = spent_s
        if spent_s >= self._next_sample_s:
            # Of memory, for its peak. Seldom, for it takes a look at all processes.
            self._tree.usage()
            self._next_sample_s = spent_s + SAMPLE_S
        if not may_end and self._tree.exit_code() is not None:
            raise self._tree.failed(f"ended after {self._results:,} results")
        if spent_s > DRAIN_TIMEOUT_S:
            raise self._tree.failed(
                f"has put out {self._results:,} results in {DRAIN_TIMEOUT_S:.0f} s and is not done"
            )


def _difference(name: str, found: pl.DataFrame, like: pl.DataFrame) -> str:
    missing = like.join(found, on=like.columns, how="anti")
    extra = found.join(like, on=like.columns, how="anti")
    return (
        f"the output of {name} is wrong: {found.height:,} results where {like.height:,} are "
        f"expected; {missing.height:,} are missing, like {missing.head(2).to_dicts()}, and "
        f"{extra.height:,} should not be there, like {extra.head(2).to_dicts()}"
    )
