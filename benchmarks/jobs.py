"""The topologies that are measured. Names of job and topics come from the environment.

So one module serves many runs, each with a job, a group and topics of its own.
"""

from __future__ import annotations

import os

import polars as pl

import riverrun as rr


class Order(rr.Record):
    """The input of all throughput and latency runs: about 95 bytes of JSON."""

    user: str
    order: int
    amount: float
    ts: rr.TimestampMs
    product: str


class Visit(rr.Record):
    """The input of the restart run: a value that is large by its payload."""

    user: str
    payload: str
    ts: rr.TimestampMs


AMOUNT_MIN = 100.0
"""What ``filter`` keeps: nine tenths, amounts being spread evenly from 0 to 1000."""

SAMPLE = "77"
"""End of the users whose counts ``large-state`` tells: a hundredth of all."""


def _source(topology: rr.Topology, record_type: type) -> rr.Stream:
    topic = rr.Topic(os.environ["BENCH_INPUT"], value=rr.Json(record_type), keyed_by="user")
    return topology.source(topic, event_time="ts", watermark=rr.Watermark(out_of_orderness="1s"))


def _sink() -> rr.Topic:
    return rr.Topic(os.environ["BENCH_OUTPUT"])


def filter_project() -> rr.Topology:
    """Keep nine tenths of the orders, and three of their five fields."""
    topology = rr.Topology(os.environ["BENCH_JOB"])
    orders = _source(topology, Order)
    kept = orders.filter(pl.col("amount") >= AMOUNT_MIN).map(
        pl.col("user"), pl.col("order"), pl.col("amount")
    )
    kept.sink(_sink())
    return topology


def window() -> rr.Topology:
    """Count and sum per user and minute of event time."""
    topology = rr.Topology(os.environ["BENCH_JOB"])
    orders = _source(topology, Order)
    results = orders.key_by("user").window(rr.Tumbling("1m"))
    results.aggregate(total=rr.Sum("amount"), orders=rr.Count()).sink(_sink())
    return topology


def session() -> rr.Topology:
    """Count and sum per user and session: orders less than two seconds of event time apart."""
    topology = rr.Topology(os.environ["BENCH_JOB"])
    orders = _source(topology, Order)
    results = orders.key_by("user").window(rr.Session(gap="2s"))
    results.aggregate(total=rr.Sum("amount"), orders=rr.Count()).sink(_sink())
    return topology


def python_window() -> rr.Topology:
    """As ``window``, behind plain Python functions that are called per record."""
    topology = rr.Topology(os.environ["BENCH_JOB"])
    # Keyed before: nobody can tell of a function of Python whether it keeps the key.
    orders = _source(topology, Order).key_by("user")
    kept = orders.filter(lambda order: order.amount >= AMOUNT_MIN).map(
        lambda order: {"user": order.user, "amount": order.amount}
    )
    results = kept.window(rr.Tumbling("1m"))
    results.aggregate(total=rr.Sum("amount"), orders=rr.Count()).sink(_sink())
    return topology


def counts() -> rr.Topology:
    """Count the orders of each user over all time; tell those of a sample of the users."""
    topology = rr.Topology(os.environ["BENCH_JOB"])
    orders = _source(topology, Order)
    counted = orders.key_by("user").aggregate(orders=rr.Count())
    sample = counted.filter(pl.col("user").str.ends_with(SAMPLE))
    sample.map(pl.col("user"), pl.col("orders")).sink(_sink())
    return topology


def payloads() -> rr.Topology:
    """Keep the last payload of each user; tell how many visits there were."""
    topology = rr.Topology(os.environ["BENCH_JOB"])
    visits = _source(topology, Visit)
    kept = visits.key_by("user").aggregate(payload=rr.Last("payload"), visits=rr.Count())
    kept.map(pl.col("user"), pl.col("visits")).sink(_sink())
    return topology


JOBS = {
    "filter": filter_project,
    "window": window,
    "session": session,
    "python": python_window,
    "large-state": counts,
    "state": payloads,
}

if "BENCH_TOPOLOGY" in os.environ:
    # What `riverrun worker benchmarks.jobs:topology` loads.
    topology = JOBS[os.environ["BENCH_TOPOLOGY"]]()
