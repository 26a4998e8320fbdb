"""Transactions on a real broker, with a proxy that loses and forges answers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka.protocol.transaction import EndTxnResponse_v0

from riverrun.connectors.kafka.protocol import Code
from riverrun.engine.errors import (
    BatchTooLargeError,
    FencedError,
    LogUnavailableError,
    OutcomeUnknownError,
    WriteError,
)
from riverrun.engine.log import TopicPartition
from tests.batches import encode
from tests.kafka.helpers import (
    HANG_S,
    WAIT_MS,
    eventually_visible,
    new_topic,
    started,
    unique,
    visible,
)
from tests.kafka_proxy import ADD_PARTITIONS, END_TXN, FIND_COORDINATOR, PRODUCE, KafkaProxy

if TYPE_CHECKING:
    from riverrun.connectors.kafka import KafkaLog
    from riverrun.engine.log import LogWriter

pytestmark = pytest.mark.kafka


@pytest.fixture
async def key(log: KafkaLog) -> TopicPartition:
    """A partition of its own."""
    return TopicPartition(await new_topic(log), 0)


async def open_writer(log: KafkaLog, name: str | None = None) -> LogWriter:
    name = name or unique("writer")
    return await log.open_writer(name, transactional=True, timeout_ms=WAIT_MS)


async def open_with_a(log: KafkaLog, key: TopicPartition) -> LogWriter:
    """Open a writer and append the value "a"."""
    writer = await open_writer(log)
    writer.append(*key, encode([b"a"]))
    return writer


async def test_a_lost_answer_to_the_commit_leaves_its_outcome_unknown(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    name = unique("writer")
    writer = await open_writer(log, name)
    writer.append(*key, encode([b"a"]))
    proxy.swallow(END_TXN)
    began = time.monotonic()

    with pytest.raises(OutcomeUnknownError):
        await writer.commit(700)

    assert time.monotonic() - began < HANG_S
    with pytest.raises(OutcomeUnknownError):
        await writer.commit(700)  # it never tries again
    assert proxy.requests[END_TXN] == 1
    await writer.close()
    assert proxy.requests[END_TXN] == 1  # nor does it abort what may be committed
    successor = await open_writer(log, name)
    assert await visible(log, key) == [b"a"]  # settled by the successor: it had happened
    await successor.close()


async def test_a_connection_lost_during_the_commit_leaves_its_outcome_unknown(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    writer = await open_with_a(log, key)
    proxy.break_off(END_TXN)

    with pytest.raises(OutcomeUnknownError):
        await writer.commit(WAIT_MS)

    assert proxy.requests[END_TXN] == 1
    await writer.close()


async def test_a_cancelled_commit_leaves_its_outcome_unknown(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    writer = await open_with_a(log, key)
    gate = proxy.hold(END_TXN)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.commit(WAIT_MS), 0.3)

    gate.set()
    with pytest.raises(OutcomeUnknownError):
        await writer.commit(WAIT_MS)
    await writer.close()


@pytest.mark.parametrize(
    "code", [Code.COORDINATOR_LOAD_IN_PROGRESS, Code.CONCURRENT_TRANSACTIONS, Code.NOT_COORDINATOR]
)
async def test_a_coordinator_that_says_not_now_is_asked_again(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition, code: Code
) -> None:
    writer = await open_with_a(log, key)
    lookups = proxy.requests[FIND_COORDINATOR]
    proxy.answer(END_TXN, EndTxnResponse_v0(0, code), times=2)

    await writer.commit(WAIT_MS)

    assert proxy.requests[END_TXN] == 3
    assert (proxy.requests[FIND_COORDINATOR] > lookups) == (code == Code.NOT_COORDINATOR)
    await eventually_visible(log, key, [b"a"])
    await writer.close()


async def test_a_refused_commit_is_no_commit(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    for code, error in ((47, FencedError), (90, FencedError), (48, WriteError)):
        writer = await open_with_a(log, key)
        proxy.answer(END_TXN, EndTxnResponse_v0(0, code))
        with pytest.raises(error):
            await writer.commit(WAIT_MS)
        with pytest.raises(error):
            await writer.commit(WAIT_MS)
        await writer.close()


async def test_fenced_after_an_ambiguous_answer_is_not_taken_for_uncommitted(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    """NOT_COORDINATOR may follow a decision that was written; a successor completes it then."""
    writer = await open_with_a(log, key)
    codes = iter([Code.NOT_COORDINATOR, Code.INVALID_PRODUCER_EPOCH])
    proxy.edit(END_TXN, lambda _: EndTxnResponse_v0(0, next(codes)), times=2)

    with pytest.raises(OutcomeUnknownError):
        await writer.commit(WAIT_MS)
    await writer.close()


async def test_a_failed_write_is_never_followed_by_a_commit(
    proxy: KafkaProxy, log: KafkaLog
) -> None:
    small = TopicPartition(await new_topic(log, **{"max.message.bytes": "2000"}), 0)
    other = TopicPartition(await new_topic(log), 0)
    name = unique("writer")
    writer = await open_writer(log, name)
    writer.append(*other, encode([b"fine"]))
    writer.append(*small, encode([bytes(5_000)]))

    with pytest.raises(BatchTooLargeError, match=rf"{small.topic}/0.*5\d\d\d bytes"):
        await writer.commit(WAIT_MS)
    with pytest.raises(BatchTooLargeError):
        await writer.commit(WAIT_MS)

    assert proxy.requests[END_TXN] == 0
    await writer.abort(WAIT_MS)
    assert proxy.requests[END_TXN] == 1
    await writer.close()
    successor = await open_writer(log, name)
    assert await visible(log, other) == []
    await successor.close()


async def test_a_write_whose_answer_was_lost_is_repeated_and_written_once(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    writer = await open_with_a(log, key)
    proxy.break_off(PRODUCE, times=2)

    ends = await writer.commit(WAIT_MS)

    assert proxy.requests[PRODUCE] == 3
    assert ends == {key: 1}
    await eventually_visible(log, key, [b"a"])
    await writer.close()


@pytest.mark.parametrize(
    "code", [Code.NOT_ENOUGH_REPLICAS, Code.NOT_LEADER_OR_FOLLOWER, Code.REQUEST_TIMED_OUT]
)
async def test_errors_that_pass_are_waited_out(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition, code: Code
) -> None:
    writer = await open_writer(log)
    await writer.flush(WAIT_MS)

    def refuse(response: object) -> object:
        response.topics = [(key.topic, [(0, code, -1, -1, 0)])]  # type: ignore[attr-defined]
        return response

    proxy.edit(PRODUCE, refuse, times=3)
    for value in (b"a", b"b"):
        writer.append(*key, encode([value]))
    began = time.monotonic()
    await writer.commit(WAIT_MS)

    assert time.monotonic() - began < HANG_S
    await eventually_visible(log, key, [b"a", b"b"])
    await writer.close()


async def test_silence_ends_with_the_deadline_and_nothing_is_committed(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    name = unique("writer")
    for api in (ADD_PARTITIONS, PRODUCE):
        writer = await open_writer(log, name)
        writer.append(*key, encode([b"lost"]))
        proxy.ignore(api, times=100)
        began = time.monotonic()
        with pytest.raises(WriteError, match=key.topic):
            await writer.commit(400)
        assert time.monotonic() - began < HANG_S
        await writer.close()
        proxy.be_honest(api)
    assert time.monotonic() - began < HANG_S
    successor = await open_writer(log, name)
    assert await visible(log, key) == []
    successor.append(*key, encode([b"kept"]))
    await successor.commit(WAIT_MS)
    await eventually_visible(log, key, [b"kept"])
    await successor.close()


async def test_what_is_appended_during_a_commit_belongs_to_the_next(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    writer = await open_writer(log)
    writer.append(*key, encode([b"first"]))
    await writer.flush(WAIT_MS)
    gate = proxy.hold(END_TXN)
    committing = asyncio.create_task(writer.commit(WAIT_MS))
    await asyncio.sleep(0.05)

    writer.append(*key, encode([b"second"]))
    await asyncio.sleep(0.1)
    assert proxy.requests[PRODUCE] == 1
    assert writer.pending_bytes() > 0
    gate.set()
    await committing

    await writer.flush(WAIT_MS)
    await eventually_visible(log, key, [b"first"])
    await writer.commit(WAIT_MS)
    await eventually_visible(log, key, [b"first", b"second"])
    await writer.close()


async def test_an_empty_commit_asks_nobody(proxy: KafkaProxy, log: KafkaLog) -> None:
    writer = await open_writer(log)
    before = sum(proxy.requests.values())

    assert await writer.commit(WAIT_MS) == {}

    assert sum(proxy.requests.values()) == before
    await writer.close()


async def test_partitions_are_added_once_and_travel_together(
    proxy: KafkaProxy, log: KafkaLog
) -> None:
    topic = await new_topic(log, partitions=8)
    writer = await open_writer(log)
    for _ in range(3):
        for partition in range(8):
            writer.append(topic, partition, encode([b"a"]))
        await writer.flush(WAIT_MS)
    await writer.commit(WAIT_MS)

    assert proxy.requests[ADD_PARTITIONS] - 1 <= 1  # one more if the broker was not ready
    assert proxy.requests[PRODUCE] <= 6
    await writer.close()


async def test_opening_has_a_deadline(proxy: KafkaProxy, log: KafkaLog) -> None:
    proxy.ignore(FIND_COORDINATOR, times=100)
    began = time.monotonic()

    with pytest.raises(LogUnavailableError, match="writer"):
        await log.open_writer(unique("writer"), transactional=True, timeout_ms=500)

    assert time.monotonic() - began < HANG_S


async def test_a_writer_survives_a_broker_that_goes_and_comes(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    writer = await open_with_a(log, key)
    await writer.commit(WAIT_MS)
    await proxy.hang_up()
    writer.append(*key, encode([b"b"]))
    await asyncio.sleep(0.3)
    await proxy.listen()

    await writer.commit(WAIT_MS)

    await eventually_visible(log, key, [b"a", b"b"])
    await writer.close()


async def test_a_commit_cancelled_while_it_flushes_can_be_made_up_for(
    proxy: KafkaProxy, log: KafkaLog, key: TopicPartition
) -> None:
    writer = await open_writer(log)
    gate = proxy.hold(PRODUCE)
    writer.append(*key, encode([b"a"]))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.commit(WAIT_MS), 0.3)
    writer.append(*key, encode([b"b"]))
    gate.set()

    await writer.commit(WAIT_MS)

    await eventually_visible(log, key, [b"a", b"b"])
    await writer.close()


async def test_closing_the_log_ends_everything(kafka: str) -> None:
    before = asyncio.all_tasks()
    async with started(kafka) as log:
        key = TopicPartition(await new_topic(log), 0)
        await open_with_a(log, key)
        reader = await log.open_reader({key: 0})
        await reader.poll(50)
        await log.join_group(
            unique("group"),
            [key.topic],
            lambda: b"",
            lambda infos: {},
            instance_id=None,
            session_timeout_ms=6_000,
        )
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == before
