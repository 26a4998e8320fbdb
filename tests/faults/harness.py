"""A small job on a real worker, whose output tells exactly what was lost or repeated.

Every order is copied to one topic, which shows each record once, and counted in one-minute
windows, which show the state. ``World`` is what survives a worker: the log, the disk of each
machine and the storage of snapshots.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import riverrun as rr
from riverrun.connectors.kafka import KafkaLog
from riverrun.connectors.local import LocalLog
from riverrun.engine.clock import SystemClock
from riverrun.engine.config import TaskSettings, WorkerSettings
from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec
from riverrun.engine.metrics import Metrics
from riverrun.engine.output import OutputBuffer
from riverrun.engine.plan import make_plan
from riverrun.engine.planes import select_plane
from riverrun.engine.restore import read_range
from riverrun.engine.worker import Worker
from riverrun.engine.worker_state import LocalWorkerState
from riverrun.state import StateDirectory, open_blob_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from riverrun.engine.clock import Clock
    from riverrun.engine.log import Log
    from riverrun.engine.plan import Plan
    from riverrun.state import BlobStore

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000
"""A whole minute, long ago: no clock closes these windows."""

PARTITIONS = 2
USERS = tuple(f"user-{number}" for number in range(7))
DEADLINE_S = 60.0
POLL_S = 0.02
CLOSER = "closer"
"""Whose orders only move the watermark; they are in no expectation."""

WORKER_SETTINGS = WorkerSettings(restart_backoff_ms=20, offsets_interval_ms=50)
TASK_SETTINGS = TaskSettings(commit_interval_ms=20, snapshot_interval_ms=100)
CODEC = select_plane().record_batches


class Order(rr.Record):
    """What the job reads."""

    user: str
    amount: int
    ts: int


def topology(
    prefix: str = "", *, orders: str = "orders", window: str = "1m", **aggregates: Any
) -> rr.Topology:
    """Copy the orders, and count and sum them per user and window; ``prefix`` is of all names."""
    topology = rr.Topology(f"{prefix}job")
    stream = topology.source(
        rr.Topic(f"{prefix}{orders}", value=rr.Json(Order), keyed_by="user"), event_time="ts"
    )
    stream.sink(rr.Topic(f"{prefix}copy"))
    windows = stream.key_by("user").window(rr.Tumbling(window))
    aggregates = aggregates or {"n": rr.Count(), "total": rr.Sum("amount")}
    windows.aggregate(name="counts", **aggregates).sink(rr.Topic(f"{prefix}windows"))
    return topology


def plan_of(topology: rr.Topology) -> Plan:
    """Return the plan of a topology."""
    return make_plan(topology.graph)


async def eventually(
    holds: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = DEADLINE_S
) -> None:
    """Poll until ``holds``; fail when it does not within the deadline."""
    end_s = time.monotonic() + seconds
    while True:
        answer = holds()
        if not isinstance(answer, bool):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < end_s, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(POLL_S)


@dataclass
class Running:
    """A worker at work in this process."""

    worker: Worker
    metrics: Metrics
    run: asyncio.Task[None]

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return the status of its tasks."""
        return self.worker.status()["tasks"]

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.metrics.render().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))

    async def until_ready(self) -> None:
        """Wait until all its tasks run; raise what stopped it."""
        await eventually(self._is_ready, "all tasks run")

    def _is_ready(self) -> bool:
        if self.run.done():
            self.run.result()
        return bool(self.worker.status()["ready"] and self.tasks())

    async def ends(self) -> BaseException:
        """Wait until it ends by itself; return what it raised."""
        await asyncio.wait({self.run}, timeout=DEADLINE_S)
        assert self.run.done(), "the worker did not end"
        error = self.run.exception()
        assert error is not None
        return error


