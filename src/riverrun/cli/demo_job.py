"""The job of the demo, the orders that go in, and what has to come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl

import riverrun as rr

if TYPE_CHECKING:
    import random

ORDERS = "orders"
REVENUE = "revenue-per-minute"
PARTITIONS = 4
WINDOW_MS = 60_000
OUT_OF_ORDERNESS_MS = 5_000
JITTER_MS = 3_000
"""How much older than the newest an order may be; less than the out-of-orderness: none is late."""

USERS = ("ada", "alan", "barbara", "donald", "edsger", "grace", "john", "margaret")
WEIGHTS = (9, 7, 6, 5, 4, 8, 3, 2)


class Order(rr.Record):
    """Somebody bought something, or with a negative amount brought it back."""

    user: str
    amount: float
    ts: rr.TimestampMs


def make_topology() -> rr.Topology:
    """Return the main job of riverrun's documentation."""
    topology = rr.Topology("revenue")
    orders = topology.source(
        rr.Topic(ORDERS, value=rr.Json(Order), partitions=PARTITIONS),
        event_time="ts",
        # Event time runs faster than the clock here, so in the end it is ahead of it.
        watermark=rr.Watermark(out_of_orderness=OUT_OF_ORDERNESS_MS, max_future=None),
    )
    revenue = (
        orders.filter(pl.col("amount") > 0)
        .key_by("user")
        .window(rr.Tumbling("1m"))
        .aggregate(total=rr.Sum("amount"), orders=rr.Count())
    )
    revenue.sink(rr.Topic(REVENUE))
    return topology


class Cell(NamedTuple):
    """One result: a user in a window."""

    window_ms: int
    user: str


class Amounts(NamedTuple):
    """What a result says: total revenue and number of orders."""

    total: float
    orders: int


@dataclass(slots=True)
class OrderBook:
    """Makes orders, and keeps by itself what the job has to find out about them.

    Attributes:
        chance: Where the orders come from.
        made: Number of orders so far.
        newest_ms: Latest event time by partition.
        expected: What has to come out, by user and window.
    """

    chance: random.Random
    made: int = 0
    newest_ms: list[int] = field(default_factory=lambda: [-1] * PARTITIONS)
    expected: dict[Cell, Amounts] = field(default_factory=dict[Cell, Amounts])
    _encoder: msgspec.json.Encoder = field(default_factory=msgspec.json.Encoder)

    def make(self, count: int, now_ms: int) -> tuple[list[bytes], list[int], list[int]]:
        """Return orders up to the event time ``now_ms``: values, timestamps and partitions."""
        values: list[bytes] = []
        times: list[int] = []
        partitions: list[int] = []
        for user in self.chance.choices(USERS, WEIGHTS, k=count):
            ts = now_ms - self.chance.randrange(JITTER_MS)
            # Quarters have an exact sum in binary, in whatever order they are added.
            amount = self.chance.randrange(-40, 600) / 4
            partition = self.made % PARTITIONS
            self.made += 1
            self.newest_ms[partition] = max(self.newest_ms[partition], ts)
            values.append(self._encoder.encode(Order(user=user, amount=amount, ts=ts)))
            times.append(ts)
            partitions.append(partition)
            if amount > 0:
                cell = Cell(ts - ts % WINDOW_MS, user)
                before = self.expected.get(cell, Amounts(0.0, 0))
                self.expected[cell] = Amounts(before.total + amount, before.orders + 1)
        return values, times, partitions

    @property
    def watermark_ms(self) -> int:
        """Up to where event time is complete, once all orders so far are processed."""
        return min(self.newest_ms) - OUT_OF_ORDERNESS_MS

    def closed(self) -> dict[Cell, Amounts]:
        """Return what has to come out of the windows that the watermark has closed."""
        watermark_ms = self.watermark_ms
        return {
            cell: amounts
            for cell, amounts in self.expected.items()
            if cell.window_ms + WINDOW_MS <= watermark_ms
        }


@dataclass(slots=True)
class Results:
    """What was read back from the output topic.

    Attributes:
        by_window: Results of each window, by user.
        repeated: Results that came more than once.
        count: Number of results.
    """

    by_window: dict[int, dict[str, Amounts]] = field(default_factory=dict[int, dict[str, Amounts]])
    repeated: list[Cell] = field(default_factory=list[Cell])
    count: int = 0

    def take(self, value: bytes | None) -> Cell:
        """Take in a record of the output topic."""
        row: dict[str, Any] = msgspec.json.decode(value or b"null")
        cell = Cell(row["window_start"], row["user"])
        window = self.by_window.setdefault(cell.window_ms, {})
        if cell.user in window:
            self.repeated.append(cell)
        window[cell.user] = Amounts(row["total"], row["orders"])
        self.count += 1
        return cell

    def flat(self) -> dict[Cell, Amounts]:
        """Return all results."""
        return {
            Cell(window_ms, user): amounts
            for window_ms, users in self.by_window.items()
            for user, amounts in users.items()
        }


def find_differences(book: OrderBook, results: Results) -> list[str]:
    """Return in words where the results differ from the recomputation; empty if nowhere."""
    wanted, found = book.closed(), results.flat()
    differences = [f"{cell} came more than once" for cell in results.repeated]
    differences.extend(
        f"{cell}: {found.get(cell) or 'no result'}, recomputed {wanted.get(cell)}"
        for cell in sorted(wanted.keys() | found.keys())
        if wanted.get(cell) != found.get(cell)
    )
    return differences
