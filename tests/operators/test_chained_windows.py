"""Windows behind windows: the second one waits for what the first may still emit."""

from __future__ import annotations

from typing import Any

import riverrun as rr
from riverrun.testing import TopologyTestDriver

MINUTE_MS = 60_000


class Order(rr.Record):
    user: str
    amount: int
    ts: int


def test_results_of_a_window_with_allowed_lateness_are_on_time_for_the_next_one() -> None:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", value=rr.Json(Order), partitions=1), event_time="ts")
    minutes = (
        orders.key_by("user")
        .window(rr.Tumbling("1m"), allowed_lateness="30s")
        .aggregate(total=rr.Sum("amount"))
    )
    hours = minutes.window(rr.Tumbling("2m")).aggregate(total=rr.Sum("total"), minutes=rr.Count())
    hours.sink(rr.Topic("out"))
    hours.late.sink(rr.Topic("late"))

    with TopologyTestDriver(job) as driver:
        # One record a minute; the watermark of each closes the windows before it, one by one.
        for minute in range(6):
            record = {"user": "ada", "amount": 2**minute, "ts": minute * MINUTE_MS + 40_000}
            driver.pipe("orders", [record])
        driver.advance_watermark(20 * MINUTE_MS)
        out: list[Any] = [record.value for record in driver.read("out")]
        late = driver.read("late")

    assert late == []
    assert [(row["window_start"] // MINUTE_MS, row["total"], row["minutes"]) for row in out] == [
        (0, 1 + 2, 2),
        (2, 4 + 8, 2),
        (4, 16 + 32, 2),
    ]


def test_a_process_function_can_ask_the_clock() -> None:
    class Stamp(rr.ProcessFunction[Order, int]):
        def on_record(self, value: Order, ctx: rr.ProcessContext[int]) -> None:
            ctx.emit(ctx.processing_time_ms)

    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", value=rr.Json(Order), partitions=1), event_time="ts")
    orders.key_by("user").process(Stamp()).sink(rr.Topic("out"))
    with TopologyTestDriver(job, now_ms=1_700_000_000_000) as driver:
        driver.advance_clock(5)
        driver.pipe("orders", [{"user": "ada", "amount": 1, "ts": 1}])
        assert [record.value for record in driver.read("out")] == [1_700_000_000_005]
