"""Delays per airport and hour, from the stream of departures.

    riverrun run examples.flights.topology
    python -m examples.flights.data | riverrun produce flights
    riverrun consume delays --follow

``expected`` computes the same with Polars over the whole year; the tests compare every row.
"""

from __future__ import annotations

import riverrun as rr


class Flight(rr.Record):
    """A departure. The records have more fields; what is not declared is not read."""

    origin: str
    dep_delay: int | None
    time_hour: rr.TimestampMs


topology = rr.Topology("flights")

flights = topology.source(
    rr.Topic("flights", value=rr.Json(Flight), partitions=4),
    event_time="time_hour",
    # A flight is recorded when it leaves. The longest wait of the year was 21 hours, so a window
    # that stays open for a day misses none.
    watermark=rr.Watermark(out_of_orderness="24h", idle_after="5s"),
)

delays = (
    flights.key_by("origin")
    .window(rr.Tumbling("1h"))
    .aggregate(
        flights=rr.Count(),
        mean_delay=rr.Mean("dep_delay"),
        worst_delay=rr.Max("dep_delay"),
    )
)
delays.sink(rr.Topic("delays"))
