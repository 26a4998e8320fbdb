"""The simulated world: processes with disks and connections that fail, over one log and one store.

Everything a worker reaches goes through an object of its own here, which delays, fails, hangs
while the process is paused, and refuses for ever once it is dead.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

from riverrun.engine.errors import (
    LogUnavailableError,
    OutcomeUnknownError,
    WriteError,
)
from riverrun.engine.worker import Worker
from riverrun.engine.worker_state import blob_snapshot_cycle
from riverrun.state import (
    BlobExistsError,
    BlobInfo,
    BlobMissingError,
    BlobStoreError,
    MemoryStore,
    StateDirectoryInUseError,
    TaskIdentity,
    list_snapshots,
    restore_snapshot,
)
from riverrun.state.unhurried import no_rest

from .virtual_loop import Process

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from riverrun.engine.log import (
        Assignment,
        Chunk,
        EncodedBatch,
        GroupMember,
        LogReader,
        LogWriter,
        TopicPartition,
    )
    from riverrun.engine.memory_log import MemoryLog
    from riverrun.engine.plan import TaskId
    from riverrun.engine.snapshots import SnapshotCycle
    from riverrun.engine.task_environment import TaskEnvironment
    from riverrun.state import Delta, StateStore
    from riverrun.state.unhurried import Rest


class Death(BaseException):
    """The process is gone: raised at a failpoint, and by whatever a dead process touches."""


class Chance:
    """How much goes wrong; every number is a probability per operation."""

    def __init__(self, rng: random.Random, fault: float) -> None:
        self.rng = rng
        self.fault = fault

    def strikes(self) -> bool:
        return self.rng.random() < self.fault

    async def delay(self, up_to_s: float = 0.02) -> None:
        # Mostly nothing, sometimes long: what overlaps with what is the point of it all.
        await asyncio.sleep(self.rng.choice([0.0, 0.001, self.rng.random() * up_to_s]))


# --- the log -----------------------------------------------------------------------------------


class SimLog:
    """One process's connection to the log."""

    def __init__(self, inner: MemoryLog, machine: Machine) -> None:
        self.inner = inner
        self.machine = machine
        self._unnamed = 0

    async def _call(self) -> None:
        machine = self.machine
        await machine.pass_gate()
        await machine.chance.delay()
        await machine.pass_gate()

    async def _call_that_fails(self, what: str) -> None:
        await self._call()
        if self.machine.chance.strikes():
            raise LogUnavailableError(f"simulated: no answer to {what}")

    async def start(self, timeout_ms: int) -> None:
        await self.inner.start(timeout_ms)

    async def close(self) -> None:
        await self.inner.close()

    async def describe_topic(self, name: str) -> Any:
        await self._call()
        return await self.inner.describe_topic(name)

    async def create_topics(self, specs: Any) -> None:
        await self._call()
        await self.inner.create_topics(specs)

    async def offsets(self, partitions: Sequence[TopicPartition]) -> Any:
        await self._call_that_fails("offsets")
        return await self.inner.offsets(partitions)

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        await self._call_that_fails("delete_records")
        await self.inner.delete_records(before)

    async def open_reader(self, positions: Mapping[TopicPartition, int]) -> LogReader:
        await self._call()
        return SimReader(self, await self.inner.open_reader(positions))

    async def open_writer(
        self, writer_id: str, *, transactional: bool, timeout_ms: int
    ) -> LogWriter:
        await self._call_that_fails("open_writer")
        if not transactional:
            # As with Kafka: a writer without transactions fences nobody.
            self._unnamed += 1
            writer_id = f"{writer_id}#{self.machine.name}.{self.machine.starts}.{self._unnamed}"
        writer = await self.inner.open_writer(
            writer_id, transactional=transactional, timeout_ms=timeout_ms
        )
        await self._call()
        return SimWriter(self, writer)

    async def join_group(self, *args: Any, **options: Any) -> GroupMember:
        await self._call()
        return SimMember(self, await self.inner.join_group(*args, **options))

    async def group_offsets(self, group: str, partitions: Any) -> Any:
        return await self.inner.group_offsets(group, partitions)


