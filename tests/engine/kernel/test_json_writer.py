from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from riverrun.connectors.codecs.json import Json
from riverrun.engine.batch import Batch
from riverrun.engine.codec import EncodeError
from riverrun.engine.kernel.json_writer import ROWS_MIN, KernelJsonWriter
from riverrun.engine.labels import TIME, Label

KNOWN: list[Any] = [
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Null),
    *(pl.Datetime("us", "UTC"), pl.Datetime("ms", "UTC"), pl.Datetime("us"), pl.Datetime("ms")),
    *(pl.List(pl.Int64), pl.List(pl.Struct({"a": pl.String, "b": pl.List(pl.Float64)}))),
    pl.Struct({"name": pl.String, "inner": pl.Struct({"at": pl.Datetime("us", "UTC")})}),
]


class RowsOnly:
    """Leaves every frame to the codec, which writes row by row with msgspec."""

    def write(self, frame: pl.DataFrame) -> None:
        del frame


def encoded_by_rows(frame: pl.DataFrame) -> list[Any]:
    times = Label(TIME, column=pl.Series(TIME, [0] * frame.height, dtype=pl.Int64))
    columns = {column.name: column for column in frame.get_columns()}
    batch = Batch(None, times, columns=columns)
    return list(Json(writer=RowsOnly()).encode(batch))


def exact(document: bytes) -> str:
    # Equal values may differ: 1 and 1.0 and True, 0.0 and -0.0.
    return json.dumps(json.loads(document))


def assert_same(frame: pl.DataFrame) -> None:
    try:
        want: Any = [exact(document) for document in encoded_by_rows(frame)]
    except EncodeError as error:
        want = (error.index, str(error))
    try:
        documents = KernelJsonWriter(rows_min=0).write(frame)
        assert documents is not None
        assert documents.dtype == pl.Binary
        got: Any = [exact(document) for document in documents.to_list()]
    except EncodeError as error:
        got = (error.index, str(error))
    assert got == want


@given(frame=dataframes(min_cols=1, max_cols=4, max_size=8, allowed_dtypes=KNOWN))
def test_frames_are_written_as_their_rows_are(frame: pl.DataFrame) -> None:
    if frame.width:
        assert_same(frame)


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_any_float(values: list[float]) -> None:
    assert_same(pl.DataFrame({"x": values}, schema={"x": pl.Float64}))


@given(
    cents=st.lists(st.integers(-(10**15), 10**15)), power=st.integers(0, 6), ulps=st.integers(-2, 2)
)
def test_floats_that_are_or_almost_are_short_decimals(
    cents: list[int], power: int, ulps: int
) -> None:
    values = [each / 10**power for each in cents]
    values = [math.nextafter(each, math.inf * ulps) if ulps else each for each in values]
    assert_same(pl.DataFrame({"x": values}, schema={"x": pl.Float64}))


@given(
    values=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_any_text(values: list[str], name: str) -> None:
    assert_same(
        pl.DataFrame(
            {name: values, f"{name}2": values}, schema={name: pl.String, f"{name}2": pl.String}
        )
    )


def test_floats_are_floats_and_integers_are_integers() -> None:
    frame = pl.DataFrame({"x": [1.0, -0.0, 0.5, 1e300], "n": [1, 0, -(2**63), 2**63 - 1]})
    documents = KernelJsonWriter(rows_min=0).write(frame)
    assert documents is not None
    assert documents.to_list() == [
        b'{"x":1.0,"n":1}',
        b'{"x":-0.0,"n":0}',
        b'{"x":0.5,"n":-9223372036854775808}',
        b'{"x":1e300,"n":9223372036854775807}',
    ]


def test_texts_are_escaped() -> None:
    every = "".join(map(chr, range(0x180))) + "\u2028\U0001f600"
    frame = pl.DataFrame({'a "name"\n': [every, "", None, "x" * 100 + '"' + "y" * 100]})
    assert_same(frame)


def test_times_bytes_and_nested_values() -> None:
    utc = dt.UTC
    times = [
        dt.datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=utc),
        dt.datetime(1, 1, 1, tzinfo=utc),
        dt.datetime(9999, 12, 31, 23, 59, 59, 1, tzinfo=utc),
        None,
    ]
    columns: dict[str, Any] = {
        "at": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
        "day": [dt.date(2000, 2, 29), dt.date(1900, 3, 1), dt.date(1, 1, 1), None],
        "raw": [b"", b"a", b"ab", b"\xff\x00abc"],
        "tags": [["a", None], [], None, ['"']],
        "inner": [{"x": 1, "y": [1.5]}, {"x": None, "y": []}, None, {"x": 2, "y": None}],
    }
    assert_same(pl.DataFrame(columns))


def test_slices_and_chunks_are_written() -> None:
    frame = pl.DataFrame({"s": ["a", None, "c"] * 5, "l": [[1], [], [2, 3]] * 5, "b": [True] * 15})
    assert_same(frame[4:9])
    assert_same(pl.concat([frame[3:5], frame[:2]], rechunk=False))
    assert_same(frame[:0])


def test_more_documents_than_fit_in_one_buffer() -> None:
    text = "x" * (1 << 20)
    frame = pl.DataFrame({"n": range(130)}).with_columns(text=pl.lit(text))
    documents = KernelJsonWriter(rows_min=0).write(frame)
    assert documents is not None
    for index, document in enumerate(documents.to_list()):
        assert document == b'{"n":%d,"text":"%b"}' % (index, text.encode())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_the_first_row_with_a_number_that_has_no_form_is_told(number: float) -> None:
    assert_same(pl.DataFrame({"a": [1.0, None, 2.0, number], "b": [1.0, 2.0, number, 3.0]}))
    assert_same(pl.DataFrame({"a": [[1.0], [], [2.0, number]]}))
    assert_same(pl.DataFrame({"a": [{"x": 1.0}, None, {"x": number}]}))
    with pytest.raises(EncodeError) as caught:
        KernelJsonWriter(rows_min=0).write(pl.DataFrame({"a": [1.0, number]}))
    assert caught.value.index == 1


@pytest.mark.parametrize(
    "series",
    [
        pl.Series([dt.time(1)]),
        pl.Series([dt.timedelta(1)]),
        pl.Series(["a"], dtype=pl.Categorical),
        pl.Series([1], dtype=pl.Datetime("ns", "UTC")),
        pl.Series([1], dtype=pl.Datetime("us", "Europe/Berlin")),
        pl.Series([1], dtype=pl.Decimal(10, 2)),
        pl.Series([1], dtype=pl.Int128),
        pl.Series([[1]], dtype=pl.Array(pl.Int64, 1)),
        pl.Series([{"a\0b": 1}]),
        pl.Series([2**62], dtype=pl.Datetime("us", "UTC")),
    ],
)
def test_what_is_not_known_is_left_to_the_rows(series: pl.Series) -> None:
    assert KernelJsonWriter(rows_min=0).write(pl.DataFrame({"n": [1], "x": series})) is None


def test_a_frame_without_columns_is_left_to_the_rows() -> None:
    assert KernelJsonWriter(rows_min=0).write(pl.DataFrame()) is None


def test_few_rows_are_left_to_the_codec() -> None:
    frame = pl.DataFrame({"n": range(ROWS_MIN)})
    assert KernelJsonWriter().write(frame) is not None
    assert KernelJsonWriter().write(frame[1:]) is None
