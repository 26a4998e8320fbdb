"""What the topology must find, computed by Polars over the whole year at once."""

from __future__ import annotations

import polars as pl

from .data import load_flights

HOUR_MS = 3_600_000


def expected_delays() -> pl.DataFrame:
    """Return flights, mean and worst departure delay in minutes per airport and hour.

    A cancelled flight counts as a flight and has no delay: the mean and the worst are over the
    flights that left, and null in an hour in which none did.
    """
    window_start = pl.col("time_hour") // HOUR_MS * HOUR_MS
    return (
        load_flights()
        .group_by("origin", window_start=window_start)
        .agg(
            flights=pl.len().cast(pl.Int64),
            mean_delay=pl.col("dep_delay").mean(),
            worst_delay=pl.col("dep_delay").max(),
        )
        .sort("window_start", "origin")
    )
