"""A broker that is away, and topics that change under a running worker. On a real Kafka."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from riverrun.connectors.kafka import KafkaLog
from riverrun.engine.errors import LogUnavailableError, PositionLostError, StateMismatchError
from riverrun.engine.log import FOREVER_MS, TopicSpec
from tests.kafka_broker import free_port
from tests.kafka_proxy import KafkaProxy

from .harness import PARTITIONS, WORKER_SETTINGS, Running, World, eventually, kafka_log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.kafka

AWAY_S = 5.0
QUICK = replace(
    WORKER_SETTINGS, restart_backoff_ms=100, stall_after_ms=1_000, topics_interval_ms=200
)
"""What takes half a minute in production."""


@asynccontextmanager
async def kafka_world(kafka: str, path: Path) -> AsyncIterator[World]:
    """Yield a world with names of its own on the shared broker."""
    async with kafka_log(kafka) as log:
        world = World(path, log, prefix=f"faults-{uuid.uuid4().hex[:8]}-")
        await world.create_source()
        yield world


@asynccontextmanager
async def admin_of(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield somebody else's administration client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def delete_topic(kafka: str, world: World, topic: str) -> None:
    """Delete a topic and wait until nobody knows it."""
    async with admin_of(kafka) as admin:
        await admin.delete_topics([topic])

    async def is_gone() -> bool:
        return await world.log.describe_topic(topic) is None

    await eventually(is_gone, f"{topic} is gone")


async def test_a_broker_that_is_not_there_is_named_within_the_time_allowed() -> None:
    address = f"127.0.0.1:{free_port()}"
    log = KafkaLog(address)
    began_s = time.monotonic()

    with pytest.raises(LogUnavailableError, match=address):
        await log.start(700)

    assert time.monotonic() - began_s < 10
    await log.close()


async def test_a_worker_outlives_a_broker_that_is_away_and_goes_on_by_itself(
    kafka: str, tmp_path: Path
) -> None:
    async with (
        kafka_world(kafka, tmp_path) as world,
        KafkaProxy(kafka) as proxy,
        kafka_log(proxy.address) as worker_log,
    ):
        world.worker_log = worker_log
        async with world.working() as running:
            await world.feed_and_wait()
            back_s = time.monotonic() + AWAY_S
            await proxy.hang_up()
            # Through the other door, the orders keep coming.
            while time.monotonic() < back_s:
                await world.feed(20)
                await asyncio.sleep(0.2)
            assert not running.run.done()
            for task in running.tasks().values():
                assert proxy.address in (task["trouble"] or task["error"])
            await proxy.listen()
            await world.feed()
            await world.check_exact()
            await running.until_ready()


async def test_a_source_topic_deleted_at_work_raises_an_alarm_and_is_not_asked_in_a_hot_loop(
    kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kafka_world(kafka, tmp_path) as world:
        running = world.start(worker_settings=QUICK)
        await running.until_ready()
        await world.feed()
        await world.check_exact()
        await delete_topic(kafka, world, world.source)

        await eventually(
            lambda: running.worker.status()["failing"] == ["0-0", "0-1"], "it tells of trouble"
        )
        status = running.worker.status()
        assert not status["ready"]
        assert not status["healthy"]
        for task in status["tasks"].values():
            assert "TopicMissingError" in task["error"]
            assert world.source in task["error"]
        assert f"topic {world.source} is gone" in caplog.text
        # Two tasks, at 0.1 s, then 0.2, 0.4, 0.8 ...: a hot loop would have made hundreds.
        assert running.metric("riverrun_task_restarts_total") <= 30

        # Made again, it is not what was read before: going on is a decision.
        await world.create_source()
        error = await running.ends()
        assert isinstance(error, PositionLostError)
        assert "it was deleted and made again" in str(error)
        assert "--allow-lost-records" in str(error)
        await world.check_works(allow_lost_records=True)


async def test_partitions_added_to_a_keyed_source_at_work_stop_the_worker(
    kafka: str, tmp_path: Path
) -> None:
    async with kafka_world(kafka, tmp_path) as world:
        running = world.start(worker_settings=QUICK)
        await running.until_ready()
        await world.feed_and_wait()
        async with admin_of(kafka) as admin:
            await admin.create_partitions({world.source: NewPartitions(PARTITIONS + 1)})

        for error in (await running.ends(), await world.start().ends()):
            assert isinstance(error, StateMismatchError)
            assert world.source in str(error)
            assert f"{PARTITIONS + 1}" in str(error)
            assert "start a job of another name" in str(error)
        # What was committed before stands: a job of another name has all of it to read.
        copies = [order["amount"] for order in await world.read("copy")]
        assert sorted(copies) == [order.amount for order in world.fed]


async def test_a_deleted_changelog_is_missed_also_on_a_machine_that_knows_nothing(
    kafka: str, tmp_path: Path
) -> None:
    async with kafka_world(kafka, tmp_path) as world:
        async with world.working():
            await world.feed()
            await world.check_exact()

            async def is_told() -> bool:
                job, partitions = f"{world.prefix}job", await world.source_partitions()
                return len(await world.log.group_offsets(job, partitions)) == PARTITIONS

            await eventually(is_told, "the group was told")
        changelog = f"{world.prefix}job-0-changelog"
        await delete_topic(kafka, world, changelog)

        error = await world.start("bare-machine").ends()

        assert isinstance(error, PositionLostError)
        assert f"the changelog {changelog}/" in str(error)
        assert f"the group was told that {world.source}/" in str(error)
        assert "--allow-fresh-start" in str(error)
        world.repeated = list(world.fed)
        await world.check_works("bare-machine", allow_fresh_start=True)


async def test_a_sink_topic_deleted_at_work_is_told_and_written_to_again_once_it_is_back(
    kafka: str, tmp_path: Path
) -> None:
    async with kafka_world(kafka, tmp_path) as world:
        sink = f"{world.prefix}windows"
        async with world.working(worker_settings=QUICK, commit_timeout_ms=1_000) as running:
            await world.feed_and_wait()
            await delete_topic(kafka, world, sink)
            await world.feed()

            await eventually(lambda: any(told_errors(running)), "it tells of trouble")
            assert not running.run.done()
            for error in told_errors(running):
                assert "WriteError" in error
                assert f"{sink}/" in error
                assert "UNKNOWN_TOPIC_OR_PARTITION" in error
            await world.log.create_topics([TopicSpec(sink, PARTITIONS, FOREVER_MS)])
            await world.check_exact()


def told_errors(running: Running) -> list[str]:
    return [each["error"] for each in running.tasks().values() if each["error"]]
