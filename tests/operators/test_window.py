from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from riverrun.engine.errors import RecordError
from riverrun.operators import window as subject
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
from riverrun.operators.window import Emit, WindowAggregate
from riverrun.operators.windows import Hopping, Tumbling
from tests.operators.harness import BARRIER, RESTART, Rec, Watermark, run
from tests.operators.records import ORDER, Order

TUMBLING = Tumbling(10)
HOPPING = Hopping(10, 5)
LATE = 1


class Users(Aggregate[Any, set[str], list[str]]):
    """The distinct users, an accumulator that only its annotation brings back as a set."""

    def initial(self) -> set[str]:
        return set()

    def add(self, accumulator: set[str], row: Any) -> set[str]:
        accumulator.add(row["user"])
        return accumulator

    def merge(self, left: set[str], right: set[str]) -> set[str]:
        return left | right

    def result(self, accumulator: set[str]) -> list[str]:
        return sorted(accumulator)


def window(
    windows: Tumbling | Hopping = TUMBLING,
    *,
    lateness: int = 0,
    emit: Emit = "final",
    key_names: tuple[str, ...] = ("k",),
    **aggregates: AnyAggregate,
) -> WindowAggregate:
    shape = ResultShape(key_names)
    aggregation = Aggregation(shape, aggregates or {"n": Count(), "total": Sum("v")})
    return WindowAggregate(windows.aligned(), aggregation, lateness, emit)


def reducing(windows: Tumbling | Hopping, function: Any, value_type: Any = Any) -> WindowAggregate:
    shape = ResultShape(("k",))
    aggregation = Aggregation(shape, {}, reduce=function, value_type=value_type)
    return WindowAggregate(windows.aligned(), aggregation)


def at(time: int, v: Any = 1, key: Any = "a") -> Rec:
    return Rec({"v": v, "user": key if isinstance(key, str) else "u"}, time, key)


def row(key: Any, start: int, end: int, **values: Any) -> Rec:
    return Rec({"k": key, "window_start": start, "window_end": end, **values}, end - 1, key)


def by_window(records: list[Rec]) -> list[Rec]:
    """Return results in an order of their own: within a window it is up to the table."""
    return sorted(records, key=lambda record: (record.time, str(record.key)))


# --- tumbling ------------------------------------------------------------------------------------


def test_a_window_is_emitted_when_the_watermark_reaches_its_end() -> None:
    records = [at(0, 1), at(9, 2), at(10, 4)]
    assert run(window(), records, Watermark(9)).results == []
    assert run(window(), records, Watermark(10)).results == [row("a", 0, 10, n=2, total=3)]


def test_each_key_has_its_own_result() -> None:
    done = run(window(), [at(0, 1, "a"), at(1, 2, "b"), at(2, 3, "a")], Watermark(10))
    assert by_window(done.results) == [
        row("a", 0, 10, n=2, total=4),
        row("b", 0, 10, n=1, total=2),
    ]


def test_windows_come_in_order_of_time_and_only_those_with_records() -> None:
    done = run(window(), [at(95), at(1), at(31)], Watermark(1000))
    assert [r.value["window_start"] for r in done.results] == [0, 30, 90]


def test_a_window_is_emitted_once() -> None:
    done = run(window(), at(1), Watermark(10), Watermark(20), at(25), Watermark(30))
    assert [r.value["window_start"] for r in done.results] == [0, 20]


def test_a_window_collects_records_of_many_batches_and_epochs() -> None:
    done = run(window(), at(1), BARRIER, at(2), RESTART, at(3), BARRIER, RESTART, Watermark(10))
    assert done.results == [row("a", 0, 10, n=3, total=3)]


def test_state_of_emitted_windows_is_dropped() -> None:
    done = run(window(), at(1), Watermark(10), BARRIER)
    rows = [key for key, _ in done.store.scan(b"", b"\xff" * 9)]
    assert len(rows) == 1, "only the first open window is still known"


def test_composite_keys_become_columns() -> None:
    operator = window(key_names=("user", "number"))
    done = run(operator, at(1, 5, ("ada", 7)), RESTART, Watermark(10))
    value = {"user": "ada", "number": 7, "window_start": 0, "window_end": 10, "n": 1, "total": 5}
    assert done.results == [Rec(value, 9, ("ada", 7))]


