from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun._kernel import Column, JsonProjector
from riverrun.engine.kernel.json_fields import fields_of
from riverrun.engine.kernel.json_projector import RESTS_MAX, KernelJsonProjector, projects
from riverrun.engine.reference.json_projector import ReferenceJsonProjector
from riverrun.engine.schema import Record, Schema, TimestampMs

from .json_cases import anything, record_types, spoiled, written

if TYPE_CHECKING:
    import random

    from riverrun.engine.codec import DecodedValues

kinds = st.sampled_from(["struct", "dataclass", "mapping", "renamed"])


class Order(Record):
    user: str
    order: int
    amount: float
    ts: TimestampMs
    product: str


class Address(Record):
    city: str
    zip_codes: list[int]


class Person(Record):
    name: str
    address: Address | None = None
    tags: list[str] | None = None
    score: float = 1.5


@dataclasses.dataclass
class Point:
    x: float
    y: Annotated[float, "metres"] = 0.0
    label: str | None = None


class NamedPoint(TypedDict):
    name: str
    x: float


class Visit(Record):
    at: dt.datetime
    seen: list[dt.datetime]
    left: dt.datetime | None = None


class Birth(Record):
    day: dt.date
    others: list[dt.date | None] | None = None


class Blob(Record):
    raw: bytes
    parts: list[bytes | None] | None = None


class Renamed(Record, rename="camel"):
    user_name: str
    amount: float = msgspec.field(name="a mount")
    first_at: dt.datetime | None = None
    user: str = msgspec.field(name="user_name", default="nobody")


class VisitDict(TypedDict):
    at: dt.datetime


ORDER = b'{"user":"ada","order":7,"amount":2.5,"ts":1700000000000,"product":"tea and biscuits"}'


def rows_of(schema: Schema, decoded: DecodedValues) -> list[Any]:
    if decoded.rows is not None:
        return decoded.rows
    assert decoded.frame is not None
    return schema.to_rows(decoded.frame)


def told(decoded: DecodedValues) -> list[tuple[int, type, str]]:
    return [(index, type(error), str(error)) for index, error in decoded.failures]


def exact(rows: list[Any]) -> str:
    # Equal values may differ: 1 and 1.0 and True, 0.0 and -0.0.
    return json.dumps(msgspec.to_builtins(rows), sort_keys=True)


def assert_same(schema: Schema, documents: list[bytes | None]) -> None:
    want = ReferenceJsonProjector(schema).project(documents)
    got = KernelJsonProjector(schema).project(documents)
    rows = rows_of(schema, got)
    assert rows == want.rows
    assert exact(rows) == exact(want.rows or [])
    assert got.kept == want.kept
    assert told(got) == told(want)
    if got.frame is not None:
        assert got.frame.schema == pl.Schema(schema.columns)


def native(schema: Schema) -> JsonProjector:
    fields = fields_of(schema)
    assert fields is not None
    return JsonProjector(fields)


# --- any types and documents ------------------------------------------------------------------


@given(data=st.data(), kind=kinds, chance=st.randoms(use_true_random=False))
def test_plain_documents_leave_nothing_to_the_reference(
    data: st.DataObject, kind: str, chance: random.Random
) -> None:
    record_type, values = data.draw(record_types(kind))
    schema = Schema.of(record_type)
    rows = data.draw(st.lists(values, max_size=6))
    documents: list[bytes | None] = [written(row, chance, odd=False).encode() for row in rows]
    _, uncertain = native(schema).project(documents)
    assert uncertain == []
    assert_same(schema, documents)


@given(data=st.data(), kind=kinds, chance=st.randoms(use_true_random=False))
def test_odd_documents_leave_nothing_to_the_reference(
    data: st.DataObject, kind: str, chance: random.Random
) -> None:
    record_type, values = data.draw(record_types(kind))
    schema = Schema.of(record_type)
    rows = data.draw(st.lists(values, max_size=6))
    extra = {f"{name} more": data.draw(anything) for name in schema.fields}
    documents: list[bytes | None] = [
        written({**extra, **row}, chance, odd=True).encode() for row in rows
    ]
    _, uncertain = native(schema).project(documents)
    assert uncertain == []
    assert_same(schema, documents)


