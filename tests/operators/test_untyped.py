"""Records without a class: what becomes of one does not depend on the others of its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import riverrun as rr
from riverrun.testing import TopologyTestDriver

if TYPE_CHECKING:
    from collections.abc import Callable

IN: rr.Topic[Any] = rr.Topic("in", partitions=1)
OUT: rr.Topic[Any] = rr.Topic("out")

RECORDS: list[Any] = [
    {"a": 1, "x": 1},
    {"a": 2, "x": "s"},
    {"a": 3, "x": 2.5},
    {"a": 4, "x": [1, "a"]},
    {"a": 5, "x": {"y": 1}},
    {"a": 6, "x": {"z": True}},
    {"a": 7},
]


def come_out(build: Callable[[Any], Any], *batches: list[Any]) -> list[Any]:
    topology = rr.Topology("job")
    build(topology.source(IN)).sink(OUT)
    with TopologyTestDriver(topology) as driver:
        for batch in batches:
            driver.pipe("in", batch)
        return [record.value for record in driver.read("out")]


UNCHANGED: dict[str, Callable[[Any], Any]] = {
    "key_by": lambda stream: stream.key_by(pl.col("a") + 1),
    "key_by a literal": lambda stream: stream.key_by(pl.lit(1)),
    "key_by a field": lambda stream: stream.key_by("a"),
    "filter": lambda stream: stream.filter(pl.col("a") > 0),
    "branch": lambda stream: stream.branch(pl.col("a") > 0)[0],
    "branch, the rest": lambda stream: stream.branch(pl.col("a") < 0)[1],
    "filter, key_by": lambda stream: stream.filter(pl.col("a") > 0).key_by(pl.col("a") % 2),
}


@pytest.mark.parametrize("step", UNCHANGED)
def test_records_go_on_unchanged(step: str) -> None:
    assert come_out(UNCHANGED[step], RECORDS) == RECORDS


def test_map_of_all_fields_gives_each_record_its_own() -> None:
    # A list of several kinds has no column form, with or without company.
    expected = [record for record in RECORDS if record["a"] != 4]
    mapped = come_out(lambda stream: stream.map(pl.all(), on_error="skip"), RECORDS)
    assert mapped == expected


def test_map_gives_its_own_columns_alone() -> None:
    expected = [{"x": record.get("x")} for record in RECORDS if record["a"] != 4]
    mapped = come_out(lambda stream: stream.map(pl.col("x"), on_error="skip"), RECORDS)
    assert mapped == expected