def test_all_built_in_aggregates() -> None:
    operator = window(
        records=Count(),
        present=Count("v"),
        total=Sum("v"),
        mean=Mean("v"),
        low=Min("v"),
        high=Max("v"),
        first=First("v"),
        last=Last("v"),
    )
    records = [at(3, 2.0), at(1, 8.0), at(2, None), at(3, 5.0), at(1, 9.0)]
    done = run(operator, records, Watermark(10))
    assert done.results == [
        row(
            "a", 0, 10,
            records=5, present=4, total=24.0, mean=6.0, low=2.0, high=9.0, first=8.0, last=5.0,
        )
    ]  # fmt: skip


def test_aggregates_of_a_field_that_is_always_null() -> None:
    operator = window(present=Count("v"), total=Sum("v"), mean=Mean("v"), low=Min("v"))
    done = run(operator, [at(1, None)], Watermark(10))
    assert done.results == [row("a", 0, 10, present=0, total=0, mean=None, low=None)]


def test_an_aggregate_of_an_expression() -> None:
    records = [Rec(Order("ada", 2.5, 4), 1, "ada"), Rec(Order("ada", 1.0, 2), 2, "ada")]
    operator = window(total=Sum(pl.col("amount") * pl.col("count")))
    done = run(operator, records, Watermark(10), schema=ORDER)
    assert done.results == [row("ada", 0, 10, total=12.0)]


# --- a user's own aggregates, reduce -------------------------------------------------------------


def test_a_users_own_aggregate_stands_beside_built_in_ones() -> None:
    records = [at(1, 1, "a"), Rec({"v": 2, "user": "x"}, 2, "a"), Rec({"user": "x"}, 3, "a")]
    operator = window(users=Users(), n=Count(), total=Sum("v"), mean=Mean("v"))
    done = run(operator, *records, RESTART, Watermark(10))
    assert done.results == [row("a", 0, 10, users=["a", "x"], n=3, total=3, mean=1.5)]


@pytest.mark.parametrize("windows", [TUMBLING, HOPPING])
def test_python_accumulators_give_what_the_window_table_gives(windows: Any) -> None:
    built_in: dict[str, AnyAggregate] = {
        "records": Count(),
        "present": Count("v"),
        "total": Sum("v"),
        "mean": Mean("v"),
        "low": Min("v"),
        "high": Max("v"),
        "first": First("v"),
        "last": Last("v"),
    }
    script = [
        [at(time, None if time % 5 == 0 else time % 7, key) for time in (3, 1, 14, 8, 20, 3)]
        for key in ("a", "b")
    ]
    table = run(window(windows, **built_in), *script, Watermark(100))
    python = run(window(windows, **built_in, users=Users()), *script, RESTART, Watermark(100))
    for result in python.results:
        del result.value["users"]
    assert by_window(python.results) == by_window(table.results)
    assert len(table.results) > 4


def test_a_record_that_an_own_aggregate_refuses_leaves_no_trace() -> None:
    # Three aggregates of which the last raises: the others must not have counted the record.
    operator = window(n=Count(), users=Users(), strict=_Strict())
    records = [at(1, 1), at(2, -1), at(3, 4)]
    done = run(operator, records, Watermark(10), policy="skip")
    assert done.results == [row("a", 0, 10, n=2, users=["a"], strict=[1, 4])]
    assert done.failed.records == [({"v": -1, "user": "a"}, "ValueError: below zero")]


class _Strict(Aggregate[Any, list[int], list[int]]):
    def initial(self) -> list[int]:
        return []

    def add(self, accumulator: list[int], row: Any) -> list[int]:
        accumulator.append(row["v"])
        if row["v"] < 0:
            raise ValueError("below zero")
        return accumulator

    def merge(self, left: list[int], right: list[int]) -> list[int]:
        return left + right

    def result(self, accumulator: list[int]) -> list[int]:
        return accumulator


