"""What the tests of the Kafka connector share."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from riverrun.connectors.kafka import KafkaLog
from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec
from tests.batches import decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from riverrun.engine.log import Log, LogReader

WAIT_MS = 10_000
HANG_S = 15.0
"""Far beyond the deadlines that tests set, and still no hang."""


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@asynccontextmanager
async def started(address: str, **settings: int) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(address, **settings)
    await log.start(WAIT_MS)
    try:
        yield log
    finally:
        await log.close()


async def new_topic(log: Log, partitions: int = 1, **configs: str) -> str:
    name = unique("topic")
    await log.create_topics([TopicSpec(name, partitions, FOREVER_MS, configs=configs)])
    return name


async def fill(log: Log, partition: TopicPartition, *batches: list[bytes]) -> None:
    """Write batches that are visible at once, without a transaction."""
    writer = await log.open_writer("", transactional=False, timeout_ms=WAIT_MS)
    for batch in batches:
        writer.append(*partition, encode(batch))
    await writer.flush(WAIT_MS)
    await writer.close()


async def read_values(reader: LogReader, count: int, timeout_s: float = 10.0) -> list[bytes | None]:
    """Poll until ``count`` records have come."""
    found: list[bytes | None] = []
    async with asyncio.timeout(timeout_s):
        while len(found) < count:
            for chunk in await reader.poll(100):
                found += [record.value for record in decode(chunk)]
    return found


async def visible(
    log: Log, partition: TopicPartition, *, settle_s: float = 0.0
) -> list[bytes | None]:
    """Return what a read_committed reader sees, some time after the last marker was due."""
    await asyncio.sleep(settle_s)
    end = (await log.offsets([partition]))[partition].end
    reader = await log.open_reader({partition: 0})
    found: list[bytes | None] = []
    async with asyncio.timeout(10):
        while reader.position(partition) < end:
            for chunk in await reader.poll(100):
                found += [record.value for record in decode(chunk)]
    await reader.close()
    return found


async def eventually_visible(
    log: Log, partition: TopicPartition, expected: list[bytes], timeout_s: float = 5.0
) -> None:
    """Wait until readers see exactly ``expected``: markers follow a commit by milliseconds."""
    give_up = time.monotonic() + timeout_s
    found = await visible(log, partition)
    while found != expected and time.monotonic() < give_up:
        found = await visible(log, partition)
    assert found == expected
