"""Topologies that changed, and jobs that share what is not theirs to share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import riverrun as rr
from riverrun.engine.clock import SystemClock
from riverrun.engine.errors import FencedError, RecordError, StateMismatchError
from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec
from tests.batches import encode

from .harness import Order, World, eventually, plan_of, topology

if TYPE_CHECKING:
    from riverrun.engine.plan import Plan

HOUR_MS = 3_600_000


def without_windows() -> Plan:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", value=rr.Json(Order), keyed_by="user"))
    orders.sink(rr.Topic("copy"))
    return plan_of(job)


CHANGES: dict[str, tuple[Plan, str, str]] = {
    "another window size": (
        plan_of(topology(window="2m")), "state 'counts", "Give the step another name"
    ),
    "other aggregates": (
        plan_of(topology(n=rr.Count(), most=rr.Max("amount"))), "state 'counts", "another name"
    ),
    "a removed step": (without_windows(), "has no step any more", "--allow-state-drop"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "what", "mend"), CHANGES.values(), ids=CHANGES.keys())
async def test_a_topology_that_its_state_does_not_fit_is_refused(
    world: World, changed: Plan, what: str, mend: str
) -> None:
    async with world.working():
        await world.feed_and_wait()

    error = await world.start(plan=changed).ends()

    assert isinstance(error, StateMismatchError)
    assert what in str(error)
    assert "job 'job'" in str(error)
    assert mend in str(error)
    # The refusal has changed nothing: with the old topology the open windows are whole.
    await world.check_works()


async def test_an_added_step_with_state_begins_empty_and_leaves_the_others_alone(
    world: World,
) -> None:
    async with world.working():
        await world.feed_and_wait()
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", value=rr.Json(Order), keyed_by="user"), event_time="ts")
    orders.sink(rr.Topic("copy"))
    by_user = orders.key_by("user")
    counts = by_user.window(rr.Tumbling("1m")).aggregate(
        name="counts", n=rr.Count(), total=rr.Sum("amount")
    )
    counts.sink(rr.Topic("windows"))
    by_user.aggregate(name="ever", n=rr.Count()).sink(rr.Topic("ever"))

    async with world.working(plan=plan_of(job)):
        await world.feed(70)
        await world.check_exact()
        last = {row["user"]: row["n"] for row in await world.read("ever")}
        assert last["user-0"] == 10


async def test_the_older_of_two_workers_with_one_identity_stops_and_says_why(
    world: World,
) -> None:
    older = world.start("machine")
    await older.until_ready()
    await world.feed_and_wait()
    # What copying a state directory or a virtual machine does.
    copy = world.path / "copy-of-machine"
    copy.mkdir()
    (copy / "instance_id").write_bytes((world.path / "machine" / "instance_id").read_bytes())

    async with world.working("copy-of-machine"):
        error = await older.ends()
        assert isinstance(error, FencedError)
        assert "group 'job'" in str(error)
        assert "same instance id" in str(error)
        await world.feed()
        await world.check_exact()


async def test_another_job_of_the_same_name_with_other_state_is_refused(world: World) -> None:
    async with world.working() as first:
        await world.feed_and_wait()

        error = await world.start("other-machine", plan=plan_of(topology(window="2m"))).ends()

        assert isinstance(error, StateMismatchError)
        assert "start a job of another name" in str(error)
        await eventually(lambda: len(first.tasks()) == 2, "it has all its tasks back")
        await world.feed()
        await world.check_exact()


async def test_another_job_of_the_same_name_with_other_topics_is_refused(world: World) -> None:
    await world.log.create_topics([TopicSpec("clicks", 2, FOREVER_MS)])
    job = rr.Topology("job")
    job.source(rr.Topic("clicks")).sink(rr.Topic("clicks-copy"))

    async with world.working() as first:
        await world.feed_and_wait()

        error = await world.start("other-machine", plan=plan_of(job)).ends()

        assert isinstance(error, StateMismatchError)
        assert "job 'job'" in str(error)
        assert "orders/" in str(error)
        assert "names of jobs are unique" in str(error)
        await eventually(lambda: len(first.tasks()) == 2, "it has all its tasks back")
        await world.feed()
        await world.check_exact()


async def test_a_task_that_fails_for_good_ends_the_worker_after_the_others_have_committed(
    world: World,
) -> None:
    running = world.start()
    await running.until_ready()
    await world.feed_and_wait()
    poisoned = TopicPartition("orders", 0)
    writer = await world.log.open_writer("poisoner", transactional=True, timeout_ms=10_000)
    writer.append(*poisoned, encode([b"not an order"]))
    await writer.commit(10_000)

    error = await running.ends()

    assert isinstance(error, RecordError)
    assert "topic orders, partition 0, offset" in str(error)
    assert not running.worker.status()["healthy"]
    # What the others had processed is committed: nobody does it again.
    assert await world.copied()
    job = rr.Topology("job")
    orders = job.source(
        rr.Topic("orders", value=rr.Json(Order), keyed_by="user"), event_time="ts", on_error="skip"
    )
    orders.sink(rr.Topic("copy"))
    windows = orders.key_by("user").window(rr.Tumbling("1m"))
    windows.aggregate(name="counts", n=rr.Count(), total=rr.Sum("amount")).sink(rr.Topic("windows"))
    async with world.working(plan=plan_of(job)) as mended:
        await world.feed()
        await world.check_exact()
        assert mended.metric("riverrun_step_skipped_total") == 1


class JumpingClock(SystemClock):
    """The machine's clock, set wrong by ``offset_ms``."""

    offset_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.offset_ms


async def test_a_clock_that_jumps_changes_no_result(world: World) -> None:
    clock = world.clock = JumpingClock()
    async with world.working():
        for clock.offset_ms in (HOUR_MS, -HOUR_MS, 0, 1_000 * HOUR_MS):
            await world.feed_and_wait(close=False)
            await world.feed(close=True)
            await world.check_exact()
    clock.offset_ms = -HOUR_MS
    await world.check_works("bare-machine")
