"""A worker: tasks come and go with its assignment, fail and start again, and end in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from riverrun.engine.config import TaskSettings, WorkerSettings
from riverrun.engine.errors import (
    BatchTooLargeError,
    FencedError,
    LogUnavailableError,
    PositionLostError,
    RecordError,
    TopicMissingError,
)
from riverrun.engine.graph import Graph, WatermarkPolicy
from riverrun.engine.log import FOREVER_MS, Assignment, TopicPartition, TopicSpec
from riverrun.engine.memory_log import MemoryLog
from riverrun.engine.memory_storage import MemoryStorage
from riverrun.engine.metrics import Metrics
from riverrun.engine.plan import TaskId, make_plan
from riverrun.engine.planes import select_plane
from riverrun.engine.restore import read_range
from riverrun.engine.worker import Worker
from tests.engine.task_world import Disk
from tests.simulation.topology import Rekey, RunningCount, operator, sink, source
from tests.simulation.virtual_loop import LoopClock, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from riverrun.engine.log import GroupMember

START_MS = 1_700_000_000_000
PARTITIONS = 2
SETTINGS = WorkerSettings(
    task=TaskSettings(commit_interval_ms=60_000), restart_backoff_ms=200, session_timeout_ms=6_000
)


def counts() -> Graph:
    graph = Graph("job")
    policy = WatermarkPolicy(0, max_future_ms=None)
    graph.add(replace(source("in"), watermark=policy, partitions=PARTITIONS))
    graph.add(operator("rekey", Rekey(), "in"))
    graph.add(operator("counts", RunningCount(), "rekey", keyed=True))
    graph.add(replace(sink("out", "counts"), partitions=1))
    return graph


class OneWorker(Worker):
    """A worker that processes on the loop, so that virtual time is all there is."""

    async def _run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0.001)
        return function(*args)

    _run_upkeep = _run_blocking


class State:
    """Disks of one machine."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.disks: dict[TaskId, Disk] = {}
        self.discarded: list[TaskId] = []

    def stores(self, job: str, task: TaskId) -> Any:
        return self.disks.setdefault(task, Disk())

    def snapshots(self, job: str, task: TaskId, env: Any) -> None:
        return None

    def held(self, job: str) -> dict[str, int]:
        return {}

    def discard(self, job: str, task: TaskId) -> None:
        self.discarded.append(task)
        self.disks.pop(task, None)


class Member:
    """A membership whose assignments the test hands out."""

    def __init__(self) -> None:
        self.member_id = "m"
        self.assignments: asyncio.Queue[Assignment] = asyncio.Queue()
        self.has_left = False

    async def next_assignment(self, timeout_ms: int) -> Assignment | None:
        try:
            return await asyncio.wait_for(self.assignments.get(), timeout_ms / 1000)
        except TimeoutError:
            return None

    def give(self, *partitions: int) -> None:
        wanted = frozenset(TopicPartition("in", p) for p in partitions)
        self.assignments.put_nowait(Assignment(1, wanted))

    def request_rebalance(self) -> None:
        pass

    async def commit_offsets(self, offsets: Any) -> None:
        pass

    async def leave(self) -> None:
        self.has_left = True


class GivenLog(MemoryLog):
    """A log whose group is the test."""

    member: Member
    open_delay_s = 0.0
    fail_open: list[Exception]

    async def join_group(self, *args: Any, **options: Any) -> GroupMember:
        return self.member

    async def open_writer(self, writer_id: str, **options: Any) -> Any:
        await asyncio.sleep(self.open_delay_s)
        if self.fail_open and writer_id.startswith("job-"):
            raise self.fail_open.pop(0)
        return await super().open_writer(writer_id, **options)


class Bench:
    """One worker on a virtual loop, with everything a test reaches for."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.clock = LoopClock(loop, START_MS)
        self.storage = MemoryStorage()
        self.log = GivenLog(self.clock, self.storage)
        self.log.member, self.log.fail_open = Member(), []
        self.member = self.log.member
        self.state = State("w0")
        self.plane = select_plane()
        self.failpoint: Callable[[str], None] = lambda name: None
        self.worker = self.new_worker()
        self.running: asyncio.Task[None] | None = None

    def new_worker(self) -> OneWorker:
        return OneWorker(
            make_plan(counts()),
            self.log,
            self.plane,
            self.clock,
            Metrics("job", "w0"),
            SETTINGS,
            self.state,
            lambda name: self.failpoint(name),
        )

    async def start(self, *partitions: int) -> None:
        await self.log.create_topics([TopicSpec("in", PARTITIONS, retention_ms=FOREVER_MS)])
        self.running = asyncio.create_task(self.worker.run())
        self.member.give(*partitions)
        await asyncio.sleep(1)

    async def send(self, *ids: int, partition: int = 0, value: bytes | None = None) -> None:
        writer = await self.log.open_writer("sender", transactional=True, timeout_ms=0)
        rows = [
            value or msgspec.json.encode({"key": "ada", "ts": 1, "amount": 1, "id": i}) for i in ids
        ]
        codec = self.plane.record_batches
        for batch in codec.encode([None] * len(rows), list(rows), [1] * len(rows), None, 10_000):
            writer.append("in", partition, batch)
        await writer.commit(0)
        await asyncio.sleep(1)

    async def out(self) -> list[int]:
        where = TopicPartition("out", 0)
        span = (await self.log.offsets([where]))[where]
        found: list[int] = []
        async for records in read_range(
            self.log, where, span.start, span.end, self.plane.record_batches
        ):
            found += [msgspec.json.decode(value)["id"] for value in records.values if value]
        return found

    async def end(self) -> None:
        assert self.running is not None
        self.worker.stop()
        await self.running

    def states(self) -> dict[str, str]:
        return {name: each["state"] for name, each in self.worker.status()["tasks"].items()}


def play(scene: Callable[[Bench], Coroutine[Any, Any, None]]) -> Bench:
    """Run a scene in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)

        async def on_stage() -> Bench:
            bench = Bench(loop)
            await scene(bench)
            return bench

        bench = runner.run(on_stage())
        assert loop.errors == []
        return bench


