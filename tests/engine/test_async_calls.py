"""Async steps in a task: order, watermarks, barriers, bounds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from riverrun.engine.config import TaskSettings
from riverrun.engine.errors import RecordError, WriteError
from riverrun.engine.graph import Graph, WatermarkPolicy
from tests.engine.task_world import TaskWorld
from tests.simulation.topology import Rekey, Tumbling, operator, sink, source

if TYPE_CHECKING:
    from riverrun.engine.operator import OperatorContext
    from riverrun.engine.task import Task

Ordered = Literal["key", "stream"]


@dataclass
class Calls:
    """An async step whose calls end when the test says so."""

    ordered: Ordered = "key"
    in_flight_max: int = 3
    started: list[int] = field(default_factory=list)
    running: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    answer: bool = False

    def build(self, context: OperatorContext) -> Calls:
        return self

    async def call(self, value: Any) -> Any:
        number = value["id"]
        self.started.append(number)
        assert len(self.running) < self.in_flight_max
        if not self.answer:
            self.running[number] = asyncio.get_running_loop().create_future()
            try:
                await self.running[number]
            finally:
                del self.running[number]
        return value

    async def finish(self, *numbers: int, error: Exception | None = None) -> None:
        for number in numbers:
            if error is None:
                self.running[number].set_result(None)
            else:
                self.running[number].set_exception(error)
        for _ in range(3):
            await asyncio.sleep(0)


def world_of(calls: Calls, on_error: Any = "fail", **settings: Any) -> TaskWorld:
    graph = Graph("job")
    policy = WatermarkPolicy(0, max_future_ms=None)
    graph.add(replace(source("in"), watermark=policy, partitions=1))
    graph.add(operator("rekey", Rekey(), "in"))
    graph.add(replace(operator("slow", calls, "rekey"), on_error=on_error))
    graph.add(operator("windows", Tumbling(), "slow", keyed=True))
    graph.add(replace(sink("windows-out", "windows"), partitions=1))
    graph.add(replace(sink("late", "windows", 1), partitions=1))
    graph.add(replace(sink("out", "slow"), partitions=1))
    return TaskWorld(graph, TaskSettings(**{"commit_interval_ms": 60_000, **settings}))


def row(number: int, key: str, time_ms: int = 0) -> dict[str, Any]:
    return {"key": key, "ts": time_ms, "amount": 1, "id": number}


async def step(task: Task, times: int = 3) -> None:
    for _ in range(times):
        await task.step(0)
        await asyncio.sleep(0)


async def out(world: TaskWorld, task: Task) -> list[int]:
    """What comes out when all calls are answered: ids in order."""
    await task.commit()
    return [value["id"] for _, value in await world.read("out")]


async def test_records_of_a_key_are_called_one_after_the_other() -> None:
    calls = Calls()
    world = world_of(calls)
    task = await world.started()
    await world.send("in", row(1, "a"), row(2, "a"), row(3, "b"))
    await step(task)
    assert calls.started == [1, 3]

    await calls.finish(1)
    await step(task)
    assert calls.started == [1, 3, 2]
    calls.answer = True
    await calls.finish(2, 3)

    assert await out(world, task) == [1, 2, 3]


async def test_other_keys_overtake_where_order_is_by_key() -> None:
    calls = Calls()
    world = world_of(calls)
    task = await world.started()
    await world.send("in", row(1, "a"), row(2, "b"))
    await step(task)

    await calls.finish(2)
    await step(task)
    await calls.finish(1)

    assert await out(world, task) == [2, 1]


async def test_nothing_overtakes_where_order_is_by_stream() -> None:
    calls = Calls(ordered="stream")
    world = world_of(calls)
    task = await world.started()
    await world.send("in", row(1, "a"), row(2, "b"))
    await step(task)

    await calls.finish(2)
    await step(task)
    await calls.finish(1)

    assert await out(world, task) == [1, 2]


@pytest.mark.parametrize("ordered", ["key", "stream"])
async def test_a_watermark_does_not_overtake_the_records_before_it(ordered: Ordered) -> None:
    calls = Calls(ordered=ordered)
    world = world_of(calls)
    task = await world.started()
    await world.send("in", row(1, "a", 100))
    await step(task)
    await world.send("in", row(2, "b", 5_000))
    await step(task)
    await calls.finish(2)
    await step(task)

    await calls.finish(1)
    await task.commit()

    assert await world.read("late") == []
    assert [value["start"] for _, value in await world.read("windows-out")] == [0]


async def test_a_barrier_waits_for_the_calls_before_it() -> None:
    calls = Calls()
    world = world_of(calls)
    task = await world.started()
    await world.send("in", *(row(n, f"k{n % 4}") for n in range(9)))
    await step(task)

    commit = asyncio.create_task(task.commit())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not commit.done()
    calls.answer = True
    await calls.finish(*list(calls.running))
    await asyncio.wait_for(commit, 5)

    assert sorted(value["id"] for _, value in await world.read("out")) == list(range(9))


async def test_a_barrier_gives_up_when_calls_hang() -> None:
    calls = Calls()
    world = world_of(calls, barrier_timeout_ms=1)
    task = await world.started()
    await world.send("in", row(1, "a"))
    await step(task)
    monotonic_ms = world.clock.monotonic_ms
    looks = iter(range(0, 10_000, 10))
    world.clock.monotonic_ms = lambda: monotonic_ms() + next(looks)  # type: ignore[method-assign]

    with pytest.raises(WriteError, match="did not finish within 1 ms"):
        await task.commit()
    await task.close()

    assert calls.running == {}


async def test_a_full_queue_stops_reading_and_not_the_task() -> None:
    calls = Calls(in_flight_max=2)
    world = world_of(calls, commit_interval_ms=1)
    task = await world.started()
    for number in range(30):
        # One chunk each, so that reading could stop after any of them.
        await world.send("in", row(number, f"k{number}"))
    world.log._max_chunk_bytes = 1
    task._reader._max_chunk_bytes = 1  # type: ignore[union-attr]
    await step(task, times=2)
    waiting = asyncio.create_task(step(task, times=12))
    await asyncio.sleep(0)
    assert len(calls.started) <= 2

    # Commits are due all the time meanwhile.
    while not waiting.done():
        world.clock.advance(5)
        await calls.finish(*list(calls.running))
        await asyncio.sleep(0.001)
    await waiting
    calls.answer = True
    await calls.finish(*list(calls.running))
    await world.settle(task)

    assert sorted(value["id"] for _, value in await world.read("out")) == list(range(30))


async def test_a_call_that_fails_is_the_business_of_its_policy() -> None:
    calls = Calls()
    world = world_of(calls, on_error="dead_letter")
    task = await world.started()
    await world.send("in", row(1, "a"), row(2, "b"))
    await step(task)

    await calls.finish(1, error=ValueError("no answer"))
    await calls.finish(2)

    assert await out(world, task) == [2]
    assert [value["id"] for _, value in await world.read("job-dead-letters")] == [1]


async def test_a_call_that_fails_stops_a_task_that_may_not_lose_it() -> None:
    calls = Calls()
    world = world_of(calls)
    task = await world.started()
    await world.send("in", row(1, "a"))
    await step(task)
    await calls.finish(1, error=ValueError("no answer"))

    with pytest.raises(RecordError, match="no answer"):
        await task.commit()


async def test_what_was_in_flight_at_a_crash_is_called_again() -> None:
    calls = Calls()
    world = world_of(calls)
    task = await world.started()
    await world.send("in", row(1, "a"), row(2, "a"))
    await step(task)
    await calls.finish(1)
    await step(task)
    await task.close()
    assert calls.running == {}

    calls.answer = True
    task = await world.started()
    await step(task)

    assert await out(world, task) == [1, 2]


@pytest.mark.parametrize("how", ["raises", "cancels its own task"])
async def test_a_cancellation_by_the_function_is_a_failure_of_its_record(how: str) -> None:
    class Cancelling(Calls):
        async def call(self, value: Any) -> Any:
            if value["id"] == 1 and how == "raises":
                raise asyncio.CancelledError
            if value["id"] == 1:
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
                await asyncio.sleep(0)
            return value

    world = world_of(Cancelling(), on_error="skip")
    task = await world.started()
    await world.send("in", row(1, "a"), row(2, "a"))
    await step(task)

    assert await asyncio.wait_for(out(world, task), 5) == [2]
