"""What every operator does, however its records come. Run by tests/operators/test_contract.py.

Each case is run as it is written, one record at a time, with a barrier or a restart after each
record, and with its batches as rows and as columns. All must give the same output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from riverrun.operators.aggregates import Aggregate, Count, First, Last, Max, Mean, Min, Sum
from riverrun.operators.aggregation import Aggregation
from riverrun.operators.branch import Branch
from riverrun.operators.filter import Filter
from riverrun.operators.key_by import KeyBy
from riverrun.operators.map import FlatMap, Map, MapColumns
from riverrun.operators.process import Process, ProcessContext, ProcessFunction
from riverrun.operators.results import ResultShape
from riverrun.operators.running import RunningAggregate
from riverrun.operators.session import SessionAggregate
from riverrun.operators.union import Union
from riverrun.operators.window import WindowAggregate
from riverrun.operators.windows import Hopping, Tumbling
from tests.operators.harness import Rec, Watermark
from tests.operators.records import Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.operator import Operator


@dataclass(frozen=True)
class OperatorCase:
    """An operator, and a script for it.

    Attributes:
        name: What it is called in reports.
        operator: The operator.
        script: Batches and watermarks.
        any_order: Whether results of one time may come in any order: that of the table.
        by_batch: Whether it emits per batch, so that only the last value of each key is the same
            however records are batched.
    """

    name: str
    operator: Operator
    script: list[list[Rec] | Watermark] = field(default_factory=lambda: SCRIPT)
    any_order: bool = False
    by_batch: bool = False


class Spread(Aggregate[Order, list[float], float]):
    """Largest amount less smallest, the slow way: an accumulator that is changed in place."""

    def initial(self) -> list[float]:
        return []

    def add(self, accumulator: list[float], row: Order) -> list[float]:
        accumulator.append(row.amount)
        return accumulator

    def merge(self, left: list[float], right: list[float]) -> list[float]:
        return left + right

    def result(self, accumulator: list[float]) -> float:
        return max(accumulator) - min(accumulator)


class Reminders(ProcessFunction[Order, Any]):
    """Uses every kind of state and timer."""

    def on_record(self, value: Order, ctx: ProcessContext[Any]) -> None:
        latest = ctx.state("latest", type=Order)
        amounts = ctx.list_state("amounts", type=float)
        counts = ctx.map_state("counts", type=int)
        before = latest.get()
        if before is not None:
            ctx.delete_timer(before.ts + 15)
        latest.set(value)
        amounts.add(value.amount)
        counts.put(value.count, (counts.get(value.count) or 0) + 1)
        ctx.timer_at(value.ts + 15)
        ctx.emit((value.user, amounts.get(), counts.items()))

    def on_timer(self, time_ms: int, ctx: ProcessContext[Any]) -> None:
        ctx.emit(("silent", ctx.key, time_ms))
        ctx.state("latest", type=Order).clear()
        if time_ms % 2:
            ctx.timer_at(time_ms + 1)


def _orders(*records: tuple[str, float, int, int]) -> list[Rec]:
    return [Rec(Order(user, amount, count, ts), ts, user) for user, amount, count, ts in records]


SCRIPT: list[list[Rec] | Watermark] = [
    _orders(("ada", 2.0, 1, 3), ("bob", 4.0, 2, 1), ("ada", 8.0, 1, 12)),
    Watermark(5),
    _orders(("ada", 16.0, 3, 7), ("cyd", 0.5, 1, 14), ("bob", 1.0, 2, 21), ("ada", 0.0, 1, 3)),
    Watermark(16),
    _orders(("ada", 32.0, 1, 4), ("bob", 64.0, 5, 22), ("bob", 3.0, 2, 18)),
    Watermark(31),
    _orders(("cyd", 7.0, 7, 40), ("ada", 9.0, 1, 33)),
    Watermark(200),
]

_SHAPE = ResultShape(("user",))
_BUILT_IN = Aggregation(
    _SHAPE,
    {
        "n": Count(),
        "total": Sum("amount"),
        "pieces": Sum(pl.col("count") * 2),
        "mean": Mean("amount"),
        "low": Min("amount"),
        "high": Max("user"),
        "first": First("amount"),
        "last": Last("amount"),
    },
)
_OWN = Aggregation(_SHAPE, {"n": Count(), "spread": Spread(), "last": Last("amount")})
_REDUCE = Aggregation(
    _SHAPE, {}, reduce=lambda a, b: Order(a.user, a.amount + b.amount, b.count), value_type=Order
)


def _fail_for_bob(order: Order) -> Order:
    if order.user == "bob":
        raise ValueError("not for bob")
    return order


CASES = [
    OperatorCase("filter by expression", Filter(pl.col("amount") > 2)),
    OperatorCase("filter by function", Filter(lambda order: order.amount > 2)),
    OperatorCase("map", Map(lambda order: (order.user, order.amount * 2))),
    OperatorCase("map with failures", Map(_fail_for_bob)),
    OperatorCase("map by expressions", MapColumns((pl.col("user"), pl.col("amount") * 2))),
    OperatorCase(
        "map by expressions with failures",
        MapColumns(
            (pl.col("user"), pl.col("user").replace_strict({"ada": 1, "cyd": 2}).alias("n"))
        ),
    ),
    OperatorCase("flat map", FlatMap(lambda order: [order.user] * (order.count - 1))),
    OperatorCase("key by field", KeyBy(("count",))),
    OperatorCase("key by fields", KeyBy(("user", "count"))),
    OperatorCase("key by function", KeyBy(lambda order: order.user * 2)),
    OperatorCase("key by expression", KeyBy(pl.col("user").str.to_uppercase())),
    OperatorCase("union", Union()),
    OperatorCase("branch", Branch((pl.col("amount") > 8, lambda order: order.user == "ada"))),
    *[
        OperatorCase(f"{window}, {what}", make(aggregation), any_order=True)
        for window, make in [
            ("tumbling", lambda a: WindowAggregate(Tumbling(10).aligned(), a)),
            ("tumbling, lateness", lambda a: WindowAggregate(Tumbling(10).aligned(), a, 7)),
            ("hopping", lambda a: WindowAggregate(Hopping(10, 4).aligned(), a)),
            ("hopping, lateness", lambda a: WindowAggregate(Hopping(10, 4).aligned(), a, 7)),
            ("session", lambda a: SessionAggregate(6, a)),
            ("session, lateness", lambda a: SessionAggregate(6, a, 7)),
        ]
        for what, aggregation in [("built-in", _BUILT_IN), ("own", _OWN), ("reduce", _REDUCE)]
    ],
    OperatorCase("running built-in", RunningAggregate(_BUILT_IN), by_batch=True),
    OperatorCase("running own", RunningAggregate(_OWN), by_batch=True),
    OperatorCase("running reduce", RunningAggregate(_REDUCE), by_batch=True),
    OperatorCase("process", Process(Reminders())),
]


def one_by_one(script: list[Any], *, after_each: list[str] | None = None) -> list[Any]:
    """Return a script with each record in a batch of its own, and something after each step."""
    steps: list[Any] = []
    for item in script:
        for step in [[record] for record in item] if isinstance(item, list) else [item]:
            steps.extend([step, *(after_each or [])])
    return steps


WAYS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "all at once": lambda script: script,
    "one at a time": one_by_one,
    "barrier after each": lambda script: one_by_one(script, after_each=["barrier"]),
    "restart after each": lambda script: one_by_one(script, after_each=["restart"]),
    "restart between batches": lambda script: [s for item in script for s in (item, "restart")],
    "two barriers between batches": lambda script: [
        s for item in script for s in (item, "barrier", "barrier")
    ],
}