def test_stopping_commits_what_is_processed_and_leaves_the_group() -> None:
    async def scene(bench: Bench) -> None:
        await bench.start(0, 1)
        await bench.send(1)
        assert await bench.out() == []

        await bench.end()

        assert await bench.out() == [1]
        assert bench.member.has_left

    play(scene)


def test_cancelling_ends_the_tasks_and_leaves_the_group() -> None:
    async def scene(bench: Bench) -> None:
        await bench.start(0, 1)
        assert bench.running is not None

        bench.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bench.running

        assert bench.member.has_left
        assert bench.worker.status()["tasks"] == {}
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert others == set()
        assert not any(disk.store and disk.store.is_open for disk in bench.state.disks.values())

    play(scene)


def test_tasks_that_are_kept_run_on_untouched() -> None:
    async def scene(bench: Bench) -> None:
        await bench.start(0, 1)
        kept = bench.worker._tasks[TaskId("0", 1)].task

        bench.member.give(1)
        await asyncio.sleep(1)

        assert bench.states() == {"0-1": "running"}
        assert bench.worker._tasks[TaskId("0", 1)].task is kept
        await bench.end()

    play(scene)


def test_a_task_given_back_and_taken_again_starts_when_the_former_has_ended() -> None:
    async def scene(bench: Bench) -> None:
        await bench.start(0)
        await bench.send(1)
        for _ in range(3):
            bench.member.give()
            bench.member.give(0)
        await asyncio.sleep(3)

        await bench.send(2)
        assert bench.states() == {"0-0": "running"}
        await bench.end()

        assert await bench.out() == [1, 2]

    play(scene)


def test_a_task_that_is_still_starting_stops_at_once() -> None:
    async def scene(bench: Bench) -> None:
        bench.log.open_delay_s = 50.0
        await bench.start(0)
        began_s = bench.loop.time()

        await bench.end()

        assert bench.loop.time() - began_s < 1

    play(scene)


def test_troubles_that_pass_are_waited_out() -> None:
    async def scene(bench: Bench) -> None:
        bench.log.fail_open = [LogUnavailableError("away") for _ in range(3)]
        await bench.start(0)
        assert bench.states() == {"0-0": "waiting"}
        assert bench.worker.status()["tasks"]["0-0"]["error"] == "LogUnavailableError: away"

        await asyncio.sleep(3)

        assert bench.states() == {"0-0": "running"}
        assert bench.worker.status()["tasks"]["0-0"]["restarts"] == 3
        await bench.end()

    play(scene)


def test_a_fenced_task_does_not_fence_back_before_the_group_had_time_to_tell() -> None:
    async def scene(bench: Bench) -> None:
        await bench.start(0)
        await bench.log.open_writer("job-0-0", transactional=True, timeout_ms=0)
        await bench.send(1)
        running = bench.worker._tasks[TaskId("0", 0)]
        assert running.task is not None
        running.task.pace.interval_ms = 1
        await asyncio.sleep(1)
        assert bench.states() == {"0-0": "waiting"}

        await asyncio.sleep(0.9)
        assert bench.states() == {"0-0": "waiting"}
        await asyncio.sleep(1.0)
        assert bench.states() == {"0-0": "running"}
        await bench.end()

    play(scene)


@pytest.mark.parametrize(
    "error",
    [
        PositionLostError("lost"),
        RecordError("bad"),
        BatchTooLargeError("the same every time"),
        KeyError("a bug"),
    ],
)
def test_what_does_not_pass_stops_the_worker_and_the_others_commit(error: Exception) -> None:
    async def scene(bench: Bench) -> None:
        await bench.start(0, 1)
        await bench.send(1, partition=1)

        def fail(name: str) -> None:
            if name == "before_process":
                bench.failpoint = lambda name: None
                raise error

        bench.failpoint = fail
        await bench.send(2)
        assert bench.running is not None
        with pytest.raises(type(error)):
            await bench.running

        assert await bench.out() == [1]
        assert bench.member.has_left

    play(scene)


def test_a_membership_that_fails_stops_the_worker() -> None:
    async def scene(bench: Bench) -> None:
        async def replaced(timeout_ms: int) -> None:
            raise FencedError("another member with the same instance id")

        await bench.start(0)
        bench.member.next_assignment = replaced  # type: ignore[method-assign,assignment]
        assert bench.running is not None
        with pytest.raises(FencedError):
            await bench.running

        assert not bench.worker.status()["healthy"]

    play(scene)


def test_without_topics_it_does_not_begin() -> None:
    async def scene(bench: Bench) -> None:
        graph = Graph("job")
        graph.add(replace(source("missing"), partitions=None))
        graph.add(replace(sink("out", "missing"), partitions=1))
        bench.worker._plan = make_plan(graph)

        with pytest.raises(TopicMissingError):
            await bench.worker.run()

    play(scene)