@given(data=st.data(), kind=kinds, chance=st.randoms(use_true_random=False))
def test_spoiled_documents_are_judged_as_by_the_reference(
    data: st.DataObject, kind: str, chance: random.Random
) -> None:
    record_type, values = data.draw(record_types(kind))
    documents: list[bytes | None] = []
    for row in data.draw(st.lists(values, max_size=8)):
        document = written(row, chance, odd=chance.random() < 0.3).encode()
        for _ in range(chance.randrange(3)):
            document = spoiled(document, chance)
        documents.append(document)
    if chance.random() < 0.2:
        documents.insert(0, None)
    assert_same(Schema.of(record_type), documents)


@given(data=st.data(), kind=kinds, chance=st.randoms(use_true_random=False))
def test_values_of_other_types_are_judged_as_by_the_reference(
    data: st.DataObject, kind: str, chance: random.Random
) -> None:
    record_type, values = data.draw(record_types(kind))
    schema = Schema.of(record_type)
    documents: list[bytes | None] = []
    for row in data.draw(st.lists(values, max_size=8)):
        row[chance.choice(list(schema.fields))] = data.draw(anything)
        documents.append(written(row, chance, odd=True).encode())
    assert_same(schema, documents)


@given(text=st.from_regex(rb"\A-?[0-9]{0,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{0,4})?\Z"))
def test_numbers_are_read_as_by_the_reference(text: bytes) -> None:
    documents: list[bytes | None] = [
        ORDER.replace(b"2.5", text),
        ORDER.replace(b":7", b":" + text),
        ORDER.replace(b"}", b',"more":' + text + b"}"),
    ]
    assert_same(Schema.of(Order), documents)


_two_digits = st.integers(0, 62).map("{:02}".format)
_years = st.integers(0, 9999).map("{:04}".format)


@given(
    year=_years,
    clock=st.lists(_two_digits, min_size=5, max_size=5),
    between=st.sampled_from(["T", "T", "T", "t", " ", ""]),
    fraction=st.just("") | st.from_regex(r"\A\.[0-9]{0,8}\Z"),
    zone=st.sampled_from(["Z", "Z", "+00:00", "z", "", "+02:00", "-00:00", "+0000", "-09:30"]),
)
def test_times_are_read_as_by_the_reference(
    year: str, clock: list[str], between: str, fraction: str, zone: str
) -> None:
    month, day, hour, minute, second = clock
    text = f"{year}-{month}-{day}{between}{hour}:{minute}:{second}{fraction}{zone}"
    again = text.replace(":62", ":02")
    assert_same(Schema.of(Visit), [visit(text), visit("2026-02-28T00:00:00Z"), visit(again)])
    assert_same(Schema.of(VisitDict), [visit(text)])


@given(
    parts=st.tuples(_years, _two_digits, _two_digits),
    between=st.sampled_from(["-", "-", "-", "", "/"]),
    rest=st.sampled_from(["", "", " ", "T00:00:00Z", "Z", "0"]),
)
def test_dates_are_read_as_by_the_reference(
    parts: tuple[str, str, str], between: str, rest: str
) -> None:
    text = between.join(parts) + rest
    documents = [f'{{"day":"{each}"}}'.encode() for each in (text, "2026-02-28")]
    assert_same(
        Schema.of(Birth), [*documents, b'{"day":"2024-02-29","others":["0001-01-01",null]}']
    )


