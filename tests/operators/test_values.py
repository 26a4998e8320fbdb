from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pydantic
import pytest

from riverrun.engine.errors import TopologyError
from riverrun.engine.schema import Record
from riverrun.operators.values import ValueFormat


class AsRecord(Record):
    a: int
    b: list[str]


@dataclass
class AsDataclass:
    a: int
    b: list[str]


class AsTypedDict(TypedDict):
    a: int
    b: list[str]


class AsModel(pydantic.BaseModel):
    a: int
    b: list[str]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (AsRecord, AsRecord(1, ["x"])),
        (AsDataclass, AsDataclass(1, ["x"])),
        (AsTypedDict, {"a": 1, "b": ["x"]}),
        (AsModel, AsModel(a=1, b=["x"])),
        (set[str], {"x", "y"}),
        (tuple[int, str], (1, "x")),
        (dict[int, float], {1: 2.5}),
        (int | None, None),
        (Any, {"a": [1, 2.5, None, True, b"x"]}),
    ],
)
def test_values_come_back_as_what_they_were(declared: Any, value: Any) -> None:
    form = ValueFormat(declared)
    form.check(value)
    back = form.decode(form.encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [AsRecord(1, []), AsModel(a=1, b=[]), (1, 2), {1}, object()])
def test_values_that_would_come_back_as_something_else_must_be_declared(value: Any) -> None:
    with pytest.raises(TypeError, match="declare it with type="):
        ValueFormat(Any).check(value)


@pytest.mark.parametrize("declared", [object, ValueFormat, range])
def test_types_that_cannot_be_kept_are_refused(declared: Any) -> None:
    with pytest.raises(TopologyError, match="cannot be kept"):
        ValueFormat(declared)
