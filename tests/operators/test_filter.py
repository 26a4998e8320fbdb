from __future__ import annotations

import polars as pl
import pytest

from riverrun.engine.errors import RecordError
from riverrun.operators.filter import Filter
from tests.operators.harness import Rec, batch_of, run
from tests.operators.records import ORDER, Order

LARGE = Order("ada", 5.0)
SMALL = Order("bob", 1.0)


def test_an_expression_keeps_the_records_for_which_it_holds() -> None:
    done = run(Filter(pl.col("amount") > 2), [Rec(LARGE, 1), Rec(SMALL, 2)], schema=ORDER)
    assert done.results == [Rec(LARGE, 1)]


def test_a_function_keeps_the_records_for_which_it_holds() -> None:
    done = run(Filter(lambda order: order.amount > 2), [Rec(SMALL, 1, "b"), Rec(LARGE, 2, "a")])
    assert done.results == [Rec(LARGE, 2, "a")]


def test_null_counts_as_false() -> None:
    records = [Rec(Order("ada", 1.0, coupon="X")), Rec(Order("bob", 1.0))]
    done = run(Filter(pl.col("coupon") == "X"), records, schema=ORDER)
    assert [order.user for order in done.values] == ["ada"]


def test_a_field_that_no_record_has_is_null() -> None:
    assert run(Filter(pl.col("coupon") == "X"), [Rec({"user": "ada"})]).results == []


def test_rows_without_schema_come_out_as_they_came_in() -> None:
    records = [Rec({"a": 1}), Rec({"a": 2, "b": 3}), Rec({"a": 0})]
    assert run(Filter(pl.col("a") > 0), records).values == [{"a": 1}, {"a": 2, "b": 3}]


def test_the_batch_itself_goes_on_where_nothing_is_dropped() -> None:
    batch = batch_of([Rec(LARGE), Rec(LARGE)], ORDER, columnar=True)
    assert run(Filter(pl.col("amount") > 2), batch).out.batches == [batch]
    assert run(Filter(lambda order: True), batch).out.batches == [batch]


def test_columns_stay_columns() -> None:
    batch = batch_of([Rec(LARGE), Rec(SMALL)], ORDER, columnar=True)
    out = run(Filter(pl.col("amount") > 2), batch).out
    assert out.had_rows == [False]
    assert out.batches[0].schema is ORDER


def test_a_function_that_raises_fails_that_record_alone() -> None:
    records = [Rec({"n": 1}), Rec({}), Rec({"n": 0}), Rec({"n": 3})]
    done = run(Filter(lambda row: row["n"] > 0), records, policy="skip")
    assert done.values == [{"n": 1}, {"n": 3}]
    assert done.failed.records == [({}, "KeyError: 'n'")]


def test_an_expression_that_raises_fails_that_record_alone() -> None:
    records = [Rec({"n": "1"}), Rec({"n": "x"}), Rec({"n": "0"}), Rec({"n": "3"})]
    done = run(Filter(pl.col("n").cast(pl.Int64) > 0), records, policy="skip")
    assert done.values == [{"n": "1"}, {"n": "3"}]
    assert [value for value, _ in done.failed.records] == [{"n": "x"}]


def test_the_policy_fail_stops_at_the_first_record() -> None:
    with pytest.raises(RecordError, match="KeyError"):
        run(Filter(lambda row: row["n"]), [Rec({"n": 1}), Rec({})])


def test_a_condition_that_turns_out_to_be_a_number_is_a_failure() -> None:
    with pytest.raises(RecordError, match="not Boolean"):
        run(Filter(pl.col("a") + 1), [Rec({"a": 1})])


def test_a_value_that_refuses_to_be_true_or_false_is_a_failure() -> None:
    done = run(Filter(lambda row: pl.col("a")), [Rec({"a": 1})], policy="skip")
    assert len(done.failed.records) == 1
