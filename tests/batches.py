"""Record batches for tests, built and read by aiokafka: an implementation that is not ours."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from riverrun.engine.log import EncodedBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from riverrun.engine.log import Chunk

NO_LIMIT = 1 << 30
ABORT_MARKER = 0


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record as a test sees it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


def encode(values: Sequence[bytes], *, timestamp_ms: int = 1_000) -> EncodedBatch:
    """Return one batch with a record per value, each a millisecond after the other."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=NO_LIMIT,
    )
    for index, value in enumerate(values):
        builder.append(index, timestamp_ms + index, None, value, [])
    return EncodedBatch(bytes(builder.build()), len(values), timestamp_ms + len(values) - 1)


def decode(chunk: Chunk) -> list[ReadRecord]:
    """Return the records of a chunk that a read_committed reader is to see."""
    records: list[ReadRecord] = []
    to_come = sorted(chunk.aborted, key=lambda pair: pair[1])
    aborting: set[int] = set()
    batches = MemoryRecords(chunk.payload)
    while batches.has_next():
        batch = batches.next_batch()
        assert batch is not None
        assert batch.validate_crc()
        while to_come and to_come[0][1] <= batch.base_offset:
            aborting.add(to_come.pop(0)[0])
        if batch.is_control_batch:
            marker = next(iter(batch))
            if struct.unpack(">hh", marker.key)[1] == ABORT_MARKER:
                aborting.discard(batch.producer_id)
            continue
        if batch.is_transactional and batch.producer_id in aborting:
            continue
        records.extend(
            ReadRecord(record.offset, record.key, record.value, record.timestamp)
            for record in batch
            if record.offset >= chunk.offset
        )
    return records


def values(chunks: Iterable[Chunk]) -> list[bytes | None]:
    """Return the values in some chunks, in order."""
    return [record.value for chunk in chunks for record in decode(chunk)]
