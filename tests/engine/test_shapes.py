from __future__ import annotations

import dataclasses
import datetime as dt  # noqa: TC003 - pydantic reads it
from typing import Any, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from riverrun.engine.schema import Record, Schema


class Plain(Record):
    a_b: int


@dataclasses.dataclass
class Data:
    inner: Plain
    many: list[Plain]


class Mapping(TypedDict):
    a: int


class Model(pydantic.BaseModel):
    a: int = pydantic.Field(gt=0)
    at: dt.datetime | None = None


class Renamed(msgspec.Struct, rename="camel"):
    a_b: int


class Tagged(msgspec.Struct, tag="evt"):
    a: int


class Sparse(msgspec.Struct, omit_defaults=True):
    a: int = 0


class Array(msgspec.Struct, array_like=True):
    a: int


class Holder(Record):
    inner: list[Renamed] | None


class Partial(TypedDict):
    a: NotRequired[int]


class Alias(pydantic.BaseModel):
    a: int = pydantic.Field(alias="A")


class Extra(pydantic.BaseModel, extra="allow"):
    a: int


class Computed(pydantic.BaseModel):
    a: int

    @pydantic.computed_field
    def twice(self) -> int:
        return self.a * 2


class Serialized(pydantic.BaseModel):
    a: int

    @pydantic.field_serializer("a")
    def as_text(self, a: int) -> str:
        return str(a)


class Excluded(pydantic.BaseModel):
    a: int = pydantic.Field(0, exclude=True)


class ModelHolder(pydantic.BaseModel):
    inner: Alias


@pytest.mark.parametrize("record_type", [Plain, Data, Mapping, Model])
def test_columns_of_plain_classes_are_whole(record_type: type[Any]) -> None:
    assert Schema.of(record_type).columns_are_whole


@pytest.mark.parametrize(
    "record_type",
    [
        Renamed,
        Tagged,
        Sparse,
        Array,
        Holder,
        Partial,
        Alias,
        Extra,
        Computed,
        Serialized,
        Excluded,
        ModelHolder,
    ],
)
def test_columns_of_other_classes_are_not(record_type: type[Any]) -> None:
    assert not Schema.of(record_type).columns_are_whole
