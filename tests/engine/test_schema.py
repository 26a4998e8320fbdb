from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any, TypedDict

import polars as pl
import pydantic
import pytest

from riverrun.engine.schema import Record, Schema


class Struct(Record):
    name: str
    count: int
    at: dt.datetime | None = None


class KeywordStruct(Record, kw_only=True):
    name: str
    count: int
    at: dt.datetime | None = None


@dataclasses.dataclass
class Data:
    name: str
    count: int
    at: dt.datetime | None = None


class Mapping(TypedDict):
    name: str
    count: int
    at: dt.datetime | None


class Model(pydantic.BaseModel):
    name: str
    count: int
    at: dt.datetime | None = None


class InnerModel(pydantic.BaseModel):
    numbers: list[int]


class NestedModel(pydantic.BaseModel):
    inner: InnerModel


AT = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize("record_type", [Struct, KeywordStruct, Data, Mapping, Model])
def test_rows_become_columns_and_back(record_type: type[Any]) -> None:
    schema = Schema.of(record_type)
    rows = [
        record_type(name="a", count=1, at=AT),
        record_type(name="b", count=-(2**63), at=None),
    ]
    frame = schema.to_frame(rows)
    assert dict(frame.schema) == {
        "name": pl.String,
        "count": pl.Int64,
        "at": pl.Datetime("us", "UTC"),
    }
    assert frame.get_column("count").to_list() == [1, -(2**63)]
    assert schema.to_rows(frame) == rows
    assert schema.to_rows(schema.to_frame([])) == []


def test_nested_pydantic_models_become_structs_and_back() -> None:
    schema = Schema.of(NestedModel)
    rows = [NestedModel(inner=InnerModel(numbers=[1, 2]))]
    frame = schema.to_frame(rows)
    assert frame.to_dicts() == [{"inner": {"numbers": [1, 2]}}]
    assert schema.to_rows(frame) == rows


def test_a_time_without_zone_is_taken_as_utc() -> None:
    frame = Schema.of(Data).to_frame([Data("a", 1, dt.datetime(2026, 1, 2))])  # noqa: DTZ001
    assert frame.get_column("at").to_list() == [AT]


@pytest.mark.parametrize("record_type", [Data, Mapping])
def test_times_come_back_in_utc_as_msgspec_gives_it(record_type: type[Any]) -> None:
    schema = Schema.of(record_type)
    latest = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)
    times = [dt.datetime(1, 1, 1, tzinfo=dt.UTC), None, AT, latest]
    rows = [record_type(name="a", count=1, at=at) for at in times]
    assert repr(schema.to_rows(schema.to_frame(rows))) == repr(rows)


@pytest.mark.parametrize("count", ["1", 1.5, 2**63])
def test_a_value_that_does_not_fit_names_its_column(count: Any) -> None:
    with pytest.raises(TypeError, match="column 'count' is not Int64"):
        Schema.of(Data).to_frame([Data("a", 1), Data("b", count)])