class SimReader:
    def __init__(self, log: SimLog, inner: LogReader) -> None:
        self._log = log
        self._inner = inner

    async def poll(
        self, timeout_ms: int, exclude: frozenset[TopicPartition] = frozenset()
    ) -> list[Chunk]:
        await self._log.machine.pass_gate()
        chunks = await self._inner.poll(timeout_ms, exclude)
        await self._log._call()
        return chunks

    def position(self, partition: TopicPartition) -> int:
        return self._inner.position(partition)

    def end_offset(self, partition: TopicPartition) -> int | None:
        return self._inner.end_offset(partition)

    def trouble(self) -> str | None:
        return self._inner.trouble()

    async def close(self) -> None:
        await self._inner.close()


class SimWriter:
    def __init__(self, log: SimLog, inner: LogWriter) -> None:
        self._log = log
        self._inner = inner
        self._broken = False

    @property
    def owner(self) -> tuple[int, int]:
        return self._inner.owner

    def append(self, topic: str, partition: int, batch: EncodedBatch) -> None:
        assert not self._broken, "a writer is used after an error"
        if not self._log.machine.is_dead:
            self._inner.append(topic, partition, batch)

    def pending_bytes(self) -> int:
        return self._inner.pending_bytes()

    async def flush(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        await self._before()
        return await self._inner.flush(timeout_ms)

    async def commit(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        await self._before()
        if self._log.machine.chance.strikes():
            self._broken = True
            if self._log.machine.chance.rng.random() < 0.5:
                await self._inner.commit(timeout_ms)
            raise OutcomeUnknownError("simulated: the answer to a commit is lost")
        written = await self._inner.commit(timeout_ms)
        # Committed: but who asked may be dead, paused or cancelled before the answer comes.
        await self._log._call()
        return written

    async def _before(self) -> None:
        assert not self._broken, "a writer is used after an error"
        await self._log._call()
        if self._log.machine.chance.strikes():
            self._broken = True
            raise WriteError("simulated: a batch was refused")

    async def abort(self, timeout_ms: int) -> None:
        await self._inner.abort(timeout_ms)

    async def close(self) -> None:
        await self._inner.close()


class SimMember:
    """A membership that falls silent while its process is paused."""

    def __init__(self, log: SimLog, inner: Any) -> None:
        self._log = log
        self._inner = inner
        log.machine.members.append(inner)

    @property
    def member_id(self) -> str:
        return self._inner.member_id

    async def next_assignment(self, timeout_ms: int) -> Assignment | None:
        await self._log.machine.pass_gate()
        assignment = await self._inner.next_assignment(min(timeout_ms, 200))
        await self._log._call()
        return assignment

    def request_rebalance(self) -> None:
        self._inner.request_rebalance()

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._log._call_that_fails("commit_offsets")
        await self._inner.commit_offsets(offsets)

    async def leave(self) -> None:
        await self._inner.leave()


# --- disks -------------------------------------------------------------------------------------


class DiskStore(MemoryStore):
    """A store of which only what was flushed survives a crash, and that has one owner at a time."""

    def __init__(self, disk: Disk, task: TaskId, content: MemoryStore | None = None) -> None:
        super().__init__()
        if content is not None:
            self._rows, self._meta = dict(content._rows), content._meta
            self._keys_changed = True
        self._disk = disk
        self._task = task
        if task in disk.open:
            raise StateDirectoryInUseError(f"the store of {task} is open already")
        disk.open.add(task)
        self.is_open = True

    def apply(self, delta: Delta, meta: bytes, rest: Rest = no_rest) -> None:
        assert self.is_open, "a store is written after it was closed"
        super().apply(delta, meta, rest)
        if self._disk.rng.random() < 0.2:
            self.flush()

    def flush(self) -> None:
        if self.is_open:
            self._disk.durable[self._task] = self.copy()

    def close(self) -> None:
        if self.is_open:
            self.flush()
            self._disk.open.discard(self._task)
        self.is_open = False


class Disk:
    """What of each task survives a crash."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.durable: dict[TaskId, MemoryStore] = {}
        self.open: set[TaskId] = set()

    def after_crash(self) -> Disk:
        """Return the disk as the next process finds it."""
        disk = Disk(self.rng)
        disk.durable = dict(self.durable)
        return disk


class DictBlobStore:
    """Objects in a dict that many processes share."""

    url = "sim:"

    def __init__(self, objects: dict[str, bytes], machine: Machine) -> None:
        self._objects = objects
        self._machine = machine

    def replicas(self) -> Sequence[DictBlobStore]:
        return (self,)

    async def _call(self, what: str) -> None:
        await self._machine.pass_gate()
        await self._machine.chance.delay(0.2)
        await self._machine.pass_gate()
        if self._machine.chance.strikes():
            raise BlobStoreError(f"simulated: no answer to {what}")

    async def put_if_absent(self, name: str, source: bytes | Path) -> None:
        await self._call(f"put {name}")
        if name in self._objects:
            raise BlobExistsError(f"{name} exists")
        self._objects[name] = source if isinstance(source, bytes) else source.read_bytes()

    async def get(self, name: str) -> bytes:
        await self._call(f"get {name}")
        if name not in self._objects:
            raise BlobMissingError(f"{name} is missing")
        return self._objects[name]

    async def get_to_file(self, name: str, target: Path) -> None:
        target.write_bytes(await self.get(name))

    async def size(self, name: str) -> int | None:
        await self._call(f"size {name}")
        return len(self._objects[name]) if name in self._objects else None

    async def list(self, prefix: str) -> list[BlobInfo]:
        await self._call(f"list {prefix}")
        return [
            BlobInfo(name, len(self._objects[name]), 0)
            for name in sorted(self._objects)
            if name.startswith(f"{prefix}/")
        ]

    async def delete(self, names: Sequence[str]) -> None:
        await self._call("delete")
        for name in names:
            self._objects.pop(name, None)


class SimStores:
    """The stores of one task on one machine."""

    def __init__(self, machine: Machine, job: str, task: TaskId) -> None:
        self._disk = machine.disk
        self._machine = machine
        self._task = task
        self._identity = TaskIdentity(job, task.subtopology, task.partition)

    def open_local(self) -> StateStore | None:
        found = self._disk.durable.get(self._task)
        return None if found is None else DiskStore(self._disk, self._task, found)

    def create(self) -> StateStore:
        self._disk.durable.pop(self._task, None)
        return DiskStore(self._disk, self._task)

    async def from_snapshot(self, snapshot_id: str) -> StateStore:
        self._disk.durable.pop(self._task, None)
        path = self._machine.scratch_path()
        await restore_snapshot(self._machine.blobs, snapshot_id, path)
        store = DiskStore(self._disk, self._task, MemoryStore.open(path))
        shutil.rmtree(path)
        return store

    async def snapshot_ids(self) -> list[str]:
        found = await list_snapshots(self._machine.blobs, self._identity.prefix)
        return [blob.name for blob in reversed(found)]


# --- processes ---------------------------------------------------------------------------------


class SimWorker(Worker):
    """A worker whose threads are this very loop, at moments of their own."""

    machine: Machine

    async def _run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        await self.machine.pass_gate()
        await self.machine.chance.delay(0.005)
        await self.machine.pass_gate()
        return function(*args)

    async def _run_upkeep(self, function: Callable[..., Any], *args: Any) -> Any:
        await self.machine.chance.delay(0.05)
        return await self._run_blocking(function, *args)


class Machine:
    """Runs one worker process after the other; also is the worker's ``WorkerState``."""

    def __init__(self, name: str, chance: Chance, objects: dict[str, bytes], room: Path) -> None:
        self.name = name
        self.chance = chance
        self.disk = Disk(chance.rng)
        self.starts = 0
        self.worker: SimWorker | None = None
        self.run: asyncio.Task[None] | None = None
        self.log: SimLog | None = None
        self.members: list[Any] = []
        self.is_dead = True
        self.blobs = DictBlobStore(objects, self)
        self._objects = objects
        self._room = room
        self._paths = 0
        self._process = Process()
        self._gate = asyncio.Event()
        self._gate.set()
        self._armed: tuple[str, int] | None = None
        self.deaths: list[str] = []
        self.failures: list[BaseException] = []

    # --- life ----------------------------------------------------------------------------------

    def heir(self) -> Machine:
        """Return the machine as the next process finds it: what the old one left on disk.

        A new object stands for the new process: the old one's leftovers cannot touch it.
        """
        assert self.is_dead
        heir = Machine(self.name, self.chance, self._objects, self._room)
        heir.disk = self.disk.after_crash()
        heir.starts = self.starts + 1
        heir.deaths, heir.failures = self.deaths, self.failures
        return heir

    def launch(self, make_worker: Callable[[SimLog, Machine], SimWorker], inner: MemoryLog) -> None:
        """Run the process."""
        self.is_dead = False
        self.log = SimLog(inner, self)
        self.worker = make_worker(self.log, self)
        self.worker.machine = self
        self.run = self._process.spawn(self._run(self.worker))

    async def _run(self, worker: SimWorker) -> None:
        try:
            await worker.run()
        except Exception as error:
            self.failures.append(error)
        finally:
            if not self.is_dead:
                self._die("end")

    def kill(self, why: str) -> None:
        """End the process where it stands."""
        if self.is_dead:
            return
        self._die(why)
        self._process.kill()

    def _die(self, why: str) -> None:
        assert self.log is not None
        self.deaths.append(why)
        self.is_dead = True
        # Frozen now: what the clean-up of cancelled code still does goes nowhere.
        self.disk = self.disk.after_crash()
        self.log.inner._is_closed = True
        for members in self.log.inner.storage.live.values():
            members[:] = [member for member in members if member.log is not self.log.inner]
        self.log.inner.storage.changed.notify()
        self._gate.set()

    def arm(self, failpoint: str, count: int) -> None:
        """Kill the process at the ``count``-th pass of a failpoint."""
        self._armed = (failpoint, count)

    def disarm(self) -> None:
        """Let it live."""
        self._armed = None

    def failpoint(self, name: str) -> None:
        """Die here, if armed; the failpoint of the worker."""
        if self._armed is None or self._armed[0] != name or self.is_dead:
            return
        self._armed = (name, self._armed[1] - 1)
        if self._armed[1] <= 0:
            self.kill(name)
            raise Death(name)

    def pause(self) -> None:
        """Stop the process in its tracks, as SIGSTOP does: the group takes it for dead."""
        assert self.log is not None
        self._gate.clear()
        for members in self.log.inner.storage.live.values():
            members[:] = [member for member in members if member not in self.members]

    @property
    def is_paused(self) -> bool:
        return not self._gate.is_set()

    def resume(self) -> None:
        """Let a paused process go on, not knowing that time has passed."""
        if self.is_dead or self._gate.is_set():
            return
        assert self.log is not None
        for member in self.members:
            live = self.log.inner.storage.live.setdefault(member._group, [])
            if member not in live and not member._membership._has_left:
                live.append(member)
        self._gate.set()

    async def pass_gate(self) -> None:
        """Wait while paused.

        Raises:
            Death: The process is gone.
        """
        while not self._gate.is_set():
            await self._gate.wait()
        if self.is_dead:
            raise Death("a dead process moves")

    def scratch_path(self) -> Path:
        """Return a path that does not exist."""
        self._paths += 1
        return self._room / f"{self.name}-{self.starts}-{self._paths}"

    # --- WorkerState -----------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        return self.name

    def stores(self, job: str, task: TaskId) -> SimStores:
        return SimStores(self, job, task)

    def snapshots(self, job: str, task: TaskId, env: TaskEnvironment) -> SnapshotCycle:
        return blob_snapshot_cycle(self.blobs, self._room, job, task, env)

    def held(self, job: str) -> dict[str, int]:
        return {str(task): 1 for task in self.disk.durable}
