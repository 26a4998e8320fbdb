from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from riverrun.engine.errors import RecordError, TopologyError
from riverrun.engine.schema import Schema
from riverrun.operators.accumulators import Folds
from riverrun.operators.aggregates import (
    Aggregate,
    AnyAggregate,
    Count,
    First,
    Last,
    Max,
    Mean,
    Min,
    Sum,
)
from riverrun.operators.aggregation import Aggregation
from riverrun.operators.results import ResultShape
from riverrun.operators.running import RunningAggregate
from riverrun.operators.session import SessionAggregate
from riverrun.operators.window import WindowAggregate
from riverrun.operators.windows import AlignedWindows
from tests.operators.harness import Rec, Watermark, run
from tests.operators.records import ORDER, Order
from tests.operators.test_running import Concat

if TYPE_CHECKING:
    from riverrun.engine.operator import Operator

SHAPE = ResultShape(("k",))
TUMBLING = AlignedWindows(10, 10)
HOPPING = AlignedWindows(10, 5)
BIG = 1 << 62


class Total(Aggregate[Any, int, int]):
    def initial(self) -> int:
        return 0

    def add(self, accumulator: int, row: Any) -> int:
        return accumulator + row["v"]

    def merge(self, left: int, right: int) -> int:
        return left + right

    def result(self, accumulator: int) -> int:
        return accumulator


class Unmerged(Aggregate[Any, int, int]):
    def initial(self) -> int:
        return 0

    def add(self, accumulator: int, row: Any) -> int:
        return accumulator + 1

    def result(self, accumulator: int) -> int:
        return accumulator


def session(**aggregates: AnyAggregate) -> Operator:
    return SessionAggregate(10, Aggregation(SHAPE, aggregates))


def window(**aggregates: AnyAggregate) -> Operator:
    return WindowAggregate(TUMBLING, Aggregation(SHAPE, aggregates))


def running(**aggregates: AnyAggregate) -> Operator:
    return RunningAggregate(Aggregation(SHAPE, aggregates))


def at(time: int, v: Any, key: Any = "a") -> Rec:
    return Rec({"v": v}, time, key)


OBJECTS = {
    "session": session(s=Sum("v")),
    "session with own": session(s=Sum("v"), text=Concat()),
    "window with own": window(s=Sum("v"), text=Concat()),
    "running with own": running(s=Sum("v"), text=Concat()),
    "window": window(s=Sum("v")),
}


