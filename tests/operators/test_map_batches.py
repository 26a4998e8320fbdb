from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from riverrun.engine.errors import TopologyError
from riverrun.engine.schema import Record, Schema
from riverrun.operators import Topology
from riverrun.operators.map import MapBatches
from tests.operators.harness import Rec, batch_of, run
from tests.operators.records import ORDER, Order


class Priced(Record):
    user: str
    total: float


PRICED = Schema.of(Priced)


def price(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("user", total=pl.col("amount") * 2)


@pytest.mark.parametrize("columnar", [True, False])
def test_the_function_gets_and_gives_columns(columnar: bool) -> None:
    batch = batch_of([Rec(Order("ada", 5.0), 1, "k")], ORDER, columnar=columnar)
    assert run(MapBatches(price, PRICED), batch).results == [Rec(Priced("ada", 10.0), 1, "k")]


def test_columns_become_what_the_record_type_says() -> None:
    def whole(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.select("user", total=pl.lit(3))

    done = run(MapBatches(whole, PRICED), batch_of([Rec(Order("ada", 5.0))], ORDER, columnar=True))
    assert done.values == [Priced("ada", 3.0)]


def test_the_records_that_make_it_raise_are_told_from_the_others() -> None:
    def strict(frame: pl.DataFrame) -> pl.DataFrame:
        if (frame["amount"] < 0).any():
            raise ValueError("negative")
        return price(frame)

    orders = [Rec(Order("ada", float(n))) for n in (1, -1, 2, -2, 3)]
    done = run(MapBatches(strict, PRICED), batch_of(orders, ORDER, columnar=True), policy="skip")
    assert [value.total for value in done.values] == [2.0, 4.0, 6.0]
    assert [error for _, error in done.failed.records] == ["ValueError: negative"] * 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda frame: frame.head(0), "gave 0 rows for 1 records"),
        (lambda frame: frame.to_dicts(), "wants a polars.DataFrame"),
        (lambda frame: frame.select("user"), "lacks total"),
        (lambda frame: frame.with_columns(__time=1), "the engine's own"),
    ],
)
def test_what_the_function_may_not_give(function: Any, message: str) -> None:
    batch = batch_of([Rec(Order("ada", 5.0))], ORDER, columnar=True)
    done = run(MapBatches(function, PRICED), batch, policy="skip")
    ((_, told),) = done.failed.records
    assert message in told


def test_a_stream_takes_it_with_the_type_of_its_rows() -> None:
    topology = Topology("job")
    source = topology.source(topology_topic())
    with pytest.raises(TopologyError, match="is not a record type"):
        source.map_batches(price, returns=int)
    with pytest.raises(TopologyError, match="takes a function"):
        source.map_batches(pl.col("amount"), returns=Priced)  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match="unknown field 'tota'"):
        source.map_batches(price, returns=Priced).key_by("tota")


def topology_topic() -> Any:
    from riverrun.connectors.codecs import Json
    from riverrun.operators import Topic

    return Topic("orders", value=Json(Order))
