"""Tasks: what is committed together, what a restart goes on from, and what fences whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from riverrun.engine.graph import Graph, WatermarkPolicy
from tests.engine.task_world import TaskWorld
from tests.simulation.topology import Rekey, Tumbling, operator, sink, source


def windows_of(*topics: str, idle_after_ms: int | None = None) -> Graph:
    """Count per key and second; the sources are merged in the very window step."""
    graph = Graph("job")
    for topic in topics:
        policy = WatermarkPolicy(0, idle_after_ms)
        graph.add(replace(source(topic), watermark=policy, partitions=1))
    graph.add(operator("rekey", Rekey(), *topics))
    graph.add(operator("windows", Tumbling(), "rekey", keyed=True))
    graph.add(replace(sink("results", "windows"), partitions=1))
    graph.add(replace(sink("late", "windows", 1), partitions=1))
    return graph


def row(time_ms: int, key: str = "ada", amount: int = 1) -> dict[str, Any]:
    return {"key": key, "ts": time_ms, "amount": amount, "id": 0}


async def test_the_watermark_of_merged_inputs_does_not_go_back_at_a_restart() -> None:
    world = TaskWorld(windows_of("a", "b", idle_after_ms=60_000))
    task = await world.started()
    await world.send("b", row(100))
    await world.settle(task)
    world.clock.advance(60_000)  # b falls idle: a alone decides, and closes the first window
    await world.send("a", row(200), row(5_000))
    await world.settle(task)
    await world.send("b", row(300))  # b wakes up, behind
    await world.settle(task)
    assert [value["count"] for _, value in await world.read("results")] == [2]
    await task.close()

    task = await world.started()
    await world.send("b", row(400))
    await world.send("a", row(9_000))
    await world.send("b", row(9_000))
    await world.settle(task)

    results = [(value["start"], value["count"]) for _, value in await world.read("results")]
    assert results == [(0, 2), (5_000, 1)]
    assert [value["ts"] for _, value in await world.read("late")] == [300, 400]
