from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from riverrun.engine.errors import RecordError
from riverrun.operators.key_by import KeyBy
from tests.operators.harness import Rec, batch_of, run
from tests.operators.records import ORDER, Order


@pytest.mark.parametrize("columnar", [False, True])
def test_a_field_is_the_key(columnar: bool) -> None:
    order = Order("ada", 1.0)
    done = run(KeyBy(("user",)), [Rec(order, 5, "old")], schema=ORDER, columnar=columnar)
    assert done.results == [Rec(order, 5, "ada")]


@pytest.mark.parametrize("columnar", [False, True])
def test_several_fields_are_a_composite_key(columnar: bool) -> None:
    order = Order("ada", 1.0, 3)
    done = run(KeyBy(("user", "count")), [Rec(order)], schema=ORDER, columnar=columnar)
    assert done.results == [Rec(order, 0, ("ada", 3))]


def test_an_expression_is_the_key() -> None:
    done = run(KeyBy(pl.col("user").str.to_uppercase()), [Rec({"user": "ada"})])
    assert done.results == [Rec({"user": "ada"}, 0, "ADA")]


def test_a_function_is_the_key() -> None:
    done = run(KeyBy(lambda row: (row["a"], row["b"])), [Rec({"a": 1, "b": "x"})])
    assert done.results == [Rec({"a": 1, "b": "x"}, 0, (1, "x"))]


def test_small_integers_are_the_same_keys_as_large_ones() -> None:
    frame = batch_of([Rec({"n": 7})], columnar=True).frame().with_columns(pl.col("n").cast(pl.Int8))
    batch = batch_of([Rec({"n": 7})]).with_frame(frame)
    (record,) = run(KeyBy(("n",)), batch).results
    assert record.key == 7


@pytest.mark.parametrize("columnar", [False, True])
@pytest.mark.parametrize("key", [("coupon",), ("user", "coupon")])
def test_a_record_without_a_key_is_a_failure(key: tuple[str, ...], columnar: bool) -> None:
    records = [Rec(Order("ada", 1.0)), Rec(Order("bob", 2.0, coupon="X"), 5)]
    done = run(KeyBy(key), records, schema=ORDER, columnar=columnar, policy="skip")
    assert [record.value.user for record in done.results] == ["bob"]
    ((value, reason),) = done.failed.records
    assert value.user == "ada"
    assert reason.startswith("ValueError: the record has no key")


@pytest.mark.parametrize("columnar", [False, True])
def test_only_records_without_a_key_give_nothing(columnar: bool) -> None:
    records = [Rec(Order("ada", 1.0))]
    done = run(KeyBy(("coupon",)), records, schema=ORDER, columnar=columnar, policy="skip")
    assert done.results == []


def test_a_function_that_returns_no_key_is_a_failure() -> None:
    with pytest.raises(RecordError, match="the key function returned None"):
        run(KeyBy(lambda row: None), [Rec({})])


@pytest.mark.parametrize("key", [1.5, ["a"], {"a": 1}, (), (b"x",), ("a", None), object()])
def test_a_key_without_exact_bytes_is_a_failure(key: Any) -> None:
    with pytest.raises(RecordError, match="keys are str, int, bool, bytes or tuples"):
        run(KeyBy(lambda row: key), [Rec({})])


@pytest.mark.parametrize("columnar", [False, True])
def test_a_field_without_exact_bytes_is_a_failure(columnar: bool) -> None:
    with pytest.raises(RecordError, match="keys are text, integers, booleans or bytes"):
        run(KeyBy(("amount",)), [Rec({"amount": 1.5})], columnar=columnar)


def test_rows_without_schema_come_out_as_they_came_in() -> None:
    rows = [{"k": "a"}, {"k": "b", "more": 1}]
    assert run(KeyBy(("k",)), [Rec(row) for row in rows]).values == rows
    assert run(KeyBy(pl.col("k") + "!"), [Rec(row) for row in rows]).values == rows


@pytest.mark.parametrize(
    "bad", [2**63, -(2**63) - 1, "\ud800", ("ada", 2**63), ("a\udfff", 1), (), ((1,),)]
)
def test_a_key_without_bytes_is_a_failure_of_its_record(bad: Any) -> None:
    good: list[Any] = [2**63 - 1, -(2**63), True, "\N{GREEK SMALL LETTER PI}", (1, "x", False)]
    for key in good:
        records = [Rec({"n": 0}), Rec({"n": 1})]
        done = run(KeyBy(lambda row, key=key: (bad, key)[row["n"]]), records, policy="skip")
        assert done.results == [Rec({"n": 1}, 0, key)]
        assert [why for _, why in done.failed.records] == [
            f"TypeError: the key function returned {bad!r}; keys are str, int, bool, bytes or "
            "tuples of them, text in Unicode and integers in 64 bits"
        ]


def test_an_integer_field_beyond_64_bits_is_a_failure_of_its_record() -> None:
    done = run(KeyBy(("n",)), [Rec({"n": 2**63}), Rec({"n": 1})], policy="skip")
    assert done.results == [Rec({"n": 1}, 0, 1)]
    assert [value for value, _ in done.failed.records] == [{"n": 2**63}]
