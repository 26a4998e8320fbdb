"""Tasks: what is committed together, what a restart goes on from, and what fences whom."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from riverrun.engine.config import TaskSettings
from riverrun.engine.errors import FencedError, LogUnavailableError, OutcomeUnknownError
from riverrun.engine.graph import Graph, WatermarkPolicy
from riverrun.engine.log import TopicPartition
from tests.engine.task_world import TaskWorld
from tests.simulation.topology import Rekey, RunningCount, Tumbling, operator, sink, source

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from riverrun.engine.config import Guarantee

TURNS_MAX = 80
CHANGELOG = TopicPartition("job-0-changelog", 0)


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


def counts_of(topic: str, *, dead_letters: bool = False) -> Graph:
    """Count per key, forever."""
    graph = Graph("job")
    policy = WatermarkPolicy(0, max_future_ms=None)
    on_error = "dead_letter" if dead_letters else "fail"
    graph.add(replace(source(topic), watermark=policy, partitions=1, on_error=on_error))
    graph.add(operator("rekey", Rekey(), topic))
    graph.add(operator("counts", RunningCount(), "rekey", keyed=True))
    graph.add(replace(sink("results", "counts"), partitions=1))
    return graph


async def cancel_after(turns: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Cancel after so many turns of the loop; return whether it was done before."""
    running = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return not running.cancelled()


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


# --- cancelled, closed, fenced ---------------------------------------------------------------


async def test_a_start_may_be_cancelled_at_any_point() -> None:
    world = TaskWorld(counts_of("in"))
    task = await world.started()
    await world.send("in", row(1), row(2))
    await world.settle(task)
    await task.close()

    for turns in range(TURNS_MAX):
        task = await world.task()
        was_done = await cancel_after(turns, task.start())
        await task.close()
        store = world.disks[task.id].store
        assert store is not None
        assert not store.is_open, f"cancelled after {turns} turns, the store was left open"
        if was_done:
            break
    assert was_done
    assert turns > 5


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_a_commit_may_be_cancelled_at_any_point(guarantee: Guarantee) -> None:
    world = TaskWorld(counts_of("in"), TaskSettings(guarantee=guarantee, commit_interval_ms=1_000))
    task = await world.started()

    for turns in range(TURNS_MAX):
        await world.send("in", row(turns))
        task.pace.committed(world.clock.monotonic_ms())
        await task.step(0)
        was_done = await cancel_after(turns, task.commit())
        await task.close()
        task = await world.started()
        await world.settle(task)
        if was_done:
            break
    assert was_done
    assert turns > 3
    numbers = [value["n"] for _, value in await world.read("results")]
    assert numbers[-1] == turns + 1
    if guarantee == "exactly_once":
        assert numbers == list(range(1, turns + 2))


@pytest.mark.parametrize("has_happened", [False, True])
async def test_after_an_unknown_outcome_the_next_start_finds_out(has_happened: bool) -> None:
    world = TaskWorld(counts_of("in"))
    task = await world.started()
    await world.send("in", row(1))
    await task.step(0)
    assert task._writer is not None
    writer, commit = task._writer, task._writer.commit

    async def lose_answer(timeout_ms: int) -> Any:
        if has_happened:
            await commit(timeout_ms)
        raise OutcomeUnknownError("no answer")

    writer.commit = lose_answer  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknownError):
        await task.commit()
    await task.close()

    task = await world.started()
    await world.settle(task)

    assert [value["n"] for _, value in await world.read("results")] == [1]


async def test_a_former_owner_commits_nothing_and_leaves_the_new_one_alone() -> None:
    world = TaskWorld(counts_of("in"))
    former = await world.started()
    await world.send("in", row(1))
    await former.step(0)
    world.disks.clear()  # the new owner is another machine
    owner = await world.started()
    await world.settle(owner)

    with pytest.raises(FencedError):
        await former.commit()
    await former.close()

    await world.send("in", row(2))
    await world.settle(owner)
    assert [value["n"] for _, value in await world.read("results")] == [1, 2]