@pytest.mark.parametrize("operator", OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("together", [True, False])
def test_a_sum_beyond_64_bits_is_a_failure_of_the_record(
    operator: Operator, together: bool
) -> None:
    # Two of the big ones are 2**63: one more than fits, though MessagePack would hold it.
    records = [at(1, BIG), at(2, BIG - 1), at(3, 5), at(4, -3), at(1, 7, "b")]
    script = [records] if together else [[record] for record in records]
    done = run(operator, *script, Watermark(100), policy="skip")
    assert [value for value, _ in done.failed.records] == [{"v": 5}]
    assert "aggregate 's'" in done.failed.records[0][1]
    assert {(r.key, r.value["s"]) for r in done.results[-2:]} == {("a", 2 * BIG - 4), ("b", 7)}


@pytest.mark.parametrize("make", [session, window, running])
def test_an_accumulator_that_cannot_be_stored_fails_its_record_alone(make: Any) -> None:
    script = [[at(1, 1), at(2, 1 << 70), at(3, 2)], Watermark(100)]
    done = run(make(t=Total()), *script, policy="skip")
    assert [record.value["t"] for record in done.results] == [3]
    assert done.failed.records[0][1].startswith("OverflowError")
    with pytest.raises(RecordError, match="OverflowError"):
        run(make(t=Total()), *script)


REDUCERS: dict[str, Any] = {
    "session": lambda aggregation: SessionAggregate(10, aggregation),
    "window": lambda aggregation: WindowAggregate(TUMBLING, aggregation),
    "running": RunningAggregate,
}


@pytest.mark.parametrize("make", REDUCERS.values(), ids=REDUCERS)
def test_reduce_beyond_64_bits_is_a_failure_of_the_record(make: Any) -> None:
    operator = make(Aggregation(SHAPE, {}, reduce=lambda a, b: a + b))
    records = [Rec(value, 1, "a") for value in (1, 1 << 65, 2)]
    done = run(operator, records, Watermark(100), policy="skip")
    assert done.values == [3]
    assert [value for value, _ in done.failed.records] == [1 << 65]


WRONG: list[Any] = [5, {"user": "ada", "amount": 1.0}, Order(7, 1.0)]  # type: ignore[arg-type]


@pytest.mark.parametrize("make", REDUCERS.values(), ids=REDUCERS)
@pytest.mark.parametrize("wrong", WRONG, ids=["int", "dict", "field"])
def test_reduce_that_returns_another_type_is_a_failure_of_the_record(make: Any, wrong: Any) -> None:
    def add(a: Order, b: Order) -> Any:
        return wrong if b.amount < 0 else Order(a.user, a.amount + b.amount)

    operator = make(Aggregation(SHAPE, {}, reduce=add, value_type=Order))
    records = [Rec(Order("ada", amount), 1, "a") for amount in (1.0, -1.0, 2.0)]
    done = run(operator, records, Watermark(100), schema=ORDER, policy="skip")
    assert done.values == [Order("ada", 3.0)]
    assert [value for value, _ in done.failed.records] == [Order("ada", -1.0)]
    assert done.failed.records[0][1].startswith("TypeError")


def test_a_session_whose_parts_do_not_merge_refuses_the_record_between_them() -> None:
    script = [[at(1, BIG)], [at(15, BIG)], [at(8, 0)], Watermark(100)]
    done = run(session(s=Sum("v")), *script, policy="skip")
    assert [record.value["s"] for record in done.results] == [BIG, BIG]
    assert [value for value, _ in done.failed.records] == [{"v": 0}]


@pytest.mark.parametrize("more", [{}, {"t": Concat()}], ids=["built-in", "own"])
def test_a_window_whose_slices_do_not_merge_is_a_failure_of_its_own(
    more: dict[str, AnyAggregate],
) -> None:
    operator = WindowAggregate(HOPPING, Aggregation(SHAPE, {"s": Sum("v"), **more}))
    done = run(operator, [at(1, BIG), at(6, BIG), at(6, 1, "b")], Watermark(100), policy="skip")
    assert [(r.key, r.value["window_start"]) for r in done.results] == [
        ("a", -5), ("b", 0), ("a", 5), ("b", 5),
    ]  # fmt: skip
    assert [value for value, _ in done.failed.records] == [{"key": "a"}]


def test_an_update_of_a_window_whose_slices_do_not_merge_is_a_failure_of_its_own() -> None:
    operator = WindowAggregate(HOPPING, Aggregation(SHAPE, {"s": Sum("v")}), emit="on_update")
    done = run(operator, [at(1, BIG), at(6, BIG), at(6, 1, "b")], policy="skip")
    assert [(r.key, r.value["window_start"]) for r in done.results] == [
        ("a", -5), ("b", 0), ("a", 5), ("b", 5),
    ]  # fmt: skip
    assert [value for value, _ in done.failed.records] == [{"key": "a"}]


TEMPORAL = {
    "duration": pl.duration(milliseconds=pl.col("v")),
    "time": pl.col("v").cast(pl.Time),
    "date": pl.col("v").cast(pl.Date),
    "naive": pl.col("v").cast(pl.Datetime("ms")),
    "aware": pl.col("v").cast(pl.Datetime("ms", "UTC")),
    "decimal": pl.col("v").cast(pl.Decimal(10, 2)),
}


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("expression", TEMPORAL.values(), ids=TEMPORAL)
@pytest.mark.parametrize("kind", ["session", "own"])
def test_values_that_messagepack_has_no_form_of_come_back(
    expression: pl.Expr, typed: bool, kind: str
) -> None:
    aggregates: dict[str, AnyAggregate] = {
        "low": Min(expression), "high": Max(expression),
        "first": First(expression), "last": Last(expression),
    }  # fmt: skip
    dtype = pl.LazyFrame(schema={"v": pl.Int64}).select(expression).collect_schema().dtypes()[0]
    types = dict.fromkeys(aggregates, dtype) if typed else None
    if kind == "own":
        aggregates["text"] = Concat()
    aggregation = Aggregation(SHAPE, aggregates, input_types=types)
    operator = (
        SessionAggregate(10, aggregation)
        if kind == "session"
        else WindowAggregate(TUMBLING, aggregation)
    )
    done = run(operator, [at(1, 20)], [at(2, 10)], [at(3, 30)], Watermark(100))
    expected = pl.DataFrame({"v": [20, 10, 30]}).select(expression).to_series().to_list()
    found = done.results[0].value
    assert [found[name] for name in ("first", "low", "high", "last")] == [
        expected[0], expected[1], expected[2], expected[2],
    ]  # fmt: skip


def test_a_duration_is_smallest_of_several_batches() -> None:
    aggregation = Aggregation(SHAPE, {"low": Min(TEMPORAL["duration"])})
    done = run(SessionAggregate(10, aggregation), at(1, 20), at(2, 10), Watermark(100))
    assert done.results[0].value["low"] == dt.timedelta(milliseconds=10)


@pytest.mark.parametrize(
    "build",
    [
        lambda aggregation: SessionAggregate(10, aggregation),
        lambda aggregation: WindowAggregate(HOPPING, aggregation),
    ],
)
def test_an_aggregate_without_merge_is_refused_where_it_is_needed(build: Any) -> None:
    with pytest.raises(
        TopologyError, match=r"own=Unmerged.*needed for hopping and session windows"
    ):
        build(Aggregation(SHAPE, {"own": Unmerged(), "n": Count()}))


def test_an_aggregate_without_merge_does_for_tumbling_windows() -> None:
    done = run(window(own=Unmerged()), [at(1, 1), at(2, 1)], Watermark(100))
    assert [record.value["own"] for record in done.results] == [2]


@pytest.mark.parametrize("kind", ["session", "window", "own"])
def test_a_sum_of_nothing_is_of_the_type_of_the_column(kind: str) -> None:
    aggregates: dict[str, AnyAggregate] = {"f": Sum("f"), "i": Sum("i"), "m": Mean("f")}
    types: dict[str, pl.DataType] = {"f": pl.Float64(), "i": pl.Int64(), "m": pl.Float64()}
    if kind == "own":
        aggregates["n"] = Unmerged()
    aggregation = Aggregation(SHAPE, aggregates, input_types=types)
    operator = (
        SessionAggregate(10, aggregation)
        if kind == "session"
        else WindowAggregate(TUMBLING, aggregation)
    )
    schema = Schema(None, {"f": pl.Float64(), "i": pl.Int64()})
    done = run(operator, [Rec({"f": None, "i": None}, 1, "a")], Watermark(100), schema=schema)
    found = done.results[0].value
    assert repr((found["f"], found["i"], found["m"])) == "(0.0, 0, None)"


@pytest.mark.parametrize("make", [session, window, running])
def test_one_bad_record_takes_no_other_with_it(make: Any) -> None:
    records = [*(at(1, n, f"good{n}") for n in range(5)), at(1, "x", "bad")]
    done = run(make(s=Sum("v"), m=Mean("v")), records, Watermark(100), policy="skip")
    assert sorted((r.key, r.value["s"]) for r in done.results) == [
        (f"good{n}", n) for n in range(5)
    ]
    assert [value for value, _ in done.failed.records] == [{"v": "x"}]


def test_a_value_stored_before_values_were_tagged_comes_back() -> None:
    folds = Folds({"first": First("v")}, {})
    assert folds.decode(b"\x91\x92\x05\xa1x") == [(5, "x")]
