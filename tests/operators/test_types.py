"""What a type checker knows of a topology; ``assert_type`` does nothing at run time."""

from __future__ import annotations

from typing import Any, assert_type

import polars as pl

from riverrun.connectors.codecs import Json
from riverrun.operators import (
    KeyedStream,
    ProcessContext,
    ProcessFunction,
    Session,
    Stream,
    Sum,
    Topic,
    Topology,
    Tumbling,
    WindowResults,
)
from tests.operators.records import Order


class Alert(ProcessFunction[Order, str]):
    def on_record(self, value: Order, ctx: ProcessContext[str]) -> None:
        count = ctx.state("count", type=int, default=0)
        assert_type(count.get(), int)
        assert_type(ctx.state("last", type=Order).get(), Order | None)
        assert_type(ctx.list_state("names", type=str).get(), list[str])
        assert_type(ctx.map_state("seen", type=int).items(), list[tuple[Any, int]])


async def look_up(order: Order) -> int:
    return order.count


def test_types_flow_from_the_topic_to_the_last_step() -> None:
    topology = Topology("typed")
    orders = topology.source(Topic("orders", value=Json(Order)), event_time="ts")
    assert_type(orders, Stream[Order])
    assert_type(orders.filter(pl.col("amount") > 0), Stream[Order])
    assert_type(orders.map(lambda order: order.user), Stream[str])
    assert_type(orders.flat_map(lambda order: [order.user]), Stream[str])
    assert_type(orders.map(pl.col("user"), x=pl.col("amount")), Stream[dict[str, Any]])
    large, _rest = orders.branch(lambda order: order.amount > 100)
    assert_type(large, Stream[Order])
    keyed = orders.key_by("user")
    assert_type(keyed, KeyedStream[Order])
    assert_type(keyed.filter(lambda order: order.amount > 0), KeyedStream[Order])
    assert_type(keyed.map(lambda order: order.user), KeyedStream[str])
    assert_type(keyed.map_async(look_up), KeyedStream[int])
    assert_type(keyed.union(large.key_by("user")), KeyedStream[Order])
    assert_type(orders.union(keyed), Stream[Order])
    assert_type(keyed.process(Alert()), KeyedStream[str])
    assert_type(keyed.reduce(lambda a, b: a), KeyedStream[Order])
    totals = keyed.window(Tumbling("1m")).aggregate(total=Sum("amount"))
    assert_type(totals, WindowResults[dict[str, Any], Order])
    assert_type(totals.late, KeyedStream[Order])
    largest = keyed.window(Session("1m")).reduce(lambda a, b: max(a, b, key=lambda o: o.amount))
    assert_type(largest, WindowResults[Order, Order])
