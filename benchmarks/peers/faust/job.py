"""The jobs of the benchmark in Faust (faust-streaming). Names come from the environment.

Windows put out an update per record: the hook for closed windows goes by the machine's clock, so
that windows of yesterday would be closed at once.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import mode.loop

mode.loop.use("uvloop")  # before Faust imports asyncio

import faust  # noqa: E402

AMOUNT_MIN = 100.0
WINDOW_MS = 60_000

app = faust.App(
    os.environ["BENCH_JOB"],
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    store="memory://",
    datadir=Path(os.environ["BENCH_STATE"]),
    topic_partitions=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    producer_compression_type="lz4",
    producer_linger=0.1,
    web_enabled=False,
)
source = app.topic(os.environ["BENCH_INPUT"], key_serializer="raw", value_serializer="json")
sink = app.topic(os.environ["BENCH_OUTPUT"], key_serializer="raw", value_serializer="json")


def _time_of(event: Any) -> float:
    return event.value["ts"] / 1000


def _none() -> tuple[float, int]:
    return 0.0, 0


async def filter_project(orders: Any) -> None:
    """Keep some of the orders, and some of their fields."""
    async for order in orders:
        if order["amount"] >= AMOUNT_MIN:
            user = order["user"]
            kept = {"user": user, "order": order["order"], "amount": order["amount"]}
            await sink.send(key=user.encode(), value=kept)


async def window(orders: Any) -> None:
    """Count and sum per user and minute of event time."""
    async for order in orders:
        user = order["user"]
        total, count = sums[user].value()
        total, count = total + order["amount"], count + 1
        sums[user] = total, count
        start = order["ts"] // WINDOW_MS * WINDOW_MS
        result = {
            "user": user,
            "window_start": start,
            "window_end": start + WINDOW_MS,
            "total": total,
            "orders": count,
        }
        await sink.send(key=user.encode(), value=result)


if os.environ["BENCH_TOPOLOGY"] == "window":
    table = app.Table("sums", default=_none, partitions=1)
    sums = table.tumbling(timedelta(milliseconds=WINDOW_MS)).relative_to(_time_of)
    app.agent(source)(window)
else:
    app.agent(source)(filter_project)


if __name__ == "__main__":
    app.finalize()
    worker = faust.Worker(app, loglevel="WARNING")
    worker.execute_from_commandline()
