"""Tasks over a log in memory, for tests: no threads, no waiting, a clock that the test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from riverrun.engine.clock import ManualClock
from riverrun.engine.config import TaskSettings
from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec
from riverrun.engine.memory_log import MemoryLog
from riverrun.engine.memory_storage import MemoryStorage
from riverrun.engine.metrics import Metrics
from riverrun.engine.plan import TaskId, make_plan
from riverrun.engine.planes import select_plane
from riverrun.engine.restore import read_range
from riverrun.engine.setup import prepare_topics
from riverrun.engine.task import Task
from riverrun.engine.task_environment import TaskEnvironment
from riverrun.state import MemoryStore, SnapshotMissingError, StateDirectoryInUseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.graph import Graph
    from riverrun.engine.log import LogWriter
    from riverrun.state import StateStore

NOW_MS = 1_700_000_000_000


class DiskStore(MemoryStore):
    """A store that one owner at a time has open."""

    is_open = False

    def open(self) -> DiskStore:  # type: ignore[override]
        """Take the lock."""
        if self.is_open:
            raise StateDirectoryInUseError("the store is open already")
        self.is_open = True
        return self

    def close(self) -> None:
        """Release the lock."""
        self.is_open = False


class Disk:
    """The store of one task: what is left of it when the task is closed."""

    def __init__(self) -> None:
        self.store: DiskStore | None = None
        self.snapshots: dict[str, MemoryStore] = {}

    def open_local(self) -> StateStore | None:
        return None if self.store is None else self.store.open()

    def create(self) -> StateStore:
        assert self.store is None or not self.store.is_open, "an open store is discarded"
        self.store = DiskStore()
        return self.store.open()

    async def from_snapshot(self, snapshot_id: str) -> StateStore:
        found = self.snapshots.get(snapshot_id)
        if found is None:
            raise SnapshotMissingError(f"no snapshot {snapshot_id}")
        store = self.create()
        assert isinstance(store, DiskStore)
        store._rows, store._meta, store._keys_changed = dict(found._rows), found._meta, True
        return store

    async def snapshot_ids(self) -> list[str]:
        return sorted(self.snapshots, reverse=True)


class TaskWorld:
    """A job's tasks, one process after the other over one log."""

    def __init__(self, graph: Graph, settings: TaskSettings | None = None) -> None:
        self.clock = ManualClock(NOW_MS)
        self.storage = MemoryStorage()
        self.log: Any = MemoryLog(self.clock, self.storage)
        self.plan = make_plan(graph)
        self.plane = select_plane()
        self.settings = settings or TaskSettings(commit_interval_ms=1)
        self.disks: dict[TaskId, Disk] = {}
        self.failpoint: Callable[[str], None] = lambda name: None
        self._writer: LogWriter | None = None

    async def send(self, topic: str, *rows: Any, partition: int = 0) -> None:
        """Write rows as JSON, and commit."""
        if self._writer is None:
            self._writer = await self.log.open_writer("sender", transactional=True, timeout_ms=0)
        values: list[bytes | None] = [
            row if isinstance(row, bytes) else msgspec.json.encode(row) for row in rows
        ]
        keys: list[bytes | None] = [None] * len(rows)
        times = [self.clock.now_ms()] * len(rows)
        for batch in self.plane.record_batches.encode(keys, values, times, None, 1_000_000):
            self._writer.append(topic, partition, batch)
        await self._writer.commit(0)

    async def topic(self, name: str, partitions: int = 1) -> None:
        """Make a topic."""
        await self.log.create_topics([TopicSpec(name, partitions, retention_ms=FOREVER_MS)])

    async def task(self, subtopology: int = 0, partition: int = 0) -> Task:
        """Return a task that is not started; its predecessor need not be closed."""
        resolved, max_bytes = await prepare_topics(self.log, self.plan)
        env = TaskEnvironment(
            resolved,
            self.log,
            self.plane,
            self.clock,
            Metrics(self.plan.job, "test"),
            self.settings,
            _inline,
            _inline,
            max_bytes,
            self.failpoint,
        )
        task_id = TaskId(str(subtopology), partition)
        return Task(task_id, env, self.disks.setdefault(task_id, Disk()))

    async def started(self, subtopology: int = 0, partition: int = 0) -> Task:
        """Return a task that is started."""
        task = await self.task(subtopology, partition)
        await task.start()
        return task

    async def settle(self, *tasks: Task) -> None:
        """Have tasks process and commit until nothing is left."""
        worked = True
        while worked:
            worked = False
            for task in tasks:
                while await task.step(0):
                    worked = True
                self.clock.advance(self.settings.commit_interval_ms)

    async def read(self, topic: str, partition: int = 0) -> list[tuple[str | None, Any]]:
        """Return key and value of all committed records of a partition."""
        where = TopicPartition(topic, partition)
        span = (await self.log.offsets([where]))[where]
        codec = self.plane.record_batches
        found: list[tuple[str | None, Any]] = []
        async for records in read_range(self.log, where, span.start, span.end, codec):
            for key, value in zip(records.keys, records.values, strict=True):
                row = None if value is None else msgspec.json.decode(value)
                found.append((None if key is None else key.decode(), row))
        return found


async def _inline(function: Callable[..., Any], *args: Any) -> Any:
    # As with a thread, the caller may be cancelled meanwhile, and the function runs all the same.
    await asyncio.sleep(0)
    result = function(*args)
    await asyncio.sleep(0)
    return result
