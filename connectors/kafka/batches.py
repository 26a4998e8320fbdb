"""Headers of record batches (format v2): cut what was fetched, sign what is to be written.

Layout, offsets in bytes: base offset 0, batch length 8, leader epoch 12, magic 16, CRC 17,
attributes 21, last offset delta 23, first timestamp 27, max timestamp 35, producer id 43,
producer epoch 51, base sequence 53, record count 57, records 61. The CRC covers all from 21 on.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from crc32c import crc32c

from riverrun.engine.errors import CorruptBatchError

HEADER_BYTES = 61
LENGTH_END = 12
MAGIC_AT = 16
CRC_AT = 17
ATTRIBUTES_AT = 21
LAST_DELTA_AT = 23
PRODUCER_AT = 43
TRANSACTIONAL_BIT = 0x10
MAGIC = 2

_BASE_AND_LENGTH = struct.Struct(">qi")
_INT32 = struct.Struct(">i")
_UINT32 = struct.Struct(">I")
_INT16 = struct.Struct(">h")
_PRODUCER = struct.Struct(">qhi")


class Cut(NamedTuple):
    """How far whole batches go in what was fetched.

    Attributes:
        size: Bytes of whole batches.
        next_offset: Offset after the last whole batch, None if there is none.
        wanted: Size of the batch that was cut off, 0 if none or not known.
    """

    size: int
    next_offset: int | None
    wanted: int


def cut_whole_batches(payload: bytes) -> Cut:
    """Find the end of the last whole batch, by headers alone.

    Raises:
        CorruptBatchError: A header makes no sense or the format is older than v2.
    """
    at, end = 0, len(payload)
    next_offset: int | None = None
    wanted = 0
    while at + LENGTH_END <= end:
        base_offset, length = _BASE_AND_LENGTH.unpack_from(payload, at)
        if length < HEADER_BYTES - LENGTH_END:
            if at > 0:
                break  # what is whole before it is good; the next read begins with this one
            raise CorruptBatchError(f"batch at offset {base_offset} has length {length}")
        size = length + LENGTH_END
        if at + size > end:
            wanted = size
            break
        if payload[at + MAGIC_AT] != MAGIC:
            if at > 0:
                break
            raise CorruptBatchError(
                f"batch at offset {base_offset} has format {payload[at + MAGIC_AT]}; "
                "only v2 (Kafka 0.11 and later) can be read"
            )
        (last_delta,) = _INT32.unpack_from(payload, at + LAST_DELTA_AT)
        next_offset = base_offset + last_delta + 1
        at += size
    return Cut(at, next_offset, wanted)


def sign(
    payload: bytes, *, producer_id: int, producer_epoch: int, sequence: int, transactional: bool
) -> bytes:
    """Return a copy of the batch that carries its producer, sequence and a matching CRC."""
    signed = bytearray(payload)
    if transactional:
        (attributes,) = _INT16.unpack_from(signed, ATTRIBUTES_AT)
        _INT16.pack_into(signed, ATTRIBUTES_AT, attributes | TRANSACTIONAL_BIT)
    _PRODUCER.pack_into(signed, PRODUCER_AT, producer_id, producer_epoch, sequence)
    checksum = crc32c(memoryview(signed)[ATTRIBUTES_AT:])
    _UINT32.pack_into(signed, CRC_AT, checksum)
    return bytes(signed)