@given(
    digits=st.text(st.sampled_from("AQgwYZaz09+/"), max_size=20),
    rest=st.sampled_from(["", "", "", "=", "==", "===", "-", "\\n", " "]),
    escapes=st.booleans(),
)
def test_bytes_are_read_as_by_the_reference(digits: str, rest: str, *, escapes: bool) -> None:
    text = digits + rest
    if escapes:
        text = text.replace("/", "\\/").replace("+", "\\u002B")
    documents = [f'{{"raw":"{each}","parts":[null,"YWJj"]}}' for each in (text, "", "YQ==")]
    assert_same(Schema.of(Blob), [document.encode() for document in documents])


def visit(at: str) -> bytes:
    return f'{{"at":"{at}","left":null,"seen":["{at}"]}}'.encode()


# --- single cases -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        ORDER.replace(b'"ada"', b'"ada","user":"bob"'),
        ORDER.replace(b'"ada"', b'7,"user":"bob"'),
        ORDER.replace(b'"user"', b'"\\u0075ser"'),
        ORDER.replace(b'"ada"', b'"\xff"'),
        ORDER.replace(b'"ada"', b'"ada","\xff":"\xff"'),
        ORDER.replace(b'"ada"', b'"ada","deep":' + b"[" * 100 + b"]" * 100),
        ORDER.replace(b'"ada"', b'"ada","deep":' + b"[" * 5000 + b"]" * 5000),
        ORDER.replace(b":7", b":-9223372036854775808"),
        ORDER.replace(b":7", b":9223372036854775808"),
        ORDER.replace(b"2.5", b"1e999"),
        ORDER.replace(b"2.5", b"-0"),
        ORDER.replace(b"2.5", b"-0.0"),
        ORDER.replace(b"2.5", b"-0e5"),
        ORDER.replace(b"2.5", b"-1e-400"),
        ORDER.replace(b"2.5", b"null"),
        ORDER + b"\x00",
        ORDER + b"\n ",
        ORDER + ORDER,
        b"\xef\xbb\xbf" + ORDER,
        b"[]",
        b"{}",
        b"{",
        b"",
    ],
)
def test_single_documents(document: bytes) -> None:
    assert_same(Schema.of(Order), [ORDER, document, ORDER])


@pytest.mark.parametrize("cut", range(1, len(ORDER)))
def test_a_document_is_not_read_beyond_its_end(cut: int) -> None:
    # In the buffer, the rest of the document is right behind its first part.
    documents = Column.of(pl.Series([ORDER, ORDER[:cut], ORDER[cut:], ORDER]))
    rows, uncertain = native(Schema.of(Order)).project(documents)
    assert uncertain == [1, 2]
    assert len(pl.Series("", rows)) == 2


def test_accepted_and_failed_documents_among_certain_ones_keep_their_places() -> None:
    odd = ORDER.replace(b'"ada"', b'"eve","user":"bob"')
    documents: list[bytes | None] = [odd, ORDER, None, odd, b"{", ORDER, odd]
    assert_same(Schema.of(Order), documents)
    assert_same(Schema.of(Order), [odd, ORDER, odd])
    assert_same(Schema.of(Order), [odd, None])
    assert_same(Schema.of(Order), [None])
    assert_same(Schema.of(Order), [])


def test_defaults_and_nested_values() -> None:
    documents: list[bytes | None] = [
        b'{"name":"ada"}',
        b'{"name":"bob","address":{"city":"Ulm","zip_codes":[]},"tags":["a","\\n"],"score":2}',
        b'{"name":"eve","address":{"zip_codes":[1,2],"city":"Ulm"},"tags":[]}',
        b'{"name":"eve","address":{"city":"Ulm","zip_codes":[1,"2"]}}',
        b'{"name":"eve","address":{"city":"Ulm"},"score":1.0}',
    ]
    assert_same(Schema.of(Person), documents)


def test_defaults_of_dataclasses() -> None:
    whole = b'{"x":1,"y":2,"label":"a"}'
    assert_same(Schema.of(Point), [whole, b'{"x":1}', b'{"y":2}', whole])
    assert_same(Schema.of(Point), [whole, b'{"x":1,"y":3}', b'{"x":1,"y":3,"y":4,"label":null}'])


