from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl
import pytest

from riverrun.engine.inferred import rows_to_frame, to_column

TIME = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "values",
    [
        [1, None, 2],
        [True, None],
        ["a", ""],
        [1.5, None],
        [b"a"],
        [None, None],
        [{"x": 1, "y": "a"}, {"x": None, "y": "b"}],
        [{"x": 1}, None],
        [{"x": {"y": [1]}}, {"x": {"y": []}}],
        [[1], [], None],
        [[{"x": 1}], [{"x": 2}]],
        [TIME, None],
    ],
)
def test_values_of_one_kind_come_back_as_they_were(values: list[Any]) -> None:
    assert to_column("a", values).to_list() == values


@pytest.mark.parametrize("values", [[1, 2.5], [{"x": 1}, {"x": 2.5}], [[1], [2.5]]])
def test_integers_among_floats_are_floats(values: list[Any]) -> None:
    assert to_column("a", values).to_list() == values


@pytest.mark.parametrize(
    "values",
    [
        [1, "1"],
        [1, True],
        [True, "true"],
        [{"x": 1}, "x"],
        [{"x": 1}, {"x": 1, "y": 2}],
        [{"x": 1, "y": 2}, {"y": 2, "x": 1}],
        [{"x": 1}, {"x": "a"}],
        [[1], ["a"]],
        [[1, "a"]],
        [2**53 + 1, 0.5],
        [2**63],
        [object()],
        [{1: "a"}],
    ],
)
def test_values_that_do_not_go_together_are_refused(values: list[Any]) -> None:
    with pytest.raises(TypeError, match="column 'a"):
        to_column("a", values)


def test_rows_of_the_same_fields_are_a_frame() -> None:
    frame = rows_to_frame([{"a": 1, "b": None}, {"b": "x", "a": 2}])
    assert frame.equals(pl.DataFrame({"a": [1, 2], "b": [None, "x"]}))
    assert rows_to_frame([]).is_empty()


def test_rows_of_different_fields_are_no_frame() -> None:
    with pytest.raises(TypeError, match="different fields"):
        rows_to_frame([{"a": 1}, {"b": 1}])
