"""A broker that dies, comes back, or stands still under a reader, a writer and a group."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from riverrun.engine.errors import (
    FencedError,
    LogUnavailableError,
    OutcomeUnknownError,
    WriteError,
)
from riverrun.engine.log import TopicPartition
from tests.batches import encode
from tests.kafka.helpers import (
    WAIT_MS,
    eventually_visible,
    fill,
    new_topic,
    read_values,
    started,
    unique,
    visible,
)
from tests.kafka_broker import KafkaBroker, KafkaNotAvailableError, from_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
async def broker(kafka: str) -> AsyncIterator[KafkaBroker]:
    """A broker of this test's own, to be mistreated."""
    try:
        broker = KafkaBroker()
        await asyncio.to_thread(broker.start)
    except KafkaNotAvailableError:
        assert from_environment() is not None
        pytest.skip("needs a broker that may be killed")
    yield broker
    broker.remove()


async def test_everybody_goes_on_after_a_kill_and_a_restart(broker: KafkaBroker) -> None:
    async with started(broker.address) as log:
        key = TopicPartition(await new_topic(log), 0)
        group = unique("group")
        member = await log.join_group(
            group,
            [key.topic],
            lambda: b"",
            lambda infos: {member: [key] for member in infos},
            instance_id="worker-1",
            session_timeout_ms=30_000,
        )
        assert await member.next_assignment(WAIT_MS) is not None
        writer = await log.open_writer(unique("w"), transactional=True, timeout_ms=WAIT_MS)
        reader = await log.open_reader({key: 0})
        writer.append(*key, encode([b"a"]))
        await writer.commit(WAIT_MS)
        assert await read_values(reader, 1) == [b"a"]

        await asyncio.to_thread(broker.kill)
        assert await reader.poll(500) == []
        assert reader.trouble() is not None
        writer.append(*key, encode([b"b"]))
        await asyncio.to_thread(broker.start)

        await writer.commit(20_000)
        assert await read_values(reader, 1, timeout_s=20) == [b"b"]
        await reader.poll(100)
        assert reader.trouble() is None
        # Not taken while the group still looks for its members; told again, as a worker does.
        told: Mapping[TopicPartition, int] = {}
        for _ in range(60):
            await member.commit_offsets({key: 1})
            told = await log.group_offsets(group, [key])
            if told:
                break
            await asyncio.sleep(0.5)
        assert told == {key: 1}
        await member.leave()
        await writer.close()
        await reader.close()


async def test_a_broker_that_is_away_is_not_a_missing_topic(broker: KafkaBroker) -> None:
    # Longer than a topic that is missing is looked for.
    async with started(broker.address, question_timeout_ms=6_000) as log:
        key = TopicPartition(await new_topic(log), 0)
        assert await log.offsets([key]) == {key: (0, 0)}
        await asyncio.to_thread(broker.kill)

        with pytest.raises(LogUnavailableError, match="within"):
            await log.offsets([key])


async def test_a_broker_that_stands_still_ends_the_commit_with_its_deadline(
    broker: KafkaBroker,
) -> None:
    async with started(broker.address) as log:
        key = TopicPartition(await new_topic(log), 0)
        name = unique("w")
        writer = await log.open_writer(name, transactional=True, timeout_ms=WAIT_MS)
        writer.append(*key, encode([b"a"]))
        await writer.flush(WAIT_MS)
        broker.pause()
        try:
            with pytest.raises((OutcomeUnknownError, WriteError)):
                await writer.commit(700)
        finally:
            broker.resume()
        await writer.close()

        successor = await log.open_writer(name, transactional=True, timeout_ms=20_000)
        before = await visible(log, key)  # either, but settled
        assert before in ([b"a"], [])
        successor.append(*key, encode([b"b"]))
        await successor.commit(WAIT_MS)
        await eventually_visible(log, key, [*[v for v in before if v], b"b"])
        await successor.close()


async def test_an_abandoned_transaction_is_aborted_after_its_timeout(broker: KafkaBroker) -> None:
    async with started(broker.address, transaction_timeout_ms=1_000) as log:
        key = TopicPartition(await new_topic(log), 0)
        writer = await log.open_writer(unique("w"), transactional=True, timeout_ms=WAIT_MS)
        writer.append(*key, encode([b"abandoned"]))
        await writer.flush(WAIT_MS)
        await fill(log, key, [b"after"])
        reader = await log.open_reader({key: 0})

        assert await read_values(reader, 1, timeout_s=30) == [b"after"]

        # The coordinator fences the epoch when it aborts for age: no telling it from a new owner.
        with pytest.raises((FencedError, WriteError)):
            await writer.commit(WAIT_MS)
        await writer.close()
        await reader.close()
