"""Mistakes in what the verbs are given, told when the topology is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from riverrun.engine.errors import TopologyError
from riverrun.engine.schema import Record, Schema
from riverrun.operators import (
    Aggregate,
    Count,
    ProcessFunction,
    Session,
    Topic,
    Tumbling,
)
from tests.operators.records import Order, orders

if TYPE_CHECKING:
    from collections.abc import Callable


class Odd(Record):
    user: str
    anything: dict[str, int]


async def wait(order: Order) -> Order:
    return order


# --- mistakes in expressions ---------------------------------------------------------------------


def test_an_unknown_field_is_told_with_the_nearest_one() -> None:
    with pytest.raises(
        TopologyError, match=r"step 'filter-1'.*unknown field 'amout'.*did you mean 'amount'\?"
    ):
        orders().filter(pl.col("amout") > 0)


def test_types_that_do_not_go_together_are_told() -> None:
    with pytest.raises(TopologyError, match=r"step 'map-1': the expression does not fit"):
        orders().map(x=pl.col("user") + pl.col("amount") * pl.col("coupon"))


def test_a_condition_must_be_boolean() -> None:
    with pytest.raises(TopologyError, match=r"gives Float64, not Boolean; compare it"):
        orders().filter(pl.col("amount") + 1)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(TopologyError, match="the expression does not fit"):
        orders().map(pl.col("user"), user=pl.col("coupon"))


@pytest.mark.parametrize("name", ["__time", "__key", "__position"])
def test_the_columns_of_the_engine_cannot_be_set(name: str) -> None:
    with pytest.raises(TopologyError, match="is the engine's own"):
        orders().map(pl.col("user"), pl.col("count").alias(name))


def test_a_field_without_column_form_needs_a_function() -> None:
    def odd(order: Order) -> Odd:
        return Odd("x", {})

    stream = orders().map(odd)
    assert stream.filter(pl.col("user") == "x").schema == Schema.of(Odd)
    with pytest.raises(TopologyError, match="'anything' has no column form; use a Python"):
        stream.filter(pl.col("anything").is_null())


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("amount").sum(),
        pl.col("amount") - pl.col("amount").mean(),
        pl.col("amount").cum_sum(),
        pl.col("amount").shift(1),
        pl.col("user").is_first_distinct(),
        pl.col("amount").rank(),
        pl.col("coupon").fill_null(strategy="forward"),
        pl.col("amount").sum().over("user"),
        pl.col("user").sort(),
        pl.col("user").unique(),
    ],
)
def test_expressions_that_mix_the_records_of_a_batch_are_refused(expression: pl.Expr) -> None:
    with pytest.raises(TopologyError, match="mixes records"):
        orders().map(pl.col("user").alias("kept"), x=expression)


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("user").str.to_uppercase(),
        pl.when(pl.col("amount") > 2).then(pl.lit("large")).otherwise(pl.lit("small")),
        pl.lit(1),
        pl.col("coupon").fill_null("none"),
        pl.sum_horizontal("amount", "count"),
        pl.struct("user", "amount"),
        pl.from_epoch("ts", time_unit="ms"),
        pl.col("user").str.to_date(),
        pl.col("user").str.split(" "),
        pl.col("amount").map_elements(lambda x: divmod(x, 2)[0], return_dtype=pl.Float64),
    ],
)
def test_expressions_over_one_record_are_taken(expression: pl.Expr) -> None:
    assert orders().map(x=expression).schema is not None


# --- mistakes in functions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.map(wait),
        lambda s: s.filter(wait),
        lambda s: s.flat_map(wait),
        lambda s: s.key_by(wait),
        lambda s: s.branch(wait),
        lambda s: s.key_by("user").reduce(wait),
    ],
)
def test_async_functions_are_for_map_async(verb: Callable[[Any], Any]) -> None:
    with pytest.raises(TopologyError, match=r"wait is async; use stream.map_async"):
        verb(orders())


@pytest.mark.parametrize(
    "verb",
    [
        lambda s: s.map(5),
        lambda s: s.map(),
        lambda s: s.map("user"),
        lambda s: s.filter(True),
        lambda s: s.flat_map(pl.col("user")),
        lambda s: s.map(pl.col("user"), lambda o: o),
        lambda s: s.map(x=3),
        lambda s: s.key_by(5),
        lambda s: s.branch(),
        lambda s: s.map_async(lambda o: o),
        lambda s: s.map_async(5),
        lambda s: s.union(),
        lambda s: s.union(5),
        lambda s: s.sink("out"),
        lambda s: s.key_by("user").process(ProcessFunction),
        lambda s: s.key_by("user").window("1m"),
        lambda s: s.key_by("user").window(Tumbling("1m"), allowed_lateness="soon"),
        lambda s: s.key_by("user").window(Tumbling("1m")).aggregate(),
        lambda s: s.key_by("user").window(Tumbling("1m")).aggregate(n=Count),
        lambda s: s.key_by("user").window(Tumbling("1m")).aggregate(n=Count(), emit="often"),
        lambda s: s.key_by("user").aggregate(),
        lambda s: s.filter(lambda o: True, on_error="ignore"),
        lambda s: s.sink(Topic("out"), on_error="ignore"),
        lambda s: s.map_async(wait, in_flight=0),
        lambda s: s.map_async(wait, ordered="no"),
        lambda s: s.map_async(wait, timeout=0),
        lambda s: s.map_async(wait, retry=3),
        lambda s: s.key_by("user", partitions=0),
        lambda s: s.key_by("user", partitions="2"),
        lambda s: s.key_by("user", partitions=1.5),
        lambda s: s.key_by("user", partitions=True),
        lambda s: s.key_by("user").window(Session(10**19)),
    ],
)
def test_arguments_that_make_no_sense_are_refused(verb: Callable[[Any], Any]) -> None:
    with pytest.raises(TopologyError):
        verb(orders())


@pytest.mark.parametrize(
    ("verb", "called"),
    [
        (lambda s: s.window(Tumbling("1m")), "window"),
        (lambda s: s.aggregate(n=Count()), "aggregate"),
        (lambda s: s.reduce(min), "reduce"),
        (lambda s: s.process(ProcessFunction()), "process"),
    ],
)
def test_verbs_for_keyed_streams_say_so_on_others(verb: Callable[[Any], Any], called: str) -> None:
    with pytest.raises(AttributeError, match=rf"has no {called}\(...\).*call key_by\(...\) first"):
        verb(orders())


def test_other_attributes_are_as_unknown_as_anywhere() -> None:
    with pytest.raises(AttributeError, match="'Stream' object has no attribute 'windows'"):
        _ = orders().windows  # type: ignore[attr-defined]  # pyright: ignore


@pytest.mark.parametrize("taken", ["name", "on_error", "emit"])
def test_an_aggregate_called_like_a_parameter_is_told_how_to_be_renamed(taken: str) -> None:
    verb: Any = orders().key_by("user").window(Tumbling("1m")).aggregate
    for aggregates in ({taken: Count()}, {taken: Count(), "n": Count()}):
        with pytest.raises(
            TopologyError, match=rf"{taken}= is a parameter.*pl.col\('other'\).alias\('{taken}'\)"
        ):
            verb(**aggregates)


@pytest.mark.parametrize("windowed", [False, True])
def test_an_aggregate_without_methods_is_refused(windowed: bool) -> None:
    class Half(Aggregate[Any, int, int]):
        def initial(self) -> int:
            return 0

    keyed = orders().key_by("user")
    verb: Any = keyed.window(Tumbling("1m")).aggregate if windowed else keyed.aggregate
    with pytest.raises(TopologyError, match=r"n=Aggregate\(\) does not define initial, add"):
        verb(n=Aggregate())
    with pytest.raises(TopologyError, match=r"n=Half\(\) does not define add, result"):
        verb(n=Half())


def test_a_process_function_without_on_record_is_refused() -> None:
    class Nothing(ProcessFunction[Any, Any]):
        pass

    for function in (ProcessFunction[Any, Any](), Nothing()):
        with pytest.raises(TopologyError, match="does not define on_record"):
            orders().key_by("user").process(function)


@pytest.mark.parametrize("bound", ["window_start", "window_end"])
def test_a_window_of_records_keyed_by_bounds_of_a_window_is_told_how_to_be_had(bound: str) -> None:
    minutes = orders().key_by("user").window(Tumbling("1m")).aggregate(n=Count())
    again = minutes.key_by(bound).window(Tumbling("1h"))
    with pytest.raises(
        TopologyError, match=rf"two columns '{bound}'.*rename the field before key_by.*'earlier_"
    ):
        again.aggregate(n=Count())
    renamed = minutes.map(pl.col(bound).alias("minute"), pl.col("n"))
    renamed.key_by("minute").window(Tumbling("1h")).aggregate(n=Count())
    minutes.key_by(bound).aggregate(n=Count())
