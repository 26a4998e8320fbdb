"""The job that the integration tests run in worker processes.

Orders are filtered, spread by user through a repartition topic, and end in four topics: what was
taken in, a sum and a count per user and window, a running count per user, and every tenth of
those. ``RIVERRUN_TEST_JOB`` names the job, so that runs on one broker do not meet.
"""

from __future__ import annotations

import os

import polars as pl

import riverrun as rr

PARTITIONS = 4
WINDOW_MS = 1_000
OUT_OF_ORDERNESS_MS = 2_000
MILESTONE = 10


class Order(rr.Record):
    """Input. ``id`` grows within the run; orders with an amount of 0 are filtered out."""

    id: int
    user: str
    amount: int
    ts: rr.TimestampMs


class Running(rr.Record):
    """The ``n``-th order of a user, and the sum of the amounts up to it."""

    id: int
    user: str
    n: int
    total: int


class Number(rr.ProcessFunction[Order, Running]):
    """Numbers the orders of each user from 1, without a gap."""

    def on_record(self, value: Order, ctx: rr.ProcessContext[Running]) -> None:
        n = ctx.state("n", type=int, default=0)
        total = ctx.state("total", type=int, default=0)
        n.set(n.get() + 1)
        total.set(total.get() + value.amount)
        ctx.emit(Running(id=value.id, user=value.user, n=n.get(), total=total.get()))


def two_step_topology(job: str) -> rr.Topology:
    """Return the topology under the name ``job``; its topics carry the name as well."""
    topology = rr.Topology(job)
    orders = topology.source(
        rr.Topic(f"{job}-orders", value=rr.Json(Order), partitions=PARTITIONS),
        event_time="ts",
        watermark=rr.Watermark(out_of_orderness=OUT_OF_ORDERNESS_MS),
    )
    accepted = orders.filter(pl.col("amount") > 0)
    accepted.sink(rr.Topic(f"{job}-accepted"))
    by_user = accepted.key_by("user")
    windows = by_user.window(rr.Tumbling(WINDOW_MS))
    windows.aggregate(total=rr.Sum("amount"), orders=rr.Count()).sink(rr.Topic(f"{job}-windows"))
    running = by_user.process(Number())
    running.sink(rr.Topic(f"{job}-running"))
    running.filter(pl.col("n") % MILESTONE == 0).sink(rr.Topic(f"{job}-milestones"))
    return topology


two_step = two_step_topology(os.environ.get("RIVERRUN_TEST_JOB", "two-step"))