@dataclass
class World:
    """What outlives a worker.

    Attributes:
        path: Where everything is.
        log: Opened; orders go in and results come out here.
        topic: Name of the source topic, without the prefix.
    prefix: What all names begin with, where the log is shared.
    worker_log: What workers use, if it is another connection.
    clock: Of the workers.
        blobs: Storage of snapshots, None for none.
        fed: All orders in the source topic that can come out.
    repeated: Those of them that come out twice, because a fresh start was allowed.
        settings: Of the workers; snapshots are frequent.
    """

    path: Path
    log: Log
    topic: str = "orders"
    prefix: str = ""
    worker_log: Log | None = None
    clock: Clock = field(default_factory=SystemClock)
    blobs: BlobStore | None = None
    fed: list[Order] = field(default_factory=list[Order])
    repeated: list[Order] = field(default_factory=list[Order])
    settings: TaskSettings = TASK_SETTINGS
    minute: int = 0

    @property
    def source(self) -> str:
        """Full name of the source topic."""
        return f"{self.prefix}{self.topic}"

    async def create_source(self, partitions: int = PARTITIONS) -> None:
        """Create the source topic."""
        await self.log.create_topics([TopicSpec(self.source, partitions, FOREVER_MS)])

    async def source_partitions(self) -> list[TopicPartition]:
        """Return the partitions of the source topic."""
        info = await self.log.describe_topic(self.source)
        assert info is not None
        return [TopicPartition(self.source, number) for number in range(info.partitions)]

    async def feed(self, count: int = 50, *, close: bool = True) -> list[Order]:
        """Write orders, no two alike, and what closes their windows; return the orders.

        Args:
            count: How many, all of one minute of event time.
            close: Whether the windows of that minute end, and the next minute is next.
        """
        begin_ms = START_MS + self.minute * MINUTE_MS
        numbers = range(len(self.fed), len(self.fed) + count)
        orders = [
            Order(user=USERS[each % len(USERS)], amount=each, ts=begin_ms + each % MINUTE_MS)
            for each in numbers
        ]
        partitions = len(await self.source_partitions())
        buffer = OutputBuffer(CODEC, {self.source: partitions}, {}, lambda: begin_ms)
        _put(buffer, self.source, orders)
        if close:
            self.minute += 1
            closer = Order(user=CLOSER, amount=0, ts=begin_ms + MINUTE_MS)
            for partition in range(partitions):
                _put(buffer, self.source, [closer], partition)
        feeder = f"{self.prefix}feeder"
        writer = await self.log.open_writer(feeder, transactional=True, timeout_ms=10_000)
        for each in buffer.drain():
            writer.append(each.topic, each.partition, each.batch)
        await writer.commit(10_000)
        await writer.close()
        self.fed += orders
        return orders

    async def copied(self) -> bool:
        """Return whether all orders were read and committed, whether or not windows are closed."""
        return sum(each["user"] != CLOSER for each in await self.read("copy")) >= len(self.fed)

    async def feed_and_wait(self, count: int = 50, *, close: bool = False) -> list[Order]:
        """Write orders and wait until they are committed; leaves windows open unless told."""
        orders = await self.feed(count, close=close)
        await eventually(self.copied, "all orders are read")
        return orders

    def start(
        self,
        machine: str = "machine",
        *,
        plan: Plan | None = None,
        worker_settings: WorkerSettings | None = None,
        **changes: Any,
    ) -> Running:
        """Start a worker on the disk of ``machine``; ``changes`` are of the settings.

        Raises:
            StateError: The disk of the machine cannot be used.
        """
        directory = StateDirectory(self.path / machine)
        metrics = Metrics("job", machine)
        settings = worker_settings or WORKER_SETTINGS
        worker = Worker(
            plan or plan_of(topology(self.prefix, orders=self.topic)),
            self.worker_log or self.log,
            select_plane(),
            self.clock,
            metrics,
            replace(settings, task=replace(self.settings, **changes)),
            LocalWorkerState(directory, self.blobs),
        )

        async def run() -> None:
            with directory:
                await worker.run()

        return Running(worker, metrics, asyncio.create_task(run()))

    @asynccontextmanager
    async def working(self, machine: str = "machine", **options: Any) -> AsyncIterator[Running]:
        """Start a worker, wait until it is ready, and stop it in the end."""
        running = self.start(machine, **options)
        try:
            await running.until_ready()
            yield running
        finally:
            running.worker.stop()
            await asyncio.wait({running.run})
        running.run.result()

    async def check_works(self, machine: str = "machine", **options: Any) -> None:
        """Let a worker process new records, and check that the output is exact."""
        async with self.working(machine, **options):
            await self.feed()
            await self.check_exact()

    async def read(self, topic: str) -> list[dict[str, Any]]:
        """Return all committed values of a topic, named without the prefix."""
        topic = f"{self.prefix}{topic}"
        info = await self.log.describe_topic(topic)
        values: list[dict[str, Any]] = []
        for partition in range(info.partitions if info is not None else 0):
            where = TopicPartition(topic, partition)
            span = (await self.log.offsets([where]))[where]
            async for records in read_range(self.log, where, span.start, span.end, CODEC):
                values += [json.loads(value) for value in records.values if value is not None]
        return values

    def _expected(self) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
        copies = Counter((e.user, e.amount, e.ts) for e in [*self.fed, *self.repeated])
        windows = Counter(expected_windows(self.fed)) + Counter(expected_windows(self.repeated))
        return copies, windows

    async def _found(self) -> tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]:
        copies = _counted(await self.read("copy"), "user", "amount", "ts")
        windows = _counted(await self.read("windows"), "user", "window_start", "n", "total")
        return copies, windows

    async def check_exact(self) -> None:
        """Wait for all output; fail if any of it is missing, wrong or there too often."""
        copies, windows = self._expected()

        async def is_complete() -> bool:
            found = await self._found()
            return found[0].total() >= copies.total() and found[1].total() >= windows.total()

        await eventually(is_complete, "all output is there")
        found = await self._found()
        assert found[0] == copies
        assert found[1] == windows


def expected_windows(orders: Iterable[Order]) -> list[tuple[str, int, int, int]]:
    """Return user, begin, number and sum of each window."""
    sums: dict[tuple[str, int], list[int]] = {}
    for each in orders:
        sums.setdefault((each.user, each.ts - each.ts % MINUTE_MS), []).append(each.amount)
    return [(user, begin, len(them), sum(them)) for (user, begin), them in sums.items()]


def _counted(rows: list[dict[str, Any]], *fields: str) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row[name] for name in fields) for row in rows if row["user"] != CLOSER)


def _put(
    buffer: OutputBuffer, topic: str, orders: list[Order], partition: int | None = None
) -> None:
    buffer.write(
        topic,
        [each.user.encode() for each in orders],
        [json.dumps({"user": e.user, "amount": e.amount, "ts": e.ts}).encode() for e in orders],
        [each.ts for each in orders],
        partitions=None if partition is None else [partition] * len(orders),
    )


@asynccontextmanager
async def local_world(path: Path, *, snapshots: bool = False) -> AsyncIterator[World]:
    """Yield a world on the embedded log, its source topic created."""
    log = LocalLog(path / "log")
    await log.start(10_000)
    blobs = open_blob_store((path / "snapshots").as_uri()) if snapshots else None
    world = World(path, log, blobs=blobs)
    try:
        await world.create_source()
        yield world
    finally:
        await log.close()


@asynccontextmanager
async def kafka_log(address: str) -> AsyncIterator[KafkaLog]:
    """Yield a started connection to Kafka."""
    log = KafkaLog(address)
    await log.start(10_000)
    try:
        yield log
    finally:
        await log.close()
