"""Documents look the same whether or not their records went to another task and into state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

import riverrun as rr
from riverrun.testing import TopologyTestDriver

if TYPE_CHECKING:
    from collections.abc import Callable


class Alias(pydantic.BaseModel):
    k: str
    ali: int = pydantic.Field(0, alias="Ali")


class Extra(pydantic.BaseModel, extra="allow"):
    k: str


class Counted(pydantic.BaseModel):
    k: str
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def add(cls, n: int) -> int:
        return n + 1


class Renamed(msgspec.Struct, rename="camel"):
    k: str
    some_name: int


class Tagged(msgspec.Struct, tag="evt"):
    k: str


class Sparse(msgspec.Struct, omit_defaults=True):
    k: str
    n: int = 0


CASES: list[tuple[type[Any], dict[str, Any], dict[str, Any]]] = [
    (Alias, {"k": "a", "Ali": 7}, {"k": "a", "Ali": 7}),
    (Extra, {"k": "a", "zz": [1]}, {"k": "a", "zz": [1]}),
    (Counted, {"k": "a", "n": 1}, {"k": "a", "n": 2}),
    (Renamed, {"k": "a", "someName": 7}, {"k": "a", "someName": 7}),
    (Tagged, {"type": "evt", "k": "a"}, {"type": "evt", "k": "a"}),
    (Sparse, {"k": "a"}, {"k": "a"}),
]


def _first(first: Any, other: Any) -> Any:
    del other
    return first


STEPS: dict[str, Callable[[Any], Any]] = {
    "copy": lambda stream: stream,
    "key_by": lambda stream: stream.key_by("k", partitions=2),
    "key_by twice": lambda stream: stream.key_by("k", partitions=2).key_by("k", partitions=3),
    "reduce": lambda stream: stream.key_by("k").reduce(_first),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("record_type", "given", "expected"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_documents_keep_their_shape(
    record_type: type[Any], given: dict[str, Any], expected: dict[str, Any], step: str
) -> None:
    topology = rr.Topology("job")
    source: rr.Topic[Any] = rr.Topic("in", value=rr.Json(record_type), partitions=1)
    out: rr.Topic[Any] = rr.Topic("out")
    STEPS[step](topology.source(source)).sink(out)
    with TopologyTestDriver(topology) as driver:
        driver.pipe("in", [given])
        driver.pipe("in", [given])
        values = [record.value for record in driver.read("out")]
    assert values == [expected, expected]


def test_late_records_keep_their_shape() -> None:
    topology = rr.Topology("job")
    source: rr.Topic[Any] = rr.Topic("in", value=rr.Json(Alias), partitions=1)
    out: rr.Topic[Any] = rr.Topic("late")
    stream: Any = topology.source(source, event_time="ali").key_by("k")
    stream.window(rr.Tumbling("10s")).aggregate(count=rr.Count()).late.sink(out)
    with TopologyTestDriver(topology) as driver:
        driver.advance_watermark(10**6)
        driver.pipe("in", [{"k": "a", "Ali": 7}])
        assert [record.value for record in driver.read("late")] == [{"k": "a", "Ali": 7}]
