from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest

from riverrun.engine.kernel.json_projector import KernelJsonProjector, projects
from riverrun.engine.schema import Record, Schema


class Order(Record):
    user: str


class Renamed(Record, rename="camel"):
    user_name: str


class RenamedInside(Record):
    names: list[Renamed]


class RenamedAround(Record, rename="camel"):
    zip_codes: list[int]


class Tagged(Record, tag=True):
    user: str


class Terse(Record, omit_defaults=True):
    user: str = "ada"


class Row(Record, array_like=True):
    user: str


class Strict(Record, forbid_unknown_fields=True):
    user: str


class Checked(Record):
    user: str

    def __post_init__(self) -> None:
        """Reject the nameless."""


class Bounded(Record):
    size: Annotated[int, msgspec.Meta(gt=0)]


class Free(Record):
    value: Any


class Deep(Record):
    checked: list[Checked]


class Model(pydantic.BaseModel):
    user: str


class Mixed(TypedDict):
    order: Order


class WithMapping(Record):
    prices: dict[str, float]


class Either(Record):
    value: int | str


@pytest.mark.parametrize(
    "record_type",
    [
        *(
            RenamedInside,
            RenamedAround,
            Tagged,
            Terse,
            Row,
            Strict,
            Checked,
            Bounded,
            Free,
            Deep,
            Model,
            Mixed,
            WithMapping,
            Either,
        ),
        TypedDict("Odd", {"a\0b": int}),
        msgspec.defstruct("Empty", []),
        msgspec.defstruct("Wide", [(f"f{index}", int) for index in range(65)]),
        dataclasses.make_dataclass("Made", [("x", int, dataclasses.field(init=False))]),
    ],
)
def test_records_that_say_more_are_left_to_the_reference(record_type: type) -> None:
    schema = Schema.of(record_type)
    assert not projects(schema)
    with pytest.raises(ValueError, match="the kernel does not read"):
        KernelJsonProjector(schema)


def test_plain_dicts_are_left_to_the_reference() -> None:
    assert not projects(Schema(None, {}))
