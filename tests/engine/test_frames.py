"""Frames: what goes through a repartition topic, and what anybody else may have put there."""

from __future__ import annotations

import struct
from typing import Any

import crc32c
import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine import frames
from riverrun.engine.batch import KEY, POSITION, TIME, Batch
from riverrun.engine.errors import CorruptBatchError
from riverrun.engine.schema import Record, Schema
from riverrun.engine.watermarks import InputWatermark

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.integers(-(2**63), 2**63 - 1)
KEYS = TEXT | NUMBER | st.binary(max_size=8) | st.tuples(TEXT, st.integers(-(2**53), 2**53))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


class Order(Record):
    user: str
    amount: float


def columns(count: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [f"u{i}" for i in range(count)],
            TIME: pl.Series(range(count), dtype=pl.Int64),
            KEY: [f"k{i}" for i in range(count)],
        }
    )


@given(st.lists(st.tuples(VALUES, NUMBER, KEYS), min_size=1, max_size=5))
def test_rows_come_back_as_they_were(records: list[tuple[Any, int, Any]]) -> None:
    rows, times, keys = (list(column) for column in zip(*records, strict=True))

    frame = frames.decode(frames.encode_rows(7, rows, times, keys), None)

    assert frame.upstream == 7
    assert frame.batch is not None
    assert frame.batch.rows() == rows
    assert frame.batch.times() == times
    assert frame.batch.keys() == keys


def test_rows_come_back_as_records_of_their_type() -> None:
    data = frames.encode_rows(0, [Order("ada", 2.5)], [1], ["ada"])

    frame = frames.decode(data, Schema.of(Order))

    assert frame.batch is not None
    assert frame.batch.rows() == [Order("ada", 2.5)]


def test_columns_come_back_without_positions_that_mean_nothing_elsewhere() -> None:
    with_positions = columns().with_columns(pl.Series(POSITION, [4, 5, 6], dtype=pl.UInt32))

    frame = frames.decode(frames.encode_columns(3, with_positions), None)

    assert frame.upstream == 3
    assert frame.batch is not None
    assert frame.batch.frame().equals(columns())


@given(st.integers(0, 2**32 - 1), NUMBER, st.booleans())
def test_watermarks_come_back(upstream: int, value_ms: int, idle: bool) -> None:
    watermark = InputWatermark(value_ms, idle)

    frame = frames.decode(frames.encode_watermark(upstream, watermark), None)

    assert (frame.upstream, frame.watermark, frame.batch) == (upstream, watermark, None)


def framed(kind: int, body: bytes = b"", version: int = 1) -> bytes:
    return struct.pack("<2sBBII", b"RF", version, kind, 0, crc32c.crc32c(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RF",
        b"{}",
        framed(0),
        framed(1),
        framed(2, b"12345678"),
        framed(2, b"1234567890"),
        framed(9),
        framed(0, version=2),
        framed(1, msgspec.msgpack.encode(([1], [1, 2], ["a"]))),
        framed(1, msgspec.msgpack.encode(([1], ["late"], ["a"]))),
        framed(1, msgspec.msgpack.encode(([], [], []))),
        framed(1, msgspec.msgpack.encode(["a"])),
        frames.encode_columns(0, columns().drop(TIME)),
        frames.encode_columns(0, columns().with_columns(pl.lit("x").alias(TIME))),
        frames.encode_columns(0, columns().with_columns(pl.lit(None, pl.Int64).alias(TIME))),
        frames.encode_columns(0, columns(0)),
    ],
)
def test_what_is_not_a_whole_frame_is_told(data: bytes) -> None:
    with pytest.raises(CorruptBatchError):
        frames.decode(data, None)


@given(st.data())
def test_hostile_bytes_are_told_and_nothing_else_happens(data: st.DataObject) -> None:
    good = data.draw(
        st.sampled_from(
            [
                frames.encode_columns(1, columns()),
                frames.encode_rows(1, [{"a": 1}], [1], ["k"]),
                frames.encode_watermark(1, InputWatermark(5, idle=False)),
            ]
        )
    )
    spoiled = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(spoiled)))

    for each in (bytes(spoiled), bytes(spoiled[:cut]), good[:12] + data.draw(st.binary())):
        try:
            frame = frames.decode(each, None)
        except CorruptBatchError:
            continue
        if frame.batch is not None:
            assert len(frame.batch.times()) == len(frame.batch.keys()) == len(frame.batch)


# --- fewer, larger batches -------------------------------------------------------------------


def rows(*values: str) -> Batch:
    return Batch.of_rows(list(values), [0] * len(values), keys=list(values))


def test_batches_of_one_form_become_one() -> None:
    (found,) = frames.concat([rows("a"), rows("b", "c")], None)

    assert found.rows() == ["a", "b", "c"]
    assert found.keys() == ["a", "b", "c"]


def test_batches_of_the_same_columns_become_one() -> None:
    batch = Batch.of_frame(columns())

    (found,) = frames.concat([batch, batch], None)

    assert found.frame().equals(pl.concat([columns(), columns()]))


@pytest.mark.parametrize(
    "others", [[rows("a")], [Batch.of_frame(columns().rename({"user": "name"}))]]
)
def test_batches_that_differ_stay_as_they_are(others: list[Batch]) -> None:
    batches = [Batch.of_frame(columns()), *others]

    assert frames.concat(batches, None) == batches
