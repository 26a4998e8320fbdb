"""Reading from a real broker, with a proxy that counts fetches and forges errors."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from riverrun.connectors.kafka import fetcher
from riverrun.connectors.kafka.fetcher import BUFFER_BYTES_MAX, PARTITION_BYTES_MAX
from riverrun.connectors.kafka.protocol import Code
from riverrun.engine.errors import (
    CorruptBatchError,
    LogAuthorizationError,
    LogError,
    OffsetOutOfRangeError,
    TopicMissingError,
)
from riverrun.engine.log import TopicPartition
from tests.batches import encode
from tests.kafka.helpers import WAIT_MS, fill, new_topic, read_values, started, unique
from tests.kafka_proxy import FETCH, METADATA, KafkaProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from riverrun.connectors.kafka import KafkaLog

pytestmark = pytest.mark.kafka


@pytest.fixture
async def honest(kafka: str) -> AsyncIterator[KafkaLog]:
    """Another process, whose requests the proxy does not see."""
    async with started(kafka) as log:
        yield log


LONG_POLL_S = 15.0


@pytest.fixture
def long_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long polls last so long that nobody who has waited for one could be in time."""
    monkeypatch.setattr(fetcher, "LONG_POLL_MS", int(LONG_POLL_S * 1000))


def fails(partition: TopicPartition, code: int) -> Any:
    """Forge an error for one partition in fetch answers; the others' part stays."""

    def edit(response: Any) -> Any:
        topics = []
        seen = False
        for topic, partitions in response.topics:
            entries = []
            for entry in partitions:
                if (topic, entry[0]) == partition:
                    entry, seen = (entry[0], code, -1, -1, -1, None, -1, b""), True
                entries.append(entry)
            topics.append((topic, entries))
        if not seen:
            topics.append((partition.topic, [(partition.partition, code, -1, -1, -1, [], -1, b"")]))
        response.topics = topics
        return response

    return edit


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.CORRUPT_MESSAGE, CorruptBatchError),
        (Code.OFFSET_OUT_OF_RANGE, OffsetOutOfRangeError),
        (Code.TOPIC_AUTHORIZATION_FAILED, LogAuthorizationError),
        (43, LogError),  # a code that we do not expect here
    ],
)
async def test_an_error_of_one_partition_costs_no_hot_loop_and_no_others_records(
    proxy: KafkaProxy, log: KafkaLog, honest: KafkaLog, code: int, error: type[Exception]
) -> None:
    topic = await new_topic(honest, partitions=2)
    bad, good = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await fill(honest, bad, [b"bad"])
    await fill(honest, good, [b"g1"], [b"g2"])
    proxy.edit(FETCH, fails(bad, code), times=float("inf"))
    reader = await log.open_reader({bad: 0, good: 0})

    got: list[bytes | None] = []

    async def read() -> None:
        while True:
            got.extend(await read_values(reader, 1, timeout_s=15))

    with pytest.raises(error, match=topic):
        await read()
    began, fetches = time.monotonic(), proxy.requests[FETCH]
    await fill(honest, good, [b"g3"])
    async with asyncio.timeout(5):
        while len(got) < 3:
            for chunk in await reader.poll(100, exclude=frozenset({bad})):
                got += [
                    b"g%d" % (chunk.offset + i + 1) for i in range(chunk.next_offset - chunk.offset)
                ]
    await asyncio.sleep(0.5)

    assert got == [b"g1", b"g2", b"g3"]
    assert fetches < 40
    assert proxy.requests[FETCH] - fetches < 8 + (time.monotonic() - began) * 4
    with pytest.raises(error):
        await reader.poll(0)  # it stays so, and nobody asks for the partition any more
    assert reader.position(bad) == 0
    await reader.close()


@pytest.mark.parametrize("code", [Code.NOT_LEADER_OR_FOLLOWER, Code.KAFKA_STORAGE_ERROR, 74])
async def test_troubles_that_pass_are_told_and_retried_without_a_hot_loop(
    proxy: KafkaProxy, log: KafkaLog, honest: KafkaLog, code: int
) -> None:
    key = TopicPartition(await new_topic(honest), 0)
    await fill(honest, key, [b"a"])
    proxy.edit(FETCH, fails(key, code), times=float("inf"))
    reader = await log.open_reader({key: 0})

    assert await reader.poll(1_200) == []
    assert str(key) in (reader.trouble() or "")
    assert proxy.requests[FETCH] < 20
    assert proxy.requests[METADATA] < 20
    proxy.be_honest(FETCH)

    assert await read_values(reader, 1) == [b"a"]
    await reader.poll(50)
    assert reader.trouble() is None
    await reader.close()


async def test_a_deleted_topic_is_missed(log: KafkaLog, proxy: KafkaProxy) -> None:
    key = TopicPartition(await new_topic(log), 3)
    reader = await log.open_reader({key: 0})
    with pytest.raises(TopicMissingError, match=key.topic):
        await read_values(reader, 1)
    assert proxy.requests[METADATA] < 40
    await reader.close()


async def test_a_broker_that_goes_and_comes_is_told_and_waited_for(
    proxy: KafkaProxy, log: KafkaLog, honest: KafkaLog
) -> None:
    key = TopicPartition(await new_topic(honest), 0)
    await fill(honest, key, [b"a"])
    reader = await log.open_reader({key: 0})
    assert await read_values(reader, 1) == [b"a"]
    await proxy.hang_up()
    await fill(honest, key, [b"b"])

    assert await reader.poll(300) == []
    assert reader.trouble() is not None
    await proxy.listen()

    assert await read_values(reader, 1) == [b"b"]
    await reader.close()


