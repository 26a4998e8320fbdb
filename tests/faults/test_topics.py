"""Topics that are missing, that grew, or that no longer have what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import riverrun as rr
from riverrun.engine.errors import PositionLostError, StateMismatchError, TopicMissingError
from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec

from .harness import PARTITIONS, Order, World, local_world, plan_of, topology

if TYPE_CHECKING:
    from pathlib import Path

CHANGELOG = "job-0-changelog"


async def delete_records(world: World, topic: str, *, kept: int = 0) -> None:
    """Delete the records of a topic, but for the last ones of each partition."""
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    spans = await world.log.offsets(partitions)
    await world.log.delete_records({where: span.end - kept for where, span in spans.items()})


async def test_a_missing_source_topic_is_refused_until_it_is_made(world: World) -> None:
    job = plan_of(topology(orders="elsewhere"))

    error = await world.start(plan=job).ends()

    assert isinstance(error, TopicMissingError)
    assert "reads topic 'elsewhere', which does not exist" in str(error)
    assert "create it" in str(error)
    assert "partitions=" in str(error)
    world.topic = "elsewhere"
    await world.create_source()
    await world.feed()
    async with world.working(plan=job):
        await world.check_exact()


async def test_missing_sink_topics_are_made_and_keep_their_records(world: World) -> None:
    assert await world.log.describe_topic("copy") is None

    await world.check_works()

    for topic in ("copy", "windows"):
        info = await world.log.describe_topic(topic)
        assert info is not None
        assert (info.partitions, info.retention_ms) == (PARTITIONS, FOREVER_MS)


async def test_a_source_with_more_partitions_than_before_is_refused(world: World) -> None:
    async with world.working():
        await world.feed_and_wait()
    await world.log.create_topics([TopicSpec("orders-2", PARTITIONS + 1, FOREVER_MS)])

    error = await world.start(plan=plan_of(topology(orders="orders-2"))).ends()

    assert isinstance(error, StateMismatchError)
    assert f"committed work for {PARTITIONS} partitions" in str(error)
    assert f"'orders-2': {PARTITIONS + 1}" in str(error)
    assert "start a job of another name" in str(error)
    await world.check_works()


async def test_records_deleted_before_they_were_read_are_refused_until_that_is_allowed(
    world: World,
) -> None:
    async with world.working():
        await world.feed_and_wait(close=True)
    lost = await world.feed(30)
    await delete_records(world, "orders")

    error = await world.start().ends()

    assert isinstance(error, PositionLostError)
    assert "of orders/" in str(error)
    assert "offsets were deleted before they were read" in str(error)
    assert "--allow-lost-records" in str(error)
    assert await world.start().ends() is not None
    # Going on is a decision, and what it costs is just what was deleted.
    world.fed = [order for order in world.fed if order not in lost]
    await world.check_works(allow_lost_records=True)


async def test_what_was_read_may_be_deleted(world: World) -> None:
    async with world.working():
        await world.feed_and_wait()
    await delete_records(world, "orders")

    await world.check_works()


async def test_a_changelog_cut_off_under_local_state_that_has_it_all_does_no_harm(
    world: World,
) -> None:
    async with world.working():
        await world.feed_and_wait()
    await delete_records(world, CHANGELOG, kept=1)

    await world.check_works()


async def test_a_changelog_cut_off_without_a_snapshot_is_refused_on_a_bare_machine(
    world: World,
) -> None:
    async with world.working():
        await world.feed_and_wait()
    await delete_records(world, CHANGELOG, kept=1)

    error = await world.start("other-machine").ends()

    assert isinstance(error, PositionLostError)
    assert f"the state of {CHANGELOG}/" in str(error)
    assert "no snapshot is known" in str(error)
    assert "--snapshots" in str(error)
    # Mended by bringing the disk back.
    await world.check_works("machine")


async def test_a_changelog_without_any_commit_record_is_refused_until_a_fresh_start_is_allowed(
    world: World,
) -> None:
    async with world.working():
        await world.feed_and_wait(close=True)
        await world.check_exact()
    await delete_records(world, CHANGELOG)

    for machine in ("machine", "other-machine"):
        error = await world.start(machine).ends()
        assert isinstance(error, PositionLostError)
        assert f"the changelog {CHANGELOG}/" in str(error)
        assert "has no commit record" in str(error)
        assert "--allow-fresh-start" in str(error)

    world.repeated = list(world.fed)
    async with world.working(allow_fresh_start=True):
        await world.feed()
        await world.check_exact()
        await world.feed_and_wait()
    # The new history is whole: it can be replayed like any other.
    await world.check_works("third-machine")


async def test_state_of_another_log_is_refused_until_a_fresh_start_is_allowed(
    world: World, tmp_path: Path
) -> None:
    async with world.working():
        await world.feed_and_wait()

    async with local_world(tmp_path / "new") as new:
        new.path = world.path
        error = await new.start().ends()
        assert isinstance(error, PositionLostError)
        assert "the local store is at epoch" in str(error)
        assert "--allow-fresh-start" in str(error)
        await new.check_works(allow_fresh_start=True)
        await new.check_works()


async def test_a_changelog_cut_off_without_a_snapshot_can_be_given_up(world: World) -> None:
    async with world.working():
        await world.feed_and_wait(close=True)
        await world.check_exact()
    await delete_records(world, CHANGELOG, kept=1)

    error = await world.start("other-machine").ends()
    assert isinstance(error, PositionLostError)
    assert "--allow-fresh-start" in str(error)

    world.repeated = list(world.fed)
    async with world.working("other-machine", allow_fresh_start=True):
        await world.feed()
        await world.check_exact()
        await world.feed_and_wait()
    await world.check_works("third-machine")


async def test_a_fresh_start_is_refused_where_it_would_count_records_of_a_repartition_twice(
    world: World,
) -> None:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", value=rr.Json(Order)), event_time="ts")
    orders.sink(rr.Topic("copy"))
    windows = orders.key_by("user").window(rr.Tumbling("1m"))
    windows.aggregate(name="counts", n=rr.Count(), total=rr.Sum("amount")).sink(rr.Topic("windows"))
    plan = plan_of(job)
    await world.check_works(plan=plan)
    await delete_records(world, "job-1-changelog")

    error = await world.start(plan=plan, allow_fresh_start=True).ends()

    assert isinstance(error, PositionLostError)
    assert "has no commit record" in str(error)
    assert "start a job of another name" in str(error)
    assert "--allow-fresh-start cannot help" in str(error)
