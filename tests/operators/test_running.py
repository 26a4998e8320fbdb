from __future__ import annotations

from typing import Any

import pytest

from riverrun.operators.aggregates import Aggregate, AnyAggregate, Count, Max, Sum
from riverrun.operators.aggregation import Aggregation
from riverrun.operators.results import ResultShape
from riverrun.operators.running import RunningAggregate
from tests.operators.harness import BARRIER, RESTART, Rec, run
from tests.operators.records import ORDER, Order


class Concat(Aggregate[Any, str, str]):
    def initial(self) -> str:
        return ""

    def add(self, accumulator: str, row: Any) -> str:
        return accumulator + str(row["v"])

    def merge(self, left: str, right: str) -> str:
        return left + right

    def result(self, accumulator: str) -> str:
        return accumulator


def running(**aggregates: AnyAggregate) -> RunningAggregate:
    return RunningAggregate(Aggregation(ResultShape(("k",)), aggregates))


def reducing(function: Any, value_type: Any = Any) -> RunningAggregate:
    aggregation = Aggregation(ResultShape(("k",)), {}, reduce=function, value_type=value_type)
    return RunningAggregate(aggregation)


def at(time: int, v: Any, key: Any = "a") -> Rec:
    return Rec({"v": v}, time, key)


def by_key(records: list[Rec]) -> list[Rec]:
    return sorted(records, key=lambda record: str(record.key))


def test_each_batch_gives_the_new_values_of_its_keys() -> None:
    operator = running(n=Count(), total=Sum("v"))
    done = run(operator, [at(1, 1), at(5, 2), at(3, 4)], [at(2, 8)])
    assert done.results == [
        Rec({"k": "a", "n": 3, "total": 7}, 5, "a"),
        Rec({"k": "a", "n": 4, "total": 15}, 2, "a"),
    ]


def test_keys_that_a_batch_does_not_touch_are_not_emitted() -> None:
    done = run(running(n=Count()), [at(1, 1, "a"), at(1, 1, "b")], [at(2, 1, "b")])
    assert by_key(done.results[:2]) == [
        Rec({"k": "a", "n": 1}, 1, "a"),
        Rec({"k": "b", "n": 1}, 1, "b"),
    ]
    assert done.results[2:] == [Rec({"k": "b", "n": 2}, 2, "b")]


@pytest.mark.parametrize("pause", [BARRIER, RESTART])
def test_values_survive(pause: str) -> None:
    operator = running(n=Count(), high=Max("v"), text=Concat())
    done = run(operator, at(1, 7), pause, at(2, 3), pause, at(3, 5))
    assert done.values[-1] == {"k": "a", "n": 3, "high": 7, "text": "735"}


def test_composite_keys() -> None:
    done = run(RunningAggregate(Aggregation(ResultShape(("x", "y")), {"n": Count()})),
               [at(1, 1, ("p", 1)), at(2, 1, ("p", 2))])  # fmt: skip
    assert by_key(done.results) == [
        Rec({"x": "p", "y": 1, "n": 1}, 1, ("p", 1)),
        Rec({"x": "p", "y": 2, "n": 1}, 2, ("p", 2)),
    ]


def test_reduce_combines_whatever_the_values_are() -> None:
    done = run(
        reducing(lambda a, b: a + b), [Rec(1, 1, "a"), Rec(2, 4, "a")], RESTART, Rec(4, 2, "a")
    )
    assert done.results == [Rec(3, 4, "a"), Rec(7, 2, "a")]


def test_reduce_keeps_records_of_a_declared_type() -> None:
    operator = reducing(lambda a, b: Order(a.user, a.amount + b.amount), Order)
    script = [Rec(Order("ada", 1.0), 1, "a"), RESTART, Rec(Order("ada", 2.5), 2, "a")]
    done = run(operator, *script, schema=ORDER, columnar=True)
    assert done.values == [Order("ada", 1.0), Order("ada", 3.5)]


def test_a_function_that_raises_keeps_the_value_of_before() -> None:
    done = run(reducing(lambda a, b: a // b), *[Rec(n, n, "a") for n in (8, 0, 2)], policy="skip")
    assert done.values == [8, 4]
    assert [value for value, _ in done.failed.records] == [0]
