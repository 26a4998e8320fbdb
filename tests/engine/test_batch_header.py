"""Headers of record batches."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.batch_header import (
    check_batch,
    read_header,
    walk_batches,
    with_base_offset,
)
from riverrun.engine.errors import CorruptBatchError
from riverrun.engine.log import EncodedBatch
from tests.batches import encode


def test_a_header_is_read_field_by_field() -> None:
    batch = encode([b"a", b"b", b"c"], timestamp_ms=5_000)

    header = read_header(batch.payload)

    assert (header.base_offset, header.next_offset, header.record_count) == (0, 3, 3)
    assert (header.first_timestamp_ms, header.max_timestamp_ms) == (5_000, 5_002)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (-1, -1, -1)
    assert header.size_bytes == len(batch.payload)
    assert not header.is_control
    assert not header.is_transactional


def test_another_base_offset_keeps_the_crc_valid() -> None:
    moved = with_base_offset(encode([b"a", b"b"]).payload, 1_234_567_890_123)

    assert DefaultRecordBatch(moved).validate_crc()
    assert [record.offset for record in DefaultRecordBatch(moved)] == [
        1_234_567_890_123,
        1_234_567_890_124,
    ]


def test_walking_leaves_a_partial_batch_at_the_end_out() -> None:
    one, two = encode([b"a"]).payload, encode([b"b", b"c"]).payload

    for cut in (1, 40, len(two) - 1):
        walked = list(walk_batches(one + two + two[:cut]))
        assert [(start, header.record_count) for start, header in walked] == [
            (0, 1),
            (len(one), 2),
        ]


@pytest.mark.parametrize(
    ("position", "field", "match"),
    [
        (16, b"\x01", "format 1"),
        (8, struct.pack(">i", -1), "claims a length"),
        (8, struct.pack(">i", 10_000), "header says"),
        (23, struct.pack(">i", 7), "offset delta"),
        (57, struct.pack(">i", 7), "holds 7 records"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(position: int, field: bytes, match: str) -> None:
    payload = bytearray(encode([b"a"]).payload)
    payload[position : position + len(field)] = field

    with pytest.raises(CorruptBatchError, match=match):
        check_batch(EncodedBatch(bytes(payload), 1, 0))


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_nothing_else(payload: bytes) -> None:
    with suppress(CorruptBatchError):
        list(walk_batches(payload))
