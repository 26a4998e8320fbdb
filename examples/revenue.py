"""Revenue per user and minute, exactly once: the main job of riverrun's documentation.

With the embedded log, in three terminals:

    riverrun run examples.revenue
    python -m examples.revenue --rate 100 | riverrun produce orders
    riverrun consume revenue-per-minute --follow

With Kafka: the same, with ``--broker kafka://host:9092`` behind each ``riverrun`` command and as
many ``riverrun worker`` in place of ``riverrun run`` as you like; or ``docker compose up``.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import polars as pl

import riverrun as rr

if TYPE_CHECKING:
    from collections.abc import Iterator


class Order(rr.Record):
    """Somebody bought something."""

    user: str
    amount: float
    ts: rr.TimestampMs

    def discounted(self) -> Order:
        """Return the order with a tenth off what is above 100."""
        discount = max(0.0, self.amount - 100.0) / 10
        return Order(user=self.user, amount=self.amount - discount, ts=self.ts)


topology = rr.Topology("revenue")

orders = topology.source(
    rr.Topic("orders", value=rr.Json(Order), partitions=4),
    event_time="ts",
    watermark=rr.Watermark(out_of_orderness="5s", idle_after="30s"),
)

revenue = (
    orders.filter(pl.col("amount") > 0)  # a Polars expression: runs on whole columns
    .map(Order.discounted)  # a Python function: runs per record
    .key_by("user")
    .window(rr.Tumbling("1m"), allowed_lateness="10s")
    .aggregate(total=rr.Sum("amount"), orders=rr.Count())
)
revenue.sink(rr.Topic("revenue-per-minute"))
revenue.late.sink(rr.Topic("late-orders"))


def generate_orders(chance: random.Random, start_ms: int, interval_ms: float) -> Iterator[Order]:
    """Yield orders of ten users at a steady rate, up to three seconds out of order."""
    for number in itertools.count():
        yield Order(
            user=f"user-{chance.randrange(10)}",
            # Now and then somebody returns something; the topology leaves that out.
            amount=round(chance.uniform(-10, 150), 2),
            ts=start_ms + int(number * interval_ms) - chance.randrange(3_000),
        )


def main() -> None:
    """Print orders as JSON lines, for ``riverrun produce orders``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="orders per second")
    parser.add_argument("--count", type=int, help="end after so many orders; default: never")
    parser.add_argument("--seed", type=int, help="the same orders again; default: others each time")
    arguments = parser.parse_args()
    if arguments.rate <= 0:
        parser.error(f"--rate must be positive, got {arguments.rate}")

    encoder = msgspec.json.Encoder()
    interval_s = 1 / arguments.rate
    started = time.monotonic()
    generated = generate_orders(
        random.Random(arguments.seed), int(time.time() * 1000), interval_s * 1000
    )
    for number, order in enumerate(itertools.islice(generated, arguments.count)):
        wait_s = started + number * interval_s - time.monotonic()
        if wait_s > 0:
            sys.stdout.flush()
            time.sleep(wait_s)
        sys.stdout.buffer.write(encoder.encode(order) + b"\n")


if __name__ == "__main__":
    main()
