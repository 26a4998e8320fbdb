from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from riverrun.engine.errors import RecordError
from riverrun.operators.map import FlatMap, Map, MapColumns
from tests.operators.harness import Rec, batch_of, run
from tests.operators.records import ORDER, Order


def test_map_gives_each_record_what_the_function_returns() -> None:
    done = run(Map(lambda n: n + 1), [Rec(1, 10, "a"), Rec(2, 20, "b")])
    assert done.results == [Rec(2, 10, "a"), Rec(3, 20, "b")]


def test_map_reads_columns_as_records_of_their_type() -> None:
    batch = batch_of([Rec(Order("ada", 5.0), 1)], ORDER, columnar=True)
    assert run(Map(lambda order: order.user.upper()), batch).results == [Rec("ADA", 1)]


def test_map_calls_the_function_once_per_record_even_around_failures() -> None:
    calls: list[int] = []

    def function(n: int) -> int:
        calls.append(n)
        return 10 // n

    done = run(Map(function), [Rec(n, n, f"k{n}") for n in (5, 0, 2, 0, 1)], policy="skip")
    assert calls == [5, 0, 2, 0, 1]
    assert done.results == [Rec(2, 5, "k5"), Rec(5, 2, "k2"), Rec(10, 1, "k1")]
    assert [value for value, _ in done.failed.records] == [0, 0]


def test_a_stop_iteration_is_a_failure_of_its_record_and_not_the_end() -> None:
    def function(n: int) -> int:
        if n == 2:
            raise StopIteration
        return n

    done = run(Map(function), [Rec(1), Rec(2), Rec(3)], policy="skip")
    assert done.values == [1, 3]
    assert done.failed.records == [(2, "RuntimeError: the function raised StopIteration")]


def test_a_batch_of_failures_emits_nothing() -> None:
    assert run(Map(lambda n: n / 0), [Rec(1)], policy="skip").results == []


def test_expressions_give_the_columns_they_name() -> None:
    operator = MapColumns((pl.col("user"), (pl.col("amount") * pl.col("count")).alias("total")))
    done = run(operator, [Rec(Order("ada", 2.5, 4), 7, "k")], schema=ORDER)
    assert done.results == [Rec({"user": "ada", "total": 10.0}, 7, "k")]


def test_pl_all_stands_for_the_fields_of_the_value() -> None:
    done = run(MapColumns((pl.all(), pl.lit(1).alias("one"))), [Rec({"a": 5}, 7, "k")])
    assert done.results == [Rec({"a": 5, "one": 1}, 7, "k")]


def test_a_constant_is_given_to_every_record() -> None:
    done = run(MapColumns((pl.lit("x").alias("c"),)), [Rec({"a": 1}, 1), Rec({"a": 2}, 2)])
    assert done.results == [Rec({"c": "x"}, 1), Rec({"c": "x"}, 2)]


def test_an_expression_that_raises_fails_that_record_alone() -> None:
    operator = MapColumns((pl.col("n").cast(pl.Int64),))
    records = [Rec({"n": text}, i) for i, text in enumerate(["1", "x", "3", "4", "y"])]
    done = run(operator, records, policy="skip")
    assert done.results == [Rec({"n": 1}, 0), Rec({"n": 3}, 2), Rec({"n": 4}, 3)]
    assert [value for value, _ in done.failed.records] == [{"n": "x"}, {"n": "y"}]


def test_an_expression_that_gives_more_rows_than_records_is_a_failure() -> None:
    with pytest.raises(RecordError, match="use flat_map"):
        run(MapColumns((pl.col("n").explode(),)), [Rec({"n": [1, 2]})])


def test_rows_that_have_no_columns_fail_one_by_one() -> None:
    done = run(MapColumns((pl.col("n"),)), [Rec({"n": 1}), Rec(object())], policy="skip")
    assert done.values == [{"n": 1}]
    assert "have no columns" in done.failed.records[0][1]


def test_flat_map_gives_zero_or_more_records_for_each() -> None:
    done = run(FlatMap(str.split), [Rec("to be", 1, "x"), Rec("", 2, "y"), Rec("or", 3, "z")])
    assert done.results == [Rec("to", 1, "x"), Rec("be", 1, "x"), Rec("or", 3, "z")]


def test_flat_map_takes_a_generator_and_drops_all_of_one_that_raises() -> None:
    def function(n: int) -> Any:
        yield n
        yield 10 // n

    done = run(FlatMap(function), [Rec(5), Rec(0), Rec(2)], policy="skip")
    assert done.values == [5, 2, 2, 5]
    assert [value for value, _ in done.failed.records] == [0]


def test_flat_map_refuses_text_which_would_be_taken_apart() -> None:
    with pytest.raises(RecordError, match=r"return \[value\] for one"):
        run(FlatMap(lambda text: text), [Rec("abc")])
