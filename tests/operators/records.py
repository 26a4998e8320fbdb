"""The records of the tests in this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riverrun.engine.schema import Record, Schema
from riverrun.operators import Stream, Topic, Topology

if TYPE_CHECKING:
    from riverrun.engine.codec import DecodedValues


class Order(Record):
    user: str
    amount: float
    count: int = 1
    ts: int = 0
    coupon: str | None = None


ORDER = Schema.of(Order)


@dataclass(frozen=True)
class FakeCodec:
    """A codec for graphs that never run."""

    schema: Schema | None = None

    def decode(self, values: Any) -> DecodedValues:
        raise NotImplementedError

    def encode(self, batch: Any) -> list[bytes | None]:
        raise NotImplementedError


def new_topology(name: str = "job") -> Topology:
    return Topology(name, default_codec=FakeCodec())


def orders(topology: Topology | None = None, topic: str = "orders", **more: Any) -> Stream[Order]:
    """Return a stream of orders, its schema known."""
    declared = Topic[Order](topic, value=FakeCodec(ORDER), **more)
    return (topology or new_topology()).source(declared)


def untyped(topology: Topology | None = None, topic: str = "events") -> Stream[Any]:
    """Return a stream without a schema."""
    return (topology or new_topology()).source(Topic[Any](topic))
