"""``TopologyTestDriver``: the real plan in memory, with a clock that you move.

The same tasks, chains, state and commit protocol as in a worker, over a log in memory; nothing
runs in the background, so a test repeats exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec
import orjson

from riverrun.state import MemoryStore

from .clock import ManualClock
from .config import TaskSettings
from .errors import TopicMissingError
from .graph import Graph, SourceNode
from .keys import key_to_wire
from .log import FOREVER_MS, TopicPartition, TopicSpec
from .memory_log import MemoryLog
from .metrics import Metrics
from .output import OutputBuffer
from .plan import Plan, TaskId, make_plan
from .planes import select_plane
from .restore import read_range
from .setup import prepare_topics
from .task import Task
from .task_environment import TaskEnvironment
from .task_inputs import SourceInput

if TYPE_CHECKING:
    from types import TracebackType

    from riverrun.state import StateStore

    from .log import LogWriter, OffsetRange
    from .plane import Plane

_ROUNDS_MAX = 10_000
"""Rounds until everything is still; more means that a step feeds itself."""

START_MS = 1_700_000_000_000
"""Where the driver's clock starts unless told otherwise: in November 2023."""


class HasGraph(Protocol):
    """A topology, as the fluent API builds it."""

    @property
    def graph(self) -> Graph:
        """Its logical graph."""
        ...


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A committed record of a topic.

    Attributes:
        key: Key as text, None if it has none.
        value: Value decoded from JSON; the raw bytes where they are not JSON.
        timestamp_ms: Its timestamp: the event time.
        partition: Where it is.
        headers: Its headers.
    """

    key: str | None
    value: Any
    timestamp_ms: int
    partition: int
    headers: tuple[tuple[str, bytes | None], ...] = ()


class _MemoryStores:
    """The disk of one task: survives ``crash``, unless that takes the disk as well."""

    def __init__(self) -> None:
        self.store: MemoryStore | None = None

    def open_local(self) -> StateStore | None:
        return self.store

    def create(self) -> StateStore:
        self.store = MemoryStore()
        return self.store

    async def from_snapshot(self, snapshot_id: str) -> StateStore:
        raise AssertionError(f"the driver makes no snapshots, so nothing can name {snapshot_id}")

    async def snapshot_ids(self) -> list[str]:
        return []


class TopologyTestDriver:
    """Runs a topology in memory.

    Use it as a context manager, or call ``close``.

    Args:
        topology: What to run.
        partitions: Number of partitions of source topics that do not say.
        now_ms: Where the clock starts.
        guarantee: ``exactly_once`` or ``at_least_once``.
        plane: Data plane; ``select_plane`` decides if not given.

    Example:
        A test of a job that counts per user and minute::

            with TopologyTestDriver(topology) as driver:
                driver.pipe("orders", [{"user": "ada", "amount": 2.5, "ts": 1_000}])
                driver.advance_watermark(120_000)
                assert driver.read("counts")[0].value["orders"] == 1
    """

    def __init__(
        self,
        topology: HasGraph,
        *,
        partitions: int = 1,
        now_ms: int = START_MS,
        guarantee: Any = "exactly_once",
        plane: Plane | None = None,
    ) -> None:
        self.clock = ManualClock(now_ms)
        self._runner = asyncio.Runner()
        self._plan: Plan = make_plan(topology.graph)
        self._log = MemoryLog(self.clock)
        self._plane: Plane = plane or select_plane()
        self._settings = TaskSettings(guarantee=guarantee)
        self._disks: dict[TaskId, _MemoryStores] = {}
        self._tasks: list[Task] = []
        self._read_to: dict[TopicPartition, int] = {}
        self._writer: LogWriter | None = None
        self._metrics = Metrics(self._plan.job, "driver")
        self._runner.run(self._open(partitions))

    def __enter__(self) -> TopologyTestDriver:
        """Return the driver."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the driver."""
        self.close()

    async def _open(self, partitions: int) -> None:
        await self._log.start(1_000)
        for node in self._plan.graph.nodes.values():
            if isinstance(node, SourceNode):
                count = node.partitions or partitions
                spec = TopicSpec(node.topic, count, retention_ms=FOREVER_MS)
                await self._log.create_topics([spec])
        self._resolved, max_bytes = await prepare_topics(self._log, self._plan)
        self._env = TaskEnvironment(
            self._resolved,
            self._log,
            self._plane,
            self.clock,
            self._metrics,
            self._settings,
            _inline,
            _inline,
            max_bytes,
        )
        self._writer = await self._log.open_writer("driver", transactional=True, timeout_ms=1_000)
        await self._start_tasks()

    async def _start_tasks(self) -> None:
        for task_id in self._resolved.task_ids():
            disk = self._disks.setdefault(task_id, _MemoryStores())
            task = Task(task_id, self._env, disk)
            await task.start()
            self._tasks.append(task)

    # --- in ----------------------------------------------------------------------------------

    def pipe(
        self,
        topic: str,
        records: Sequence[Any],
        *,
        key: str | Callable[[Any], Any] | None = None,
        timestamp_ms: Callable[[Any], int] | None = None,
        partition: int | None = None,
        commit: bool = True,
    ) -> None:
        """Write records to a source topic and process everything that follows from them.

        Args:
            topic: Name of the topic.
            records: Values: bytes as they are, anything else as JSON; None for a tombstone.
            key: Field, or function of the value, that gives the record key.
            timestamp_ms: Function of the value that gives the record timestamp; the clock if None.
            partition: Where to write; by key if None.
            commit: Whether to commit what was processed; if not, ``crash`` undoes it.

        Raises:
            TopicMissingError: If the topology reads no such topic.
            RecordError: If a step cannot process a record and its policy is ``fail``.
        """
        sources = {n.topic for n in self._plan.graph.nodes.values() if isinstance(n, SourceNode)}
        if topic not in sources:
            raise TopicMissingError(
                f"the topology reads {sorted(sources)}, not {topic!r}; pipe into one of those"
            )
        self._runner.run(self._pipe(topic, records, key, timestamp_ms, partition, commit))

    async def _pipe(
        self,
        topic: str,
        records: Sequence[Any],
        key: str | Callable[[Any], Any] | None,
        timestamp_ms: Callable[[Any], int] | None,
        partition: int | None,
        commit: bool,
    ) -> None:
        assert self._writer is not None
        buffer = OutputBuffer(
            self._plane.record_batches, self._resolved.partitions, {}, self.clock.now_ms
        )
        keys = [key_to_wire(_key_of(record, key)) for record in records]
        values = [
            r if r is None or isinstance(r, bytes) else msgspec.json.encode(r) for r in records
        ]
        times = [timestamp_ms(r) if timestamp_ms else self.clock.now_ms() for r in records]
        where = None if partition is None else [partition] * len(values)
        buffer.write(topic, keys, values, times, partitions=where)
        for each in buffer.drain():
            self._writer.append(each.topic, each.partition, each.batch)
        await self._writer.commit(1_000)
        await self._settle(commit=commit)

    async def _settle(self, *, commit: bool) -> None:
        for _ in range(_ROUNDS_MAX):
            worked = False
            for task in self._tasks:
                while await task.step(0):
                    worked = True
            if commit:
                for task in self._tasks:
                    epoch = task.epoch
                    await task.commit()
                    # What it made visible may be what another task waits for.
                    worked = worked or task.epoch > epoch
            if not worked:
                return
        raise RuntimeError("the topology does not come to rest: a step feeds itself for ever")

    # --- time --------------------------------------------------------------------------------

    def advance_watermark(self, to_ms: int) -> None:
        """Move the watermark of every source partition to ``to_ms``, and let windows fire."""
        for task in self._tasks:
            for each in task.inputs():
                if isinstance(each, SourceInput):
                    each.watermark.floor_ms = max(each.watermark.floor_ms, to_ms)
        self._runner.run(self._settle_forced())

    async def _settle_forced(self) -> None:
        for task in self._tasks:
            await task.commit(force=True)
        await self._settle(commit=True)

    def advance_clock(self, by_ms: int) -> None:
        """Move the wall clock; processing-time timers and idle sources follow."""
        self.clock.advance(by_ms)
        self._runner.run(self._settle(commit=True))

    # --- out ---------------------------------------------------------------------------------

    def read(self, topic: str) -> list[OutputRecord]:
        """Return the committed records of a topic that were not returned before.

        Ordered by partition, then offset.
        """
        return self._runner.run(self._read(topic))

    async def _read(self, topic: str) -> list[OutputRecord]:
        result: list[OutputRecord] = []
        for partition in range(self._resolved.partitions[topic]):
            where = TopicPartition(topic, partition)
            span = (await self._log.offsets([where]))[where]
            begin = self._read_to.get(where, span.start)
            codec = self._plane.record_batches
            async for records in read_range(self._log, where, begin, span.end, codec):
                for index in range(len(records)):
                    key, value = records.keys[index], records.values[index]
                    headers = records.headers[index] if records.headers is not None else ()
                    result.append(
                        OutputRecord(
                            None if key is None else key.decode(errors="replace"),
                            _decoded(value),
                            records.timestamps_ms[index],
                            partition,
                            tuple(headers),
                        )
                    )
            self._read_to[where] = span.end
        return result

    def offsets(self, partition: TopicPartition) -> OffsetRange:
        """Return what is in a partition of any topic, internal ones included."""
        return self._runner.run(self._log.offsets([partition]))[partition]

    def metrics(self) -> bytes:
        """Return the metrics in the Prometheus text format."""
        return self._metrics.render()

    # --- faults ------------------------------------------------------------------------------

    def crash(self, *, lose_disk: bool = False) -> None:
        """Kill all tasks as ``kill -9`` does, and start them again.

        Args:
            lose_disk: Whether the local state is gone too, as on a new machine.
        """
        self._runner.run(self._crash(lose_disk=lose_disk))

    async def _crash(self, *, lose_disk: bool) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await task.close()
        if lose_disk:
            self._disks.clear()
        await self._start_tasks()
        await self._settle(commit=True)

    def rebalance(self) -> None:
        """Give all tasks back and take them again, as when workers come and go."""
        self._runner.run(self._rebalance())

    async def _rebalance(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await task.stop()
        self._disks.clear()
        await self._start_tasks()
        await self._settle(commit=True)

    def close(self) -> None:
        """Release everything."""
        self._runner.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        for task in self._tasks:
            await task.close()
        if self._writer is not None:
            await self._writer.close()
        await self._log.close()


async def _inline(function: Callable[..., object], *args: object) -> object:
    return function(*args)


def _key_of(record: Any, key: str | Callable[[Any], Any] | None) -> Any:
    if key is None:
        return None
    if callable(key):
        return key(record)
    if isinstance(record, Mapping):
        return cast("Mapping[str, Any]", record)[key]
    return getattr(record, key)


def _decoded(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
