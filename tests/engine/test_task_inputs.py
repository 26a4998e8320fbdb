"""The inputs of a task: idle or busy, and what the chain is told of their watermarks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from riverrun.engine import frames
from riverrun.engine.graph import Edge, Graph, RepartitionNode, WatermarkPolicy
from riverrun.engine.log import TopicPartition
from riverrun.engine.watermarks import InputWatermark
from tests.engine.task_world import TaskWorld
from tests.simulation.topology import Rekey, Tumbling, operator, sink, source

if TYPE_CHECKING:
    from riverrun.engine.task import Task

IDLE_MS = 10_000
WHERE = TopicPartition("in", 0)
REPARTITION = TopicPartition("job-by-key-repartition", 0)


def row(time_ms: int) -> dict[str, Any]:
    return {"key": "ada", "ts": time_ms, "amount": 1, "id": 0}


def graph(partitions: int = 1) -> Graph:
    found = Graph("job")
    policy = WatermarkPolicy(0, IDLE_MS, None)
    found.add(replace(source("in"), watermark=policy, partitions=partitions))
    found.add(operator("rekey", Rekey(), "in"))
    found.add(RepartitionNode("by-key", Edge("rekey"), None, 1))
    found.add(operator("windows", Tumbling(), "by-key", keyed=True))
    found.add(replace(sink("results", "windows"), partitions=1))
    return found


async def quiet_for(world: TaskWorld, task: Task, ms: int) -> None:
    """Let time pass as it does in a worker, step by step."""
    for _ in range(ms // 500):
        world.clock.advance(500)
        await task.step(0)


def watermark(task: Task, where: TopicPartition = WHERE) -> InputWatermark:
    return task._inputs.told()[where]


async def test_a_quiet_partition_goes_idle_and_time_goes_on() -> None:
    world = TaskWorld(graph())
    task = await world.started()
    await world.send("in", row(1_000))
    await task.step(0)

    await quiet_for(world, task, IDLE_MS - 500)
    assert watermark(task) == InputWatermark(1_000, idle=False)
    await quiet_for(world, task, 1_000)

    assert watermark(task).idle
    assert watermark(task).value_ms >= 10_000


async def test_time_goes_on_downstream_too_without_a_record() -> None:
    world = TaskWorld(graph())
    up, down = await world.started(0), await world.started(1)
    await world.send("in", row(1_000))
    await world.settle(up, down)
    assert await world.read("results") == []

    await quiet_for(world, up, IDLE_MS + 2_000)
    await world.settle(down)

    assert [value["count"] for _, value in await world.read("results")] == [1]


async def test_records_that_came_while_the_process_was_stopped_are_not_late() -> None:
    world = TaskWorld(graph())
    up, down = await world.started(0), await world.started(1)
    await world.send("in", row(1_000))
    await world.settle(up, down)

    world.clock.advance(5 * IDLE_MS)  # SIGSTOP, SIGCONT
    await up.step(0)  # returns what it knew before
    await world.send("in", row(1_500))
    await world.settle(up, down)

    assert watermark(up) == InputWatermark(1_500, idle=False)


async def test_setting_the_wall_clock_does_not_move_event_time() -> None:
    world = TaskWorld(graph())
    task = await world.started()
    await world.send("in", row(1_000))
    await task.step(0)
    wall_ms = world.clock.now_ms
    world.clock.now_ms = lambda: wall_ms() + 3_600_000  # type: ignore[method-assign]

    await quiet_for(world, task, 3_000)

    assert watermark(task) == InputWatermark(1_000, idle=False)


async def test_an_upstream_task_that_wakes_up_behind_does_not_cause_commits_for_ever() -> None:
    world = TaskWorld(graph(partitions=2))
    task = await world.started(1)
    for upstream, mark in [(0, InputWatermark(5_000, False)), (1, InputWatermark(100, True))]:
        await world.send(REPARTITION.topic, frames.encode_watermark(upstream, mark))
    await world.settle(task)
    assert watermark(task, REPARTITION) == InputWatermark(5_000, idle=False)

    awake = InputWatermark(200, idle=False)
    await world.send(REPARTITION.topic, frames.encode_watermark(1, awake))
    await world.settle(task)  # fails by never ending

    assert watermark(task, REPARTITION) == InputWatermark(5_000, idle=False)
    assert not await task.step(0)


async def test_marks_of_upstream_tasks_are_taken_up_after_a_restart() -> None:
    world = TaskWorld(graph(partitions=2))
    task = await world.started(1)
    await world.send(
        REPARTITION.topic, frames.encode_watermark(0, InputWatermark(5_000, idle=False))
    )
    await world.settle(task)
    await task.close()

    task = await world.started(1)
    await world.send(
        REPARTITION.topic, frames.encode_watermark(1, InputWatermark(4_000, idle=False))
    )
    await world.settle(task)

    assert watermark(task, REPARTITION) == InputWatermark(4_000, idle=False)


async def test_a_former_upstream_owner_does_not_take_a_watermark_back() -> None:
    world = TaskWorld(graph(partitions=2))
    task = await world.started(1)
    await world.send(
        REPARTITION.topic,
        *(
            frames.encode_watermark(upstream, InputWatermark(value_ms, idle=False))
            for upstream, value_ms in [(0, 9_000), (1, 9_000), (1, 4_000)]
        ),
    )
    await world.settle(task)

    newer = frames.encode_watermark(0, InputWatermark(12_000, idle=False))
    await world.send(REPARTITION.topic, newer)
    await world.settle(task)
    assert watermark(task, REPARTITION).value_ms == 9_000
    assert {mark.watermark_ms for mark in task._inputs.commit_upstream()} == {9_000, 12_000}
