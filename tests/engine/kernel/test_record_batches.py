"""The kernel's codec beside the reference's, on whatever chunks may hold."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

import lz4.frame
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun._kernel import decode_record_batches, encode_record_batches
from riverrun.engine.errors import BatchTooLargeError
from riverrun.engine.kernel.record_batches import KernelRecordBatchCodec
from riverrun.engine.reference.decompression import BODY_BYTES_MAX
from riverrun.engine.reference.record_batches import ReferenceRecordBatchCodec
from tests.contracts.record_batches import (
    CONTROL,
    GZIP,
    LOG_APPEND_TIME,
    LZ4,
    PLAIN,
    ROWS,
    SNAPPY,
    TRANSACTIONAL,
    ZSTD,
    RecordBatchContract,
    batch,
    chunk,
    headers,
    marker,
    with_crc,
)

if TYPE_CHECKING:
    from riverrun.engine.log import Chunk

KERNEL = KernelRecordBatchCodec()
REFERENCE = ReferenceRecordBatchCodec()
HEADER_BYTES = 61
CODECS = [PLAIN, GZIP, SNAPPY, LZ4, ZSTD]


class TestKernel(RecordBatchContract):
    codec = KERNEL


def outcome(codec: Any, given_chunk: Chunk) -> object:
    """Return the records, or the error with its text."""
    try:
        raw = codec.decode(given_chunk)
    except Exception as error:
        return type(error), str(error)
    columns = (raw.offsets, raw.timestamps_ms, raw.keys, raw.values)
    return raw.topic, raw.partition, *map(list, columns), raw.headers


def kernel_alone(given_chunk: Chunk) -> bool:
    """Whether the kernel answers without the reference."""
    return (
        decode_record_batches(
            given_chunk.payload, given_chunk.offset, given_chunk.aborted, BODY_BYTES_MAX
        )
        is not None
    )


# --- decoding ---

rows = st.lists(
    st.tuples(
        st.integers(-1, 2**40),
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=20) | st.binary(max_size=3).map(lambda part: part * 60),
        headers,
    ),
    min_size=1,
    max_size=12,
)
producers = st.integers(7, 9)


@st.composite
def batches(draw: st.DrawFn, base_offset: int) -> tuple[bytes, int]:
    """Return a batch of any kind that brokers send, and the offset behind it."""
    if draw(st.integers(0, 3)) == 0:
        kind, producer = draw(st.integers(0, 1)), draw(producers)
        return marker(kind, base_offset=base_offset, producer=producer), base_offset + 1
    some = draw(rows)
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 300]), min_size=len(some)))
    deltas, at = [], -1
    for step in steps[: len(some)]:
        at += step
        deltas.append(at)
    flags = draw(st.sampled_from([0, 0, TRANSACTIONAL, LOG_APPEND_TIME]))
    built = batch(
        some,
        base_offset=base_offset,
        codec=draw(st.sampled_from(CODECS)),
        producer=draw(producers),
        flags=flags,
        deltas=deltas,
    )
    if draw(st.integers(0, 9)) == 0:  # the last records gone by compaction
        longer = bytearray(built)
        struct.pack_into(">i", longer, 23, at + 5)
        built, at = with_crc(longer), at + 5
    return built, base_offset + at + 1


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    parts: list[bytes] = []
    at = start = draw(st.integers(0, 2**40))
    for _ in range(draw(st.integers(1, 6))):
        at += draw(st.sampled_from([0, 0, 5]))
        part, at = draw(batches(at))
        parts.append(part)
    aborted = draw(st.lists(st.tuples(producers, st.integers(start, at)), max_size=3))
    return chunk(b"".join(parts), offset=draw(st.integers(start, at)), aborted=aborted)


@given(chunks())
@settings(max_examples=500)
def test_whatever_brokers_send_is_read_by_the_kernel_itself(given_chunk: Chunk) -> None:
    assert kernel_alone(given_chunk)
    assert outcome(KERNEL, given_chunk) == outcome(REFERENCE, given_chunk)


@given(
    chunks(),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 30),
    st.booleans(),
)
@settings(max_examples=1500)
def test_damage_gives_the_result_of_the_reference(
    given_chunk: Chunk, flips: list[tuple[int, int]], cut: int, fix_crc: bool
) -> None:
    payload = bytearray(given_chunk.payload[: len(given_chunk.payload) - cut])
    for at, value in flips:
        payload[at % len(payload)] = value
    if fix_crc:
        with_crcs(payload)
    damaged = chunk(bytes(payload), offset=given_chunk.offset, aborted=given_chunk.aborted)
    assert outcome(KERNEL, damaged) == outcome(REFERENCE, damaged)


@pytest.mark.parametrize("attributes", [0x01, 0x7F, 0x80, 0xFF])
def test_attributes_of_a_record_are_read_as_by_the_reference(attributes: int) -> None:
    payload = bytearray(batch([(1, b"key", b"value", [])], codec=PLAIN))
    payload[HEADER_BYTES + 1] = attributes  # behind the length of the first record, which is short
    given_chunk = chunk(with_crc(payload))
    assert outcome(KERNEL, given_chunk) == outcome(REFERENCE, given_chunk)
    assert kernel_alone(given_chunk) == (attributes < 0x80)


def with_crcs(payload: bytearray) -> None:
    """Write the CRC of every batch that can be found, so that the damage is met behind it."""
    start = 0
    while start + HEADER_BYTES <= len(payload):
        (length,) = struct.unpack_from(">i", payload, start + 8)
        end = start + 12 + length
        if not start + HEADER_BYTES <= end <= len(payload):
            # The length is what is damaged: the last batch ends where the chunk does.
            end = len(payload)
            struct.pack_into(">i", payload, start + 8, end - start - 12)
        payload[start:end] = with_crc(payload[start:end])
        start = end


@given(
    st.binary(min_size=7, max_size=120),
    st.integers(1, 4),
    st.integers(-1, 3),
)
@settings(max_examples=1000)
def test_any_bytes_behind_a_header_give_the_result_of_the_reference(
    body: bytes, count: int, last_delta: int
) -> None:
    header = bytearray(batch(ROWS[:1])[:HEADER_BYTES])
    struct.pack_into(">i", header, 23, last_delta)
    struct.pack_into(">i", header, 57, count)
    struct.pack_into(">i", header, 8, HEADER_BYTES + len(body) - 12)
    anything = chunk(with_crc(bytes(header) + body))
    assert outcome(KERNEL, anything) == outcome(REFERENCE, anything)


@pytest.mark.parametrize("block_size", [4, 5, 6, 7])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("sized", [False, True])
def test_every_form_of_lz4_frames_is_read_by_the_kernel_itself(
    block_size: int, linked: bool, checked: bool, sized: bool
) -> None:
    chance = random.Random(block_size)
    words = [chance.randbytes(chance.randrange(20)) for _ in range(200)]
    some = [(i, b"k", b"".join(chance.choices(words, k=9)), []) for i in range(4_000)]
    plain = batch(some)
    frame = lz4.frame.compress(
        plain[HEADER_BYTES:],
        block_size=block_size,
        block_linked=linked,
        block_checksum=checked,
        content_checksum=checked,
        store_size=sized,
    )
    given_chunk = chunk(with_body(plain, LZ4, frame))
    assert kernel_alone(given_chunk)
    assert outcome(KERNEL, given_chunk) == outcome(REFERENCE, given_chunk)
    for at in [*range(20), len(frame) // 2, *range(len(frame) - 8, len(frame))]:
        damaged = bytearray(frame)
        damaged[at] ^= 4
        given_chunk = chunk(with_body(plain, LZ4, bytes(damaged)))
        assert outcome(KERNEL, given_chunk) == outcome(REFERENCE, given_chunk)


def with_body(plain: bytes, codec: int, body: bytes) -> bytes:
    """Return a plain batch with another body, of another codec."""
    changed = bytearray(plain[:HEADER_BYTES] + body)
    struct.pack_into(">i", changed, 8, len(changed) - 12)
    changed[22] |= codec
    return with_crc(changed)


def test_snappy_in_the_framing_of_the_java_client_is_read_by_the_kernel_itself() -> None:
    from cramjam import snappy

    plain = batch(ROWS * 50)
    body = plain[HEADER_BYTES:]
    framed = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    for at in range(0, len(body), 1000):
        block = bytes(snappy.compress_raw(body[at : at + 1000]))
        framed += struct.pack(">i", len(block)) + block
    given_chunk = chunk(with_body(plain, SNAPPY, framed))
    assert kernel_alone(given_chunk)
    assert outcome(KERNEL, given_chunk) == outcome(REFERENCE, given_chunk)
    for cut in range(1, 40):
        given_chunk = chunk(with_body(plain, SNAPPY, framed[:-cut]))
        assert outcome(KERNEL, given_chunk) == outcome(REFERENCE, given_chunk)


def test_columns_are_shared_with_polars() -> None:
    raw = KERNEL.decode(chunk(batch(ROWS)))
    assert pl.Series(raw.values).to_list() == [row[2] for row in ROWS]
    assert pl.Series(raw.offsets).to_list() == [0, 1, 2, 3]


def test_a_control_batch_is_not_a_record() -> None:
    odd = batch([(1, None, b"", [])], flags=CONTROL)
    short = batch([(1, b"\x00", b"", [])], flags=CONTROL)
    for payload in (odd, short):
        assert kernel_alone(chunk(payload))
        assert outcome(KERNEL, chunk(payload)) == outcome(REFERENCE, chunk(payload))


# --- encoding ---

plain_rows = st.lists(
    st.tuples(
        st.integers(-(2**40), 2**40) | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=300),
    ),
    max_size=30,
)


@given(plain_rows, st.integers(0, 2000), st.sampled_from([list, tuple, pl.Series]))
@settings(max_examples=1000)
def test_batches_are_grouped_as_by_the_reference(
    some: list[tuple[int, bytes | None, bytes | None]], limit: int, form: Any
) -> None:
    times, keys, values = ([row[i] for row in some] for i in range(3))
    if form is pl.Series:
        columns = pl.Series(keys, dtype=pl.Binary), pl.Series(values, dtype=pl.Binary)
        forms = (*columns, pl.Series(times, dtype=pl.Int64))
    else:
        forms = form(keys), form(values), form(times)
    try:
        expected = REFERENCE.encode(keys, values, times, None, limit)
    except (BatchTooLargeError, OverflowError) as error:
        # Which compresses one record better is left open.
        if isinstance(error, OverflowError):
            with pytest.raises(OverflowError):
                KERNEL.encode(*forms, None, limit)
        return
    encoded = KERNEL.encode(*forms, None, limit)
    for found, wanted in zip(encoded, expected, strict=True):
        assert found.record_count == wanted.record_count
        assert found.max_timestamp_ms == wanted.max_timestamp_ms
        assert len(found.payload) <= limit
        assert outcome(REFERENCE, chunk(found.payload)) == outcome(REFERENCE, chunk(wanted.payload))
        # Length, attributes and CRC depend on the compression, the rest does not.
        assert found.payload[:8] == wanted.payload[:8]
        assert found.payload[12:17] == wanted.payload[12:17]
        assert found.payload[23:HEADER_BYTES] == wanted.payload[23:HEADER_BYTES]


def test_regular_records_are_encoded_by_the_kernel_itself() -> None:
    encoded = encode_record_batches([b"a", None], [None, b"b" * 500], [5, -7], 1000)
    assert encoded is not None
    ((payload, count, latest),) = encoded
    assert (count, latest, len(payload) < 300) == (2, 5, True)


def test_frames_are_as_the_java_client_reads_them() -> None:
    values = [random.Random(i).randbytes(40) * 3 for i in range(3_000)]
    (encoded,) = KERNEL.encode([None] * 3_000, values, [1] * 3_000, None, 1 << 20)
    frame = lz4.frame.get_frame_info(encoded.payload[HEADER_BYTES:])
    assert not frame["block_linked"]
    assert frame["block_size"] == 64 << 10
    assert not frame["content_checksum"]
    raw = REFERENCE.decode(chunk(encoded.payload))
    assert list(raw.values) == values


@pytest.mark.parametrize("odd", [bytearray(b"x"), memoryview(b"x")])
def test_other_forms_of_bytes_are_left_to_the_reference(odd: Any) -> None:
    assert encode_record_batches([odd], [b""], [1], 1000) is None
    assert len(KERNEL.encode([odd], [b""], [1], None, 1000)) == 1


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        KERNEL.encode([b"", b""], [b""], [1], None, 1000)