async def test_a_new_reader_does_not_wait_for_a_long_poll_under_way(
    log: KafkaLog, honest: KafkaLog, long_polls: None
) -> None:
    topic = await new_topic(honest, partitions=6)
    keys = [TopicPartition(topic, number) for number in range(6)]
    for key in keys:
        await fill(honest, key, [b"a"])
    idle = await log.open_reader({keys[0]: 1})
    assert await idle.poll(100) == []
    warm = await log.open_reader({keys[1]: 0})
    await read_values(warm, 1)

    for key in keys[2:]:
        reader = await log.open_reader({key: 0})
        assert await read_values(reader, 1, timeout_s=LONG_POLL_S / 3) == [b"a"]


async def test_a_record_is_delivered_as_soon_as_it_is_written(
    log: KafkaLog, honest: KafkaLog, long_polls: None
) -> None:
    key = TopicPartition(await new_topic(honest), 0)
    reader = await log.open_reader({key: 0})
    writer = await honest.open_writer("", transactional=False, timeout_ms=WAIT_MS)
    for _ in range(30):
        await asyncio.sleep(0.01)
        writer.append(*key, encode([b"a"]))
        assert await read_values(reader, 1, timeout_s=LONG_POLL_S / 3) == [b"a"]
    await writer.close()
    await reader.close()


async def test_two_readers_of_one_partition_both_get_everything(
    log: KafkaLog, honest: KafkaLog
) -> None:
    key = TopicPartition(await new_topic(honest), 0)
    await fill(honest, key, [b"a"], [b"b"], [b"c"])
    readers = [await log.open_reader({key: position}) for position in (0, 0, 1, 2)]
    found = await asyncio.gather(*(read_values(r, 3 - r.position(key)) for r in readers))
    assert found == [[b"a", b"b", b"c"]] * 2 + [[b"b", b"c"], [b"c"]]
    await fill(honest, key, [b"d"])
    assert await asyncio.gather(*(read_values(r, 1) for r in readers)) == [[b"d"]] * 4
    for reader in readers:
        await reader.close()


async def test_a_reader_that_does_not_poll_is_not_fetched_for(
    proxy: KafkaProxy, log: KafkaLog, honest: KafkaLog
) -> None:
    topic = await new_topic(honest, partitions=2)
    slow, quick = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await fill(honest, slow, *[[bytes(900_000)] for _ in range(12)])
    reader = await log.open_reader({slow: 0})
    await asyncio.sleep(0.7)
    fetches = proxy.requests[FETCH]
    (cursor,) = reader._cursors.values()  # type: ignore[attr-defined]
    assert BUFFER_BYTES_MAX <= cursor.buffered_bytes <= BUFFER_BYTES_MAX + PARTITION_BYTES_MAX
    await asyncio.sleep(0.7)
    assert proxy.requests[FETCH] == fetches

    other = await log.open_reader({quick: 0})
    await fill(honest, quick, [b"a"])
    assert await read_values(other, 1) == [b"a"]
    assert len(await read_values(reader, 12)) == 12
    await reader.close()
    await other.close()


async def test_a_batch_larger_than_a_fetch_is_read_behind_others(
    log: KafkaLog, honest: KafkaLog
) -> None:
    topic = await new_topic(honest, partitions=4, **{"max.message.bytes": "6000000"})
    keys = [TopicPartition(topic, number) for number in range(4)]
    for key in keys:
        await fill(honest, key, [bytes(3_000_000)], [bytes(5_000_000)])
    reader = await log.open_reader(dict.fromkeys(keys, 0))
    assert len(await read_values(reader, 8)) == 8
    await reader.close()


async def test_being_cancelled_loses_nothing(log: KafkaLog, honest: KafkaLog) -> None:
    key = TopicPartition(await new_topic(honest), 0)
    reader = await log.open_reader({key: 0})
    found: list[bytes | None] = []

    async def read() -> None:
        while True:
            found.extend(await read_values(reader, 1))

    writing = asyncio.create_task(fill(honest, key, *[[b"%d" % number] for number in range(300)]))
    async with asyncio.timeout(10):
        while len(found) < 300:
            reading = asyncio.create_task(read())
            await asyncio.sleep(0.003)
            reading.cancel()
            await asyncio.wait([reading])
    await writing
    assert found == [b"%d" % number for number in range(300)]
    await reader.close()


async def test_the_end_offset_is_where_committed_records_end(
    log: KafkaLog, honest: KafkaLog
) -> None:
    key = TopicPartition(await new_topic(honest), 0)
    await fill(honest, key, [b"a", b"b"])
    reader = await log.open_reader({key: 0})
    assert reader.end_offset(key) is None
    await read_values(reader, 2)
    assert reader.end_offset(key) == 2
    writer = await honest.open_writer(unique("w"), transactional=True, timeout_ms=WAIT_MS)
    writer.append(*key, encode([b"open"]))
    await writer.flush(WAIT_MS)
    assert await reader.poll(200) == []
    assert reader.end_offset(key) == 2
    await writer.commit(WAIT_MS)
    assert await read_values(reader, 1) == [b"open"]
    await writer.close()
    await reader.close()


async def test_idle_readers_ask_twice_a_second(proxy: KafkaProxy, log: KafkaLog) -> None:
    topic = await new_topic(log, partitions=20)
    readers = [await log.open_reader({TopicPartition(topic, number): 0}) for number in range(20)]
    await asyncio.sleep(0.3)
    before = proxy.requests[FETCH]
    await asyncio.sleep(1.0)
    assert proxy.requests[FETCH] - before <= 8
    for reader in readers:
        await reader.close()
