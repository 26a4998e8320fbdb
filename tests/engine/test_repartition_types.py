"""Records of any form travel to the task that owns their key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import riverrun as rr
from riverrun.engine.errors import RecordError
from riverrun.testing import TopologyTestDriver


class Order(rr.Record):
    user: str
    amount: float

    def doubled(self) -> Order:
        return Order(user=self.user, amount=self.amount * 2)


@dataclass
class Plain:
    user: str
    amount: float


def run(change: Any) -> list[Any]:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", value=rr.Json(Order), partitions=2))
    changed = orders.map(change).key_by("user", partitions=3)
    changed.window(rr.Tumbling("1m")).aggregate(total=rr.Sum("amount")).sink(rr.Topic("out"))
    with TopologyTestDriver(job) as driver:
        driver.pipe("orders", [{"user": u, "amount": 1.5} for u in ("ada", "bob", "ada")])
        driver.advance_watermark(2_000_000_000_000)
        return sorted((r.value["user"], r.value["total"]) for r in driver.read("out"))


def unknown(order: Order) -> Any:
    return order.doubled()


@pytest.mark.parametrize(
    "change",
    [
        Order.doubled,
        unknown,
        lambda order: order.doubled(),
        lambda order: Plain(order.user, order.amount * 2),
        lambda order: {"user": order.user, "amount": order.amount * 2},
    ],
    ids=["annotated", "any", "lambda of a record", "lambda of a dataclass", "dict"],
)
def test_values_travel_whether_or_not_their_type_is_known(change: Any) -> None:
    assert run(change) == [("ada", 6.0), ("bob", 3.0)]


def test_values_that_cannot_travel_say_what_to_do() -> None:
    class Opaque:
        user = "ada"

    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", partitions=1))
    orders.map(lambda order: Opaque()).key_by(lambda o: o.user).sink(rr.Topic("out"))
    with TopologyTestDriver(job) as driver, pytest.raises(RecordError, match="annotate the return"):
        driver.pipe("orders", [{"user": "ada"}])
