from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import re
from typing import Any, TypedDict

import msgspec
import polars as pl
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.connectors.codecs import Json
from riverrun.engine.batch import KEY, POSITION, TIME, Batch
from riverrun.engine.codec import DecodedValues, EncodeError
from riverrun.engine.errors import TopologyError
from riverrun.engine.reference.json_writer import ReferenceJsonWriter
from riverrun.engine.schema import Record


class Inner(Record):
    counts: list[int]


class Order(Record):
    user: str
    amount: float
    qty: int = 1
    note: str | None = None


class Nested(Record):
    inner: Inner | None = None
    more: list[Inner] = msgspec.field(default_factory=list)


@dataclasses.dataclass
class OrderData:
    user: str
    amount: float
    qty: int = 1


class OrderDict(TypedDict):
    user: str
    amount: float
    qty: int


class OrderModel(pydantic.BaseModel):
    user: str
    amount: float
    qty: int = 1


ALL_TYPES = [Order, OrderData, OrderDict, OrderModel]
GOOD = b'{"user":"ada","amount":2.5,"qty":3,"unknown":[1]}'


def rows_batch(rows: list[Any]) -> Batch:
    return Batch.of_rows(rows, list(range(len(rows))))


def frame_batch(frame: pl.DataFrame) -> Batch:
    count = frame.height
    return Batch.of_frame(
        frame.with_columns(
            pl.Series(TIME, range(count), dtype=pl.Int64),
            pl.Series(KEY, ["k"] * count),
            pl.Series(POSITION, range(count), dtype=pl.UInt32),
        )
    )


def test_codecs_of_one_type_are_equal() -> None:
    assert Json(Order) == Json(Order)
    assert hash(Json(Order)) == hash(Json(Order))
    assert Json(Order) != Json(OrderData)
    assert Json() == Json()
    assert repr(Json(Order)).startswith("Json(record_type=")


def test_a_type_that_is_no_record_is_refused() -> None:
    with pytest.raises(TopologyError, match="not a record type"):
        Json(int)


@pytest.mark.parametrize("record_type", ALL_TYPES)
def test_documents_become_the_declared_type(record_type: type) -> None:
    decoded = Json(record_type).decode([GOOD])
    (row,) = decoded.rows or []
    assert row == record_type(user="ada", amount=2.5, qty=3)
    assert decoded.kept is None
    assert decoded.failures == []


def test_without_a_type_documents_become_dicts() -> None:
    decoded = Json().decode([b'{"a": [1, {"b": null}]}', b"[1]", None])
    assert decoded.rows == [{"a": [1, {"b": None}]}]
    assert decoded.kept == [0]
    assert [index for index, _ in decoded.failures] == [1, 2]
    assert Json().schema is None


