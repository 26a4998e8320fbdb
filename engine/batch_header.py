"""Headers of Kafka record batches (format v2): what a log must know without decoding a record.

The CRC covers everything from the attributes on. The base offset is not covered, so a log may
write it into a stored batch without computing the CRC anew.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from .errors import CorruptBatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .log import EncodedBatch

HEADER_BYTES = 61
"""Size of a batch without records."""

LENGTH_END = 12
"""Base offset and length: what the length field does not count."""

MAGIC = 2
"""The one format in use; older ones are refused."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_OFFSET = struct.Struct(">q")
_IS_TRANSACTIONAL = 0x10
_IS_CONTROL = 0x20


class BatchHeader(NamedTuple):
    """The header of one record batch, field by field."""

    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        """The size of the whole batch, header included."""
        return LENGTH_END + self.batch_length

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def is_transactional(self) -> bool:
        """Whether it belongs to a Kafka transaction."""
        return bool(self.attributes & _IS_TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        """Whether it holds a commit or abort marker instead of records."""
        return bool(self.attributes & _IS_CONTROL)


def read_header(payload: bytes | memoryview, start: int = 0) -> BatchHeader:
    """Return the header of the batch that begins at ``start``.

    Raises:
        CorruptBatchError: It is too short, of another format, or its fields make no sense.
    """
    if len(payload) - start < HEADER_BYTES:
        raise CorruptBatchError(
            f"a record batch needs {HEADER_BYTES} bytes for its header, got {len(payload) - start}"
        )
    header = BatchHeader._make(_HEADER.unpack_from(payload, start))
    if header.magic != MAGIC:
        raise CorruptBatchError(f"record batch has format {header.magic}, expected {MAGIC}")
    if header.size_bytes < HEADER_BYTES or header.last_offset_delta < 0:
        raise CorruptBatchError(
            f"record batch at offset {header.base_offset} claims a length of"
            f" {header.batch_length} and a last offset delta of {header.last_offset_delta}"
        )
    return header


def walk_batches(payload: bytes | memoryview) -> Iterator[tuple[int, BatchHeader]]:
    """Yield ``(start, header)`` of each whole batch; a partial one at the end is left out.

    Raises:
        CorruptBatchError: A header makes no sense.
    """
    start = 0
    while len(payload) - start >= HEADER_BYTES:
        header = read_header(payload, start)
        if start + header.size_bytes > len(payload):
            return
        yield start, header
        start += header.size_bytes


def with_base_offset(payload: bytes, base_offset: int) -> bytes:
    """Return a copy of one batch that begins at ``base_offset``; its CRC stays valid."""
    return b"".join((_OFFSET.pack(base_offset), memoryview(payload)[_OFFSET.size :]))


def check_batch(batch: EncodedBatch) -> BatchHeader:
    """Return the header of ``batch``, having made sure that it is exactly one whole batch.

    Raises:
        CorruptBatchError: It is not, or the header contradicts the record count beside it.
    """
    header = read_header(batch.payload)
    if header.size_bytes != len(batch.payload):
        raise CorruptBatchError(
            f"expected one record batch of {len(batch.payload)} bytes,"
            f" its header says {header.size_bytes}"
        )
    if not header.record_count == header.last_offset_delta + 1 == batch.record_count:
        raise CorruptBatchError(
            f"record batch holds {header.record_count} records up to offset delta"
            f" {header.last_offset_delta}, expected {batch.record_count}"
        )
    return header