def test_a_result_that_cannot_be_computed_is_told_and_the_others_come() -> None:
    class Picky(_Strict):
        def result(self, accumulator: list[int]) -> list[int]:
            return [10 // value for value in accumulator]

    done = run(window(x=Picky()), [at(1, 0, "a"), at(1, 5, "b")], Watermark(10), policy="skip")
    assert done.results == [row("b", 0, 10, x=[2])]
    assert done.failed.records[0][1].startswith("ZeroDivisionError")


def test_reduce_gives_one_value_per_key_and_window() -> None:
    operator = reducing(TUMBLING, lambda a, b: a + b)
    done = run(operator, [Rec(1, 1, "a"), Rec(2, 2, "a")], RESTART, Rec(4, 3, "a"), Watermark(10))
    assert done.results == [Rec(7, 9, "a")]


def test_reduce_brings_records_back_as_their_type() -> None:
    operator = reducing(HOPPING, lambda a, b: max(a, b, key=lambda o: o.amount), Order)
    records = [Rec(Order("ada", 2.0), 1, "k"), Rec(Order("bob", 9.0), 6, "k")]
    done = run(operator, *records, RESTART, Watermark(10))
    assert done.results == [
        Rec(Order("ada", 2.0), 4, "k"),
        Rec(Order("bob", 9.0), 9, "k"),
    ]


def test_reduce_refuses_values_that_would_not_come_back() -> None:
    with pytest.raises(RecordError, match="declare it with type="):
        run(reducing(TUMBLING, max), [Rec(Order("ada", 1.0), 1, "a")])


# --- hopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [{}, {"users": Users()}])
def test_a_record_counts_in_every_window_that_holds_it(own: dict[str, AnyAggregate]) -> None:
    operator = window(HOPPING, n=Count(), total=Sum("v"), **own)
    done = run(operator, [at(3, 1), at(7, 2), at(12, 4)], Watermark(100))
    found = [
        (r.value["window_start"], r.value["window_end"], r.value["n"], r.value["total"])
        for r in done.results
    ]
    assert found == [(-5, 5, 1, 1), (0, 10, 2, 3), (5, 15, 2, 6), (10, 20, 1, 4)]


@pytest.mark.parametrize("own", [{}, {"users": Users()}])
def test_a_restart_between_overlapping_windows_repeats_none(own: dict[str, AnyAggregate]) -> None:
    operator = window(HOPPING, n=Count(), **own)
    script = [at(7), Watermark(10), RESTART, at(12), RESTART, Watermark(15), RESTART, Watermark(99)]
    done = run(operator, *script)
    found = [(r.value["window_start"], r.value["n"]) for r in done.results]
    assert found == [(0, 1), (5, 2), (10, 1)]


def test_a_record_too_late_for_one_window_still_counts_in_the_next() -> None:
    done = run(window(HOPPING), at(7), Watermark(12), at(8), Watermark(99))
    found = [(r.value["window_start"], r.value["n"]) for r in done.results]
    assert found == [(0, 1), (5, 2)]
    assert done.out[LATE] == []


# --- many windows at once ------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [TUMBLING, HOPPING])
@pytest.mark.parametrize("own", [{}, {"users": Users()}])
@pytest.mark.parametrize("windows_max", [2, 10_000])
def test_windows_that_close_together_give_what_they_give_one_by_one(
    windows: Any, own: dict[str, AnyAggregate], windows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_WINDOWS_MAX", windows_max)
    records = [at(time * 37 % 500, time, key) for time in range(60) for key in ("b", "a")]
    one_by_one = [Watermark(ms) for ms in range(0, 600, 5)]
    operator = window(windows, n=Count(), total=Sum("v"), last=Last("v"), **own)
    expected = run(operator, records, *one_by_one)
    done = run(operator, records, Watermark(600))
    assert done.results == expected.results
    assert done.results == sorted(done.results, key=lambda r: (r.time, r.key))
    assert run(operator, records, RESTART, Watermark(600)).results == expected.results
    if windows_max > 2:
        assert len(done.out.batches) == 1


@pytest.mark.parametrize("own", [{}, {"users": Users()}])
def test_records_of_a_window_that_closed_with_many_are_late(own: dict[str, AnyAggregate]) -> None:
    operator = window(n=Count(), **own)
    done = run(operator, [at(5), at(95)], Watermark(50), RESTART, at(45), at(50), Watermark(100))
    assert [r.value["window_start"] for r in done.results] == [0, 50, 90]
    assert [r.time for r in done.out[LATE]] == [45]


@pytest.mark.parametrize("own", [{}, {"users": Users()}])
def test_on_update_emits_each_changed_key_of_each_changed_window_alone(
    own: dict[str, AnyAggregate],
) -> None:
    operator = window(HOPPING, emit="on_update", n=Count(), **own)
    before = [at(1, key="a"), at(6, key="a"), at(1, key="b"), at(41, key="b")]
    done = run(operator, before, BARRIER, [at(41, key="a"), at(7, key="b")])
    found = [(r.value["window_start"], r.key, r.value["n"]) for r in done.results[-4:]]
    assert found == [(0, "b", 2), (5, "b", 1), (35, "a", 1), (40, "a", 1)]


# --- lateness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("columnar", [False, True])
def test_records_of_closed_windows_come_out_of_the_late_port_as_they_are(columnar: bool) -> None:
    late, on_time = at(9, 5, "z"), at(10, 7, "a")
    done = run(window(), at(1), Watermark(10), [late, on_time], Watermark(20), columnar=columnar)
    assert done.out[LATE] == [late]
    assert done.failed.late == 1
    assert done.results[1:] == [row("a", 10, 20, n=1, total=7)]


def test_a_batch_of_late_records_changes_nothing() -> None:
    done = run(window(), Watermark(10), [at(1), at(2)], Watermark(20))
    assert done.results == []
    assert done.out[LATE] == [at(1), at(2)]


def test_allowed_lateness_keeps_a_window_open() -> None:
    script = [at(1), Watermark(14), at(2), Watermark(15), at(3)]
    done = run(window(lateness=5), *script)
    assert done.results == [row("a", 0, 10, n=2, total=2)]
    assert done.out[LATE] == [at(3)]


def test_lateness_is_remembered_over_a_restart() -> None:
    done = run(window(), at(1), Watermark(10), RESTART, at(5))
    assert done.out[LATE] == [at(5)]


def test_the_watermark_of_results_is_behind_by_the_allowed_lateness() -> None:
    done = run(window(lateness=5), at(1))
    assert done.logic.output_watermark_ms(100) == 95


# --- emission on update --------------------------------------------------------------------------


@pytest.mark.parametrize("own", [{}, {"users": Users()}])
def test_on_update_emits_what_a_batch_changed_and_the_final_result(
    own: dict[str, AnyAggregate],
) -> None:
    operator = window(emit="on_update", n=Count(), **own)
    script = [[at(1), at(11), at(2)], [at(3)], Watermark(10), at(12), Watermark(20)]
    done = run(operator, *script)
    found = [(r.value["window_start"], r.value["n"]) for r in done.results]
    assert found == [(0, 2), (10, 1), (0, 3), (0, 3), (10, 2), (10, 2)]


def test_on_update_emits_only_open_windows_of_a_hopping_window() -> None:
    operator = window(HOPPING, emit="on_update", n=Count())
    done = run(operator, Watermark(12), [at(8)], [at(13)])
    found = [(r.value["window_start"], r.value["n"]) for r in done.results]
    assert found == [(5, 1), (5, 2), (10, 1)]


# --- failures ------------------------------------------------------------------------------------


def test_a_value_that_is_no_number_fails_that_record_alone() -> None:
    records = [at(1, 1), at(2, "x"), at(3, 4)]
    done = run(window(), *records, Watermark(10), policy="skip")
    assert done.results == [row("a", 0, 10, n=2, total=5)]
    assert done.failed.records[0][0] == {"v": "x", "user": "a"}
    assert "sum of 'total' needs numbers" in done.failed.records[0][1]


def test_the_policy_fail_stops() -> None:
    with pytest.raises(RecordError, match="needs numbers"):
        run(window(), [at(1, "x")])


def test_the_signature_tells_what_the_state_depends_on() -> None:
    assert window().state_signature == "windows(10,10,0):n=count,total=sum(v)"
    assert window(HOPPING, users=Users()).state_signature == "windows(10,5,0):users=Users"
