"""Keys of several types in one batch, window and task: Python and Polars mix some of them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from riverrun.operators.aggregates import AnyAggregate, Count, Sum
from riverrun.operators.aggregation import Aggregation
from riverrun.operators.results import ResultShape
from riverrun.operators.running import RunningAggregate
from riverrun.operators.session import SessionAggregate
from riverrun.operators.window import WindowAggregate
from riverrun.operators.windows import AlignedWindows
from tests.operators.harness import RESTART, Rec, Watermark, run
from tests.operators.test_running import Concat

if TYPE_CHECKING:
    from riverrun.engine.operator import Operator

BUILT_IN: dict[str, AnyAggregate] = {"n": Sum("v"), "c": Count()}
WITH_OWN: dict[str, AnyAggregate] = {**BUILT_IN, "text": Concat()}
TUMBLING = AlignedWindows(10, 10, 0)
HOPPING = AlignedWindows(10, 5, 0)


def operators(aggregation: Aggregation) -> dict[str, Operator]:
    return {
        "tumbling": WindowAggregate(TUMBLING, aggregation),
        "hopping": WindowAggregate(HOPPING, aggregation),
        "session": SessionAggregate(10, aggregation),
        "running": RunningAggregate(aggregation),
    }


KINDS = list(operators(Aggregation(ResultShape(("k",)), BUILT_IN)))
KEYS: list[list[Any]] = [
    [True, 1],
    [1, True],
    [(True, 1), (1, 1), (1, True)],
    [1, "1", True, "true", 0, "", False],
    [b"a", "a"],
    [(1, "a"), ("1", "a")],
    [("a",), ("a", 1)],
    [1 << 63, -1],
]


def keyed(keys: list[Any]) -> list[Rec]:
    return [Rec({"v": 10**at}, 5 + at, key) for at, key in enumerate(keys)]


def sums(records: list[Rec]) -> list[tuple[str, int]]:
    # As text, since True and 1 are equal.
    return sorted({(repr(r.key), r.value["n"]) for r in records})


@pytest.mark.parametrize("between", [None, RESTART])
@pytest.mark.parametrize("aggregates", [BUILT_IN, WITH_OWN], ids=["built-in", "own"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keys", KEYS, ids=str)
def test_each_key_has_results_of_its_own(
    keys: list[Any], kind: str, aggregates: dict[str, AnyAggregate], between: str | None
) -> None:
    operator = operators(Aggregation(ResultShape(("k",)), aggregates))[kind]
    script: list[Any] = [keyed(keys)]
    if between:
        script = [item for record in keyed(keys) for item in (record, between)]
    done = run(operator, *script, Watermark(100))
    assert sums(done.results) == sorted((repr(key), 10**at) for at, key in enumerate(keys))


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_the_key_keep_their_type(kind: str) -> None:
    operator = operators(Aggregation(ResultShape(("k",)), BUILT_IN))[kind]
    done = run(operator, keyed([True, 1, "1"]), Watermark(100))
    assert {repr((r.key, r.value["k"])) for r in done.results} == {
        "(True, True)",
        "(1, 1)",
        "('1', '1')",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_reduce_takes_true_and_one_for_two_keys(kind: str) -> None:
    aggregation = Aggregation(ResultShape(("k",)), {}, reduce=lambda a, b: a + b)
    script = [[Rec("x", 5, True), Rec("y", 5, 1), Rec("z", 5, True)], Watermark(100)]
    done = run(operators(aggregation)[kind], *script)
    assert {(repr(r.key), r.value) for r in done.results} == {("True", "xz"), ("1", "y")}


@pytest.mark.parametrize("windows", [TUMBLING, HOPPING])
def test_updates_of_windows_are_by_type_of_key(windows: AlignedWindows) -> None:
    aggregation = Aggregation(ResultShape(("k",)), BUILT_IN)
    done = run(WindowAggregate(windows, aggregation, emit="on_update"), keyed([True, 1, "1"]))
    assert sums(done.results) == [("'1'", 100), ("1", 10), ("True", 1)]


def test_results_of_one_type_of_key_go_into_columns() -> None:
    operator = WindowAggregate(TUMBLING, Aggregation(ResultShape(("k",)), BUILT_IN))
    done = run(operator, keyed(["b", 2, "a", 1]), Watermark(100))
    assert [batch.keys() for batch in done.out.batches] == [[1, 2], ["a", "b"]]
