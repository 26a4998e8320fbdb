"""The jobs of the benchmark in Pathway. Names come from the environment."""

from __future__ import annotations

import os

import pathway as pw

AMOUNT_MIN = 100.0
WINDOW_MS = 60_000
OUT_OF_ORDERNESS_MS = 1_000
COMMIT_MS = 100


class Order(pw.Schema):
    """The input."""

    user: str
    order: int
    amount: float
    ts: int
    product: str


def filter_project(orders: pw.Table) -> pw.Table:
    """Keep some of the orders, and some of their fields."""
    kept = orders.filter(pw.this.amount >= AMOUNT_MIN)
    return kept.select(pw.this.user, pw.this.order, pw.this.amount)


def window(orders: pw.Table) -> pw.Table:
    """Count and sum per user and minute of event time, each window once."""
    minutes = orders.windowby(
        pw.this.ts,
        window=pw.temporal.tumbling(duration=WINDOW_MS),
        instance=pw.this.user,
        behavior=pw.temporal.exactly_once_behavior(shift=OUT_OF_ORDERNESS_MS),
    )
    return minutes.reduce(
        user=pw.this["_pw_instance"],
        window_start=pw.this["_pw_window_start"],
        window_end=pw.this["_pw_window_end"],
        total=pw.reducers.sum(pw.this.amount),
        orders=pw.reducers.count(),
    )


def main() -> None:
    """Run the job until it is killed."""
    kafka = {
        "bootstrap.servers": os.environ["BENCH_BROKER"],
        "group.id": os.environ["BENCH_JOB"],
        "auto.offset.reset": "earliest",
        "compression.type": "lz4",
    }
    orders = pw.io.kafka.read(
        kafka,
        topic=os.environ["BENCH_INPUT"],
        format="json",
        schema=Order,
        autocommit_duration_ms=COMMIT_MS,
        name="orders",
    )
    job = window if os.environ["BENCH_TOPOLOGY"] == "window" else filter_project
    pw.io.kafka.write(job(orders), kafka, os.environ["BENCH_OUTPUT"], format="json")
    backend = pw.persistence.Backend.filesystem(os.environ["BENCH_STATE"])
    pw.run(
        monitoring_level=pw.MonitoringLevel.NONE,
        persistence_config=pw.persistence.Config(backend, snapshot_interval_ms=1_000),
    )


if __name__ == "__main__":
    main()
