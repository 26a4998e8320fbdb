"""Reading a changelog back."""

from __future__ import annotations

from riverrun.engine.clock import ManualClock
from riverrun.engine.log import TopicPartition, TopicSpec
from riverrun.engine.memory_log import MemoryLog
from riverrun.engine.reference import ReferencePlane
from riverrun.engine.restore import read_range
from tests.batches import encode

CHANGELOG = TopicPartition("changelog", 0)


async def test_a_range_ends_where_it_was_said_though_another_owner_goes_on() -> None:
    log = MemoryLog(ManualClock(1_000))
    await log.create_topics([TopicSpec("changelog", 1)])
    writer = await log.open_writer("w", transactional=False, timeout_ms=0)
    for value in (b"a", b"b", b"c", b"d"):
        writer.append(*CHANGELOG, encode([value]))
    await writer.flush(0)

    codec = ReferencePlane().record_batches
    found = [records async for records in read_range(log, CHANGELOG, 1, 3, codec)]

    assert [value for records in found for value in records.values] == [b"b", b"c"]
    assert [offset for records in found for offset in records.offsets] == [1, 2]