async def test_stopping_commits_what_is_processed() -> None:
    world = TaskWorld(counts_of("in"), TaskSettings(commit_interval_ms=60_000))
    task = await world.started()
    await world.send("in", row(1))
    await task.step(0)
    assert await world.read("results") == []

    await task.stop()

    assert [value["n"] for _, value in await world.read("results")] == [1]


async def test_a_drain_that_a_close_waits_for_has_no_rests_any_more() -> None:
    world = TaskWorld(counts_of("in"))
    task = await world.started()
    restored = task._restored
    assert restored is not None
    seen: list[bool] = []

    async def settle() -> None:
        seen.append(restored.store.is_waited_for)

    task._upkeep.calls.settle = settle  # type: ignore[method-assign]
    assert not restored.store.is_waited_for

    await task.close()

    assert seen == [True]


async def test_a_dead_letter_and_the_position_behind_it_are_committed_together() -> None:
    world = TaskWorld(counts_of("in", dead_letters=True))
    task = await world.started()
    await world.send("in", row(1), {"key": "ada", "ts": None}, row(2))
    await task.step(0)
    await task.close()  # a crash before the commit

    task = await world.started()
    await world.settle(task)

    assert len(await world.read("job-dead-letters")) == 1
    assert [value["n"] for _, value in await world.read("results")] == [1, 2]


# --- without transactions --------------------------------------------------------------------


class UnfencedLog:
    """As Kafka is to writers without transactions: a new one ends no former one."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def open_writer(self, writer_id: str, **options: Any) -> Any:
        self._count += 1
        return await self._inner.open_writer(f"{writer_id}#{self._count}", **options)


@pytest.fixture
def unfenced() -> TaskWorld:
    settings = TaskSettings(guarantee="at_least_once", commit_interval_ms=1)
    world = TaskWorld(counts_of("in"), settings)
    world.log = UnfencedLog(world.log)
    return world


async def test_without_transactions_a_former_owner_ends_when_it_is_not_alone(
    unfenced: TaskWorld,
) -> None:
    former = await unfenced.started()
    await unfenced.send("in", row(1))
    await former.step(0)
    unfenced.disks.clear()
    owner = await unfenced.started()
    await unfenced.settle(owner)

    with pytest.raises(FencedError, match="another worker"):
        await former.commit()


async def test_without_transactions_what_a_former_owner_left_on_disk_is_not_gone_on_from(
    unfenced: TaskWorld,
) -> None:
    former = await unfenced.started()
    await unfenced.send("in", row(1, "ada"))
    await former.step(0)
    disk_of_former = unfenced.disks.pop(former.id)
    owner = await unfenced.started()
    await unfenced.send("in", row(2, "bob"))
    await unfenced.settle(owner)
    # The former owner commits once more, and its machine keeps that epoch: it does not count.
    former._changelog_writer._fenced = True
    await former.commit()
    await former.close()
    await unfenced.send("in", row(3, "bob"))
    with pytest.raises(FencedError):
        await unfenced.settle(owner)
    await owner.close()

    unfenced.disks[former.id] = disk_of_former
    again = await unfenced.started()
    await unfenced.send("in", row(4, "bob"))
    await unfenced.settle(again)

    assert (await unfenced.read("results"))[-1] == ("bob", {"n": 3, "id": 0})


async def test_without_transactions_a_start_that_missed_an_epoch_is_tried_again(
    unfenced: TaskWorld,
) -> None:
    former = await unfenced.started()
    await unfenced.send("in", row(1))
    await former.step(0)
    unfenced.disks.clear()

    hits: list[str] = []

    def fail_once(name: str) -> None:
        if name == "before_commit" and name not in hits:
            hits.append(name)
            raise LogUnavailableError("stands for the moment between reading and writing")

    unfenced.failpoint = fail_once
    late = await unfenced.task()
    with pytest.raises(LogUnavailableError):
        await late.start()
    await former.commit()
    # What the late one does now rests on what it had read before.
    with pytest.raises(FencedError):
        await late.commit(force=True)
    await late.close()

    again = await unfenced.started()
    await unfenced.settle(again)
    await unfenced.send("in", row(2))
    await unfenced.settle(again)
    assert [value["n"] for _, value in await unfenced.read("results")] == [1, 2]