BAD = {
    "undecodable": (b"{", "truncated|EOF"),
    "empty": (b"", "truncated"),
    "missing field": (b'{"user":"ada"}', "amount"),
    "wrong type": (b'{"user":1,"amount":1}', "str|string"),
    "float for int": (b'{"user":"a","amount":1,"qty":1.5}', "int"),
    "tombstone": (None, "tombstone"),
    "invalid UTF-8": (b'{"user":"\xff","amount":1}', "utf-8"),
    "lone surrogate": (b'{"user":"\\ud800","amount":1}', ""),
    "deep nesting": (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion"),
    "2^63": (b'{"user":"a","amount":1,"qty":9223372036854775808}', "64 bits"),
    "2^64": (b'{"user":"a","amount":1,"qty":-18446744073709551616}', "64 bits"),
    "NaN": (b'{"user":"a","amount":NaN}', "malformed"),
    "Infinity": (b'{"user":"a","amount":-Infinity}', "malformed"),
    "overflow": (b'{"user":"a","amount":1e999}', "out of range"),
    "trailing": (GOOD + b" x", "trailing"),
    "array": (b"[1]", "object|array|OrderModel"),
}


@pytest.mark.parametrize("record_type", ALL_TYPES)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_document_fails_alone(record_type: type, name: str) -> None:
    document, reason = BAD[name]
    decoded = Json(record_type).decode([GOOD, document, GOOD])
    assert decoded.kept == [0, 2]
    assert decoded.rows == [record_type(user="ada", amount=2.5, qty=3)] * 2
    ((index, error),) = decoded.failures
    assert index == 1
    assert error.__traceback__ is None
    assert re.search(reason, str(error) + type(error).__name__, re.IGNORECASE)


def test_the_largest_ints_are_no_failure() -> None:
    documents = [b'{"user":"a","amount":1,"qty":%d}' % n for n in (2**63 - 1, -(2**63))]
    decoded = Json(Order).decode(documents)
    assert [row.qty for row in decoded.rows or []] == [2**63 - 1, -(2**63)]
    assert decoded.failures == []


def test_large_ints_are_found_in_nested_fields() -> None:
    good = b'{"inner":{"counts":[1]},"more":[{"counts":[9223372036854775807]}]}'
    bad = b'{"more":[{"counts":[1]},{"counts":[9223372036854775808]}]}'
    decoded = Json(Nested).decode([good, bad, b"{}"])
    assert decoded.kept == [0, 2]
    assert "`$.more`" in str(decoded.failures[0][1])


def test_what_is_decoded_fits_its_columns() -> None:
    class Everything(Record):
        at: dt.datetime
        day: dt.date
        blob: bytes
        flag: bool
        inner: Inner

    document = (
        b'{"at":"2026-01-02T03:04:05","day":"2026-01-02","blob":"YWJj","flag":true,'
        b'"inner":{"counts":[1]}}'
    )
    codec = Json(Everything)
    batch = Batch.of_rows(codec.decode([document]).rows or [], [5], schema=codec.schema)
    back = Batch.of_frame(batch.frame(), schema=codec.schema)
    (row,) = back.rows()
    assert row.at == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert (row.day, row.blob, row.flag, row.inner) == (
        dt.date(2026, 1, 2),
        b"abc",
        True,
        Inner([1]),
    )


# --- encoding --------------------------------------------------------------------------------


@pytest.mark.parametrize("record_type", ALL_TYPES)
def test_rows_round_trip(record_type: type) -> None:
    codec = Json(record_type)
    rows = [
        record_type(user='a\n"é', amount=0.1, qty=-1),
        record_type(user="", amount=0, qty=2**62),
    ]
    assert codec.decode(codec.encode(rows_batch(rows))).rows == rows


@pytest.mark.parametrize("repeat", [1, 1000])
def test_columns_leave_out_what_is_not_a_value(repeat: int) -> None:
    frame = pl.DataFrame(
        {"user": ["a\nb", None], "n": [1, 2], "x": [0.5, None], "ok": [True, None]}
    )
    documents = Json().encode(frame_batch(pl.concat([frame] * repeat)))
    assert len(documents) == 2 * repeat
    assert [json.loads(document or b"") for document in documents[-2:]] == [
        {"user": "a\nb", "n": 1, "x": 0.5, "ok": True},
        {"user": None, "n": 2, "x": None, "ok": None},
    ]


def test_times_are_iso_in_columns_and_rows() -> None:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=dt.UTC)
    expected = [b'{"at":"2026-01-02T03:04:05.000600Z","day":"2026-01-02"}']
    row = {"at": at, "day": dt.date(2026, 1, 2)}
    assert Json().encode(rows_batch([row])) == expected
    many = Json().encode(frame_batch(pl.DataFrame([row] * 1500)))
    assert many == expected * 1500


