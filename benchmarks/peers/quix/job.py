"""The jobs of the benchmark in Quix Streams. Names come from the environment."""

from __future__ import annotations

import os
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Sum

AMOUNT_MIN = 100.0
WINDOW_MS = 60_000
GRACE_MS = 1_000


def _time_of(value: dict[str, Any], headers: object, timestamp: float, kind: object) -> int:
    return value["ts"]


def main() -> None:
    """Run the job until it is killed."""
    application = Application(
        broker_address=os.environ["BENCH_BROKER"],
        consumer_group=os.environ["BENCH_JOB"],
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=os.environ["BENCH_STATE"],
        producer_extra_config={"compression.type": "lz4", "linger.ms": 100},
        loglevel="WARNING",
    )
    source = application.topic(
        os.environ["BENCH_INPUT"], value_deserializer="json", timestamp_extractor=_time_of
    )
    sink = application.topic(os.environ["BENCH_OUTPUT"], value_serializer="json")
    orders = application.dataframe(source)
    if os.environ["BENCH_TOPOLOGY"] == "window":
        sums = orders.tumbling_window(WINDOW_MS, GRACE_MS).agg(total=Sum("amount"), orders=Count())
        # One record closes the windows of all keys of its partition.
        results = sums.final(closing_strategy="partition").apply(_result, metadata=True)
        results.to_topic(sink)
    else:
        kept = orders.filter(lambda order: order["amount"] >= AMOUNT_MIN)
        kept[["user", "order", "amount"]].to_topic(sink)
    application.run()


def _result(row: dict[str, Any], key: bytes, timestamp: int, headers: object) -> dict[str, Any]:
    return {
        "user": key.decode(),
        "window_start": row["start"],
        "window_end": row["end"],
        "total": row["total"],
        "orders": row["orders"],
    }


if __name__ == "__main__":
    main()
