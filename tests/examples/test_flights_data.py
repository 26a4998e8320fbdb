"""The flights are the ones that were counted, and the oracle's figures are plausible by eye."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import polars as pl
import pytest

from examples.flights.data import FIELDS, flights, load_flights
from examples.flights.expected import expected_delays

ROOT = Path(__file__).resolve().parent.parent.parent
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return load_flights()


@pytest.fixture(scope="module")
def expected() -> pl.DataFrame:
    return expected_delays()


def test_every_departure_of_2013_is_there(table: pl.DataFrame) -> None:
    assert table.shape == (336_776, len(FIELDS))
    assert table["origin"].unique().sort().to_list() == ["EWR", "JFK", "LGA"]
    assert table["dep_delay"].null_count() == 8_255


def test_event_time_is_the_scheduled_hour_in_utc(table: pl.DataFrame) -> None:
    first = table.row(0, named=True)

    assert (first["origin"], first["sched_dep_time"], first["dep_time"]) == ("EWR", 515, 517)
    assert first["time_hour"] == 1_357_034_400_000  # 2013-01-01T10:00Z, 5 o'clock in New York
    assert table["time_hour"].is_between(1_357_034_400_000, 1_388_548_800_000).all()
    assert (table["time_hour"] % HOUR_MS == 0).all()


def test_no_flight_comes_a_day_after_its_hour(table: pl.DataFrame) -> None:
    behind_ms = table["time_hour"].cum_max() - table["time_hour"]

    assert behind_ms.max() == 21 * HOUR_MS


def test_records_are_json_with_nulls_for_cancelled_flights() -> None:
    cancelled = next(flight for flight in flights() if flight["dep_time"] is None)

    assert tuple(cancelled) == FIELDS
    assert cancelled["dep_delay"] is None
    assert orjson.loads(orjson.dumps(cancelled)) == cancelled


def test_command_prints_one_json_object_per_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "examples.flights.data"], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()

    assert process.returncode == 0
    assert len(lines) == 336_776
    assert orjson.loads(lines[0])["flight"] == 1545


def test_oracle_has_a_row_per_airport_and_hour_with_a_flight(expected: pl.DataFrame) -> None:
    assert expected.height == 19_486
    assert expected["flights"].sum() == 336_776
    assert expected.select("origin", "window_start").is_unique().all()


def test_oracle_ignores_cancelled_flights_in_delays_only(expected: pl.DataFrame) -> None:
    nobody_left = expected.filter(pl.col("worst_delay").is_null())

    assert nobody_left.height == 52
    assert nobody_left["mean_delay"].null_count() == 52
    assert nobody_left["flights"].sum() == 571


def test_oracle_finds_the_longest_wait_of_the_year(expected: pl.DataFrame) -> None:
    worst = expected.sort("worst_delay", descending=True, nulls_last=True).row(0, named=True)

    assert (worst["origin"], worst["flights"], worst["worst_delay"]) == ("JFK", 19, 1301)
    assert worst["mean_delay"] == 1319 / 19