def test_none_is_written_as_a_tombstone() -> None:
    assert Json().encode(rows_batch([{"a": None}, None])) == [b'{"a":null}', None]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda rows: rows_batch(rows),
        lambda rows: frame_batch(pl.DataFrame(rows)),
        lambda rows: frame_batch(pl.DataFrame(rows * 500)),
        lambda rows: rows_batch([Order("a", row["x"]) for row in rows]),
        lambda rows: rows_batch([OrderModel(user="a", amount=row["x"]) for row in rows]),
        lambda rows: rows_batch([{"deep": [{"x": row["x"]}]} for row in rows]),
        lambda rows: frame_batch(pl.DataFrame({"deep": [[row["x"]] for row in rows]})),
    ],
)
def test_numbers_without_json_form_are_refused(make: Any, number: float) -> None:
    with pytest.raises(EncodeError, match="no JSON form") as caught:
        Json().encode(make([{"x": 1.0}, {"x": number}, {"x": number}]))
    assert caught.value.index == 1


def test_a_value_without_json_form_is_named_by_index() -> None:
    with pytest.raises(EncodeError, match="object has no JSON form") as caught:
        Json().encode(rows_batch([{"a": 1}, object()]))
    assert caught.value.index == 1


def test_nothing_to_encode() -> None:
    assert Json().encode(rows_batch([])) == []
    assert Json().encode(frame_batch(pl.DataFrame({"a": []}, schema={"a": pl.Float64}))) == []


def test_a_plane_brings_its_own_projector() -> None:
    class Projector:
        def project(self, values: Any) -> DecodedValues:
            return DecodedValues(rows=["from the plane"])

    class Plane:
        name = "test"
        record_batches: Any = None

        def json_projector(self, schema: Any) -> Projector:
            assert "user" in schema.fields
            return Projector()

        def json_writer(self) -> ReferenceJsonWriter:
            return ReferenceJsonWriter()

        def partitioner(self, partitions: int) -> Any:
            raise NotImplementedError

        def window_table(self, aggregates: Any, prefix: Any, reader: Any) -> Any:
            raise NotImplementedError

    codec = Json(Order).with_plane(Plane())
    assert codec.decode([b"?"]).rows == ["from the plane"]
    assert codec == Json(Order)
    assert Json().with_plane(Plane()).decode([b"{}"]).rows == [{}]


plain_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
documents = st.recursive(
    plain_values,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({"a": documents, "b": documents}), max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_dict_round_trips(rows: list[dict[str, Any]]) -> None:
    assert Json().decode(Json().encode(rows_batch(rows))).rows == rows


columns = st.lists(
    st.tuples(
        st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@given(columns, st.booleans())
@settings(max_examples=60, deadline=None)
def test_columns_say_the_same_as_rows(values: list[tuple[Any, ...]], many: bool) -> None:
    schema = {"s": pl.String, "i": pl.Int64, "f": pl.Float64, "b": pl.Boolean}
    frame = pl.DataFrame(values * (1000 if many else 1), schema=schema, orient="row")
    encoded = Json().encode(frame_batch(frame))
    assert [msgspec.json.decode(document or b"") for document in encoded] == frame.to_dicts()


@given(st.lists(st.none() | st.binary(max_size=30) | st.just(GOOD), max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_row_or_a_failure(values: list[bytes | None]) -> None:
    decoded = Json(Order).decode(values)
    kept = decoded.kept if decoded.kept is not None else list(range(len(values)))
    assert len(decoded.rows or []) == len(kept)
    assert sorted([*kept, *(index for index, _ in decoded.failures)]) == list(range(len(values)))


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**30])
@pytest.mark.parametrize("document", ['{"a":%d}', '{"a":[1,{"b":%d}]}'])
def test_large_ints_without_a_type_fail_alone(document: str, number: int) -> None:
    good = b'{"a": 9223372036854775807, "b": "18446744073709551616"}'
    decoded = Json().decode([good, (document % number).encode()])
    assert decoded.rows == [{"a": 2**63 - 1, "b": "18446744073709551616"}]
    assert [index for index, _ in decoded.failures] == [1]
    assert "beyond 64 bits" in str(decoded.failures[0][1])