def test_times_of_rows_are_in_the_zone_that_msgspec_gives() -> None:
    documents: list[bytes | None] = [
        b'{"at":"2026-02-28T23:59:59.25Z","seen":["0001-01-01T00:00:00Z"]}'
    ]
    for record_type in (VisitDict, msgspec.defstruct("Plain", [("at", dt.datetime)])):
        schema = Schema.of(record_type)
        frame = KernelJsonProjector(schema).project(documents).frame
        assert frame is not None
        (row,) = schema.to_rows(frame)
        (want,) = ReferenceJsonProjector(schema).project(documents).rows or []
        assert repr(row) == repr(want)
    assert_same(Schema.of(Visit), documents)


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05", "2026-01-02T03:04:05+02:00", "noon"])
def test_times_that_have_no_column_keep_their_zones(text: str) -> None:
    other = visit("2026-01-02T03:04:05Z")
    assert_same(Schema.of(Visit), [visit(text), other])
    assert_same(Schema.of(Visit), [visit(text)])
    assert_same(Schema.of(Visit), [visit(text), None])


def test_a_projector_leaves_batches_to_the_reference_and_comes_back() -> None:
    schema = Schema.of(Visit)
    projector = KernelJsonProjector(schema)
    reference = ReferenceJsonProjector(schema)
    plain: list[bytes | None] = [visit("2026-01-02T03:04:05Z")] * 2
    naive: list[bytes | None] = [*plain, visit("2026-01-02T03:04:05")]
    columnar = 0
    for documents in [naive] * 300 + [plain] * 300:
        decoded = projector.project(documents)
        assert rows_of(schema, decoded) == reference.project(documents).rows
        columnar += decoded.frame is not None
    # Those that it could read, but the few of its last rest.
    assert 300 - RESTS_MAX <= columnar < 300


def test_fields_that_documents_have_other_names_for() -> None:
    whole = b'{"userName":"ada","a mount":1,"firstAt":null,"user_name":"bob","user":7}'
    _, uncertain = native(Schema.of(Renamed)).project([whole])
    assert uncertain == []
    documents: list[bytes | None] = [
        whole,
        whole.replace(b"null", b'"2026-01-02T03:04:05Z"'),
        whole.replace(b'"firstAt":null,', b""),
        whole.replace(b',"user_name":"bob"', b""),
        whole.replace(b"userName", b"user_name"),
        whole.replace(b"a mount", b"amount"),
        whole.replace(b"ada", b'eve","userName":"ada'),
    ]
    for document in documents:
        assert_same(Schema.of(Renamed), [document])
    assert_same(Schema.of(Renamed), documents)


def test_a_projector_goes_on_as_keys_change_their_order() -> None:
    schema = Schema.of(NamedPoint)
    projector = native(schema)
    for document in (b'{"name":"a","x":1}', b'{"x":2.5,"name":"b"}', b'{ "x" : 3, "name": "c"}'):
        _, uncertain = projector.project([document] * 3)
        assert uncertain == []
    assert_same(schema, [b'{"name":"a","x":1}', b'{"x":2.5,"name":"b"}'])


def test_texts_point_into_the_column_of_documents() -> None:
    product = "tea and biscuits"
    documents = [ORDER, ORDER.replace(b"tea and", b"tea\\u0020and")] * 3
    rows, uncertain = native(Schema.of(Order)).project(Column.of(pl.Series(documents)))
    assert uncertain == []
    frame = pl.Series("", rows).struct.unnest()
    assert frame["product"].to_list() == [product] * 6
    assert frame.schema == pl.Schema(Schema.of(Order).columns)


def test_plain_records_are_read() -> None:
    for record_type in (Order, Person, NamedPoint, Point, Visit, VisitDict, Birth, Blob, Renamed):
        assert projects(Schema.of(record_type))


def test_documents_are_bytes() -> None:
    integers = Column.of(pl.Series([1, 2]))
    with pytest.raises(TypeError, match="documents are bytes"):
        native(Schema.of(Order)).project(integers)
