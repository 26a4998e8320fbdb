"""What every codec of record batches does, and batches to try it on.

Run by tests/engine/reference and tests/engine/kernel.
"""

from __future__ import annotations

import contextlib
import random
import struct
from typing import TYPE_CHECKING, ClassVar

import crc32c
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.engine.errors import BatchTooLargeError, CorruptBatchError
from riverrun.engine.log import Chunk, TopicPartition
from riverrun.engine.reference import decompression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.plane import RecordBatchCodec

PLAIN, GZIP, SNAPPY, LZ4, ZSTD = range(5)
TRANSACTIONAL, CONTROL, LOG_APPEND_TIME = 0x10, 0x20, 0x08

Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def batch(
    rows: Sequence[Row],
    *,
    base_offset: int = 0,
    codec: int = PLAIN,
    producer: int = -1,
    flags: int = 0,
    deltas: Sequence[int] | None = None,
) -> bytes:
    """Return a record batch with ``(timestamp, key, value, headers)`` rows."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, producer, 0, 0, 1 << 30)
    for delta, (timestamp, key, value, headers) in zip(
        deltas or range(len(rows)), rows, strict=True
    ):
        assert builder.append(delta, timestamp, key, value, headers) is not None
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base_offset)
    (attributes,) = struct.unpack_from(">h", built, 21)
    struct.pack_into(">h", built, 21, attributes | flags)
    return with_crc(built)


def marker(kind: int, *, base_offset: int, producer: int) -> bytes:
    """Return a control batch: kind 0 aborts, 1 commits."""
    key = struct.pack(">hh", 0, kind)
    return batch(
        [(1, key, b"\x00\x00\x00\x00\x00\x00", [])],
        base_offset=base_offset,
        producer=producer,
        flags=TRANSACTIONAL | CONTROL,
    )


def with_crc(payload: bytes | bytearray) -> bytes:
    """Return one batch with the CRC its content has."""
    fixed = bytearray(payload)
    struct.pack_into(">I", fixed, 17, crc32c.crc32c(bytes(fixed[21:])))
    return bytes(fixed)


def chunk(payload: bytes, *, offset: int = 0, aborted: Sequence[tuple[int, int]] = ()) -> Chunk:
    """Return a chunk of partition orders/3."""
    return Chunk(TopicPartition("orders", 3), offset, 1 << 40, payload, aborted)


def row(
    value: bytes,
) -> list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    return [(1, None, value, [])]


headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=2)
records = st.lists(
    st.tuples(
        st.integers(-1, 2**62), st.none() | st.binary(max_size=9), st.none() | st.binary(), headers
    ),
    max_size=30,
)

ROWS = [
    (1000, b"ada", b"one" * 50, []),
    (1005, None, b"two" * 50, []),
    (999, b"bob", None, [("trace", b"7"), ("empty", None)]),
    (-1, b"", b"", []),
]


class RecordBatchContract:
    """Subclasses give the codec."""

    codec: ClassVar[RecordBatchCodec]

    @pytest.mark.parametrize("codec", [PLAIN, GZIP, SNAPPY, LZ4, ZSTD])
    def test_every_compression_is_read(self, codec: int) -> None:
        raw = self.codec.decode(chunk(batch(ROWS, base_offset=40, codec=codec), offset=40))

        assert (raw.topic, raw.partition) == ("orders", 3)
        assert list(raw.offsets) == [40, 41, 42, 43]
        assert list(raw.timestamps_ms) == [1000, 1005, 999, -1]
        assert list(raw.keys) == [b"ada", None, b"bob", b""]
        assert list(raw.values) == [b"one" * 50, b"two" * 50, None, b""]
        assert raw.headers is not None
        assert [list(h) for h in raw.headers] == [[], [], [("trace", b"7"), ("empty", None)], []]

    def test_headers_are_none_when_no_record_has_any(self) -> None:
        assert self.codec.decode(chunk(batch(ROWS[:2]))).headers is None

    def test_an_empty_chunk_has_no_records(self) -> None:
        assert len(self.codec.decode(chunk(b""))) == 0

    def test_records_below_the_position_are_skipped(self) -> None:
        payload = batch(ROWS[:2], base_offset=8) + batch(ROWS, base_offset=10, codec=LZ4)
        raw = self.codec.decode(chunk(payload, offset=12))
        assert list(raw.offsets) == [12, 13]
        assert list(raw.keys) == [b"bob", b""]

    def test_gaps_that_compaction_leaves_are_kept(self) -> None:
        raw = self.codec.decode(chunk(batch(ROWS[:2], base_offset=10, deltas=[1, 5])))
        assert list(raw.offsets) == [11, 15]

    def test_a_batch_that_compaction_emptied_is_skipped(self) -> None:
        emptied = bytearray(batch(ROWS[:1], base_offset=5)[:61])
        struct.pack_into(">i", emptied, 8, 61 - 12)
        struct.pack_into(">i", emptied, 57, 0)
        raw = self.codec.decode(chunk(with_crc(emptied) + batch(ROWS[:1], base_offset=9)))
        assert list(raw.offsets) == [9]

    def test_log_append_time_replaces_the_timestamps(self) -> None:
        raw = self.codec.decode(chunk(batch(ROWS[:3], flags=LOG_APPEND_TIME)))
        assert list(raw.timestamps_ms) == [1005, 1005, 1005]

    def test_aborted_transactions_are_left_out_until_their_marker(self) -> None:
        payload = b"".join(
            [
                batch(row(b"a0"), base_offset=0, producer=7, flags=TRANSACTIONAL),
                batch(row(b"b1"), base_offset=1, producer=8, flags=TRANSACTIONAL),
                batch(row(b"a2"), base_offset=2, producer=7, flags=TRANSACTIONAL),
                batch(row(b"n3"), base_offset=3, producer=7),
                marker(0, base_offset=4, producer=7),
                batch(row(b"a5"), base_offset=5, producer=7, flags=TRANSACTIONAL),
                marker(1, base_offset=6, producer=7),
                batch(row(b"a7"), base_offset=7, producer=7, flags=TRANSACTIONAL),
                marker(1, base_offset=8, producer=8),
                marker(0, base_offset=9, producer=7),
            ]
        )
        raw = self.codec.decode(chunk(payload, aborted=[(7, 0), (7, 7)]))
        assert list(raw.values) == [b"b1", b"n3", b"a5"]
        assert list(raw.offsets) == [1, 3, 5]

    def test_a_transaction_aborted_before_the_chunk_began_is_left_out(self) -> None:
        payload = batch(row(b"x"), base_offset=50, producer=7, flags=TRANSACTIONAL)
        assert len(self.codec.decode(chunk(payload, offset=50, aborted=[(7, 3)]))) == 0

    def test_a_bad_crc_names_the_place(self) -> None:
        damaged = bytearray(batch(ROWS, base_offset=40))
        damaged[-1] ^= 1
        with pytest.raises(CorruptBatchError, match=r"topic orders, partition 3, offset 40: .*CRC"):
            self.codec.decode(chunk(batch(ROWS[:2]) + bytes(damaged)))

    def test_old_message_formats_are_refused_by_name(self) -> None:
        old = bytearray(batch(ROWS))
        old[16] = 1
        with pytest.raises(CorruptBatchError, match="format 1"):
            self.codec.decode(chunk(bytes(old)))

    @pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
    def test_a_batch_that_would_fill_memory_is_refused(
        self, codec: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bomb = batch(row(bytes(3 << 20)), codec=codec)
        monkeypatch.setattr(decompression, "BODY_BYTES_MAX", 1 << 20)
        with pytest.raises(CorruptBatchError):
            self.codec.decode(chunk(bomb))

    # --- encoding ---

    def test_what_is_encoded_is_as_kafka_has_it(self) -> None:
        (encoded,) = self.codec.encode(
            [r[1] for r in ROWS],
            [r[2] for r in ROWS],
            [r[0] for r in ROWS],
            [r[3] for r in ROWS],
            1 << 20,
        )
        judge = DefaultRecordBatch(encoded.payload)
        assert judge.validate_crc()
        assert judge.base_offset == 0
        assert judge.compression_type == LZ4
        assert (judge.producer_id, judge.producer_epoch, judge.base_sequence) == (-1, -1, -1)
        assert judge.last_offset_delta == 3
        assert not judge.is_transactional
        assert encoded.record_count == 4
        assert encoded.max_timestamp_ms == judge.max_timestamp == 1005
        assert [(r.key, r.value, r.headers) for r in judge] == [r[1:] for r in ROWS]

    def test_nothing_to_encode_gives_no_batch(self) -> None:
        assert self.codec.encode([], [], [], None, 1000) == []

    def test_batches_stay_below_the_limit_and_keep_the_order(self) -> None:
        values = [bytes([i]) * 300 for i in range(100)]
        batches = self.codec.encode([None] * 100, values, list(range(100)), None, 1000)
        assert len(batches) > 10
        assert all(len(b.payload) <= 1000 for b in batches)
        assert sum(b.record_count for b in batches) == 100
        decoded = [v for b in batches for v in self.codec.decode(chunk(b.payload)).values]
        assert decoded == values

    def test_one_large_record_passes_if_it_fits_compressed(self) -> None:
        values = [b"a", bytes(5000), b"b"]
        batches = self.codec.encode([None] * 3, values, [1, 2, 3], None, 1000)
        assert [b.record_count for b in batches] == [1, 1, 1]

    def test_a_record_that_cannot_fit_is_named(self) -> None:
        incompressible = random.Random(1).randbytes(5000)
        with pytest.raises(BatchTooLargeError, match=r"record 2 takes 50.. bytes"):
            self.codec.encode([None] * 3, [b"a", b"b", incompressible], [1, 2, 3], None, 1000)

    def test_round_trip(self) -> None:
        @given(records, st.integers(300, 5000))
        @settings(max_examples=60, deadline=None)
        def check(rows: list, limit: int) -> None:
            batches = self.codec.encode(
                [r[1] for r in rows],
                [r[2] for r in rows],
                [r[0] for r in rows],
                [r[3] for r in rows],
                limit,
            )
            payload, base = b"", 0
            for encoded in batches:
                payload += struct.pack(">q", base) + encoded.payload[8:]
                base += encoded.record_count
            raw = self.codec.decode(chunk(payload))
            found_headers = raw.headers or [[] for _ in rows]
            found = list(
                zip(raw.timestamps_ms, raw.keys, raw.values, map(list, found_headers), strict=True)
            )
            assert found == rows
            assert list(raw.offsets) == list(range(len(rows)))

        check()

    def test_damage_is_told_as_damage(self) -> None:
        @given(
            codec=st.sampled_from([PLAIN, GZIP, SNAPPY, LZ4, ZSTD]),
            flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6),
            cut=st.integers(0, 40),
            extra=st.binary(max_size=8),
            fix_length=st.booleans(),
        )
        @settings(max_examples=1000, deadline=None)
        def check(
            codec: int, flips: list[tuple[int, int]], cut: int, extra: bytes, fix_length: bool
        ) -> None:
            payload = bytearray(batch(ROWS, base_offset=7, codec=codec))
            payload = bytearray(payload[: len(payload) - cut]) + extra
            for at, value in flips:
                at = at % len(payload)
                if at != 16 and not 17 <= at < 21:
                    payload[at] = value
            if fix_length:
                struct.pack_into(">i", payload, 8, len(payload) - 12)
            # Some damage is a valid batch again; anything but CorruptBatchError fails the test.
            with contextlib.suppress(CorruptBatchError):
                self.codec.decode(chunk(with_crc(payload)))

        check()
