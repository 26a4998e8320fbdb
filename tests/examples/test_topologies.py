"""The examples do what they say, on the real plan in memory."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import orjson
import polars as pl
import pytest

from examples import revenue, wordcount
from examples.flights import topology as delays
from examples.flights.data import flights
from examples.flights.expected import HOUR_MS, expected_delays
from riverrun.testing import TopologyTestDriver

ROOT = Path(__file__).resolve().parent.parent.parent
MINUTE_START_MS = 1_700_000_040_000


def order(user: str, amount: float, second: int) -> dict[str, object]:
    return {"user": user, "amount": amount, "ts": MINUTE_START_MS + 1000 * second}


def test_wordcount_counts_words_in_any_case() -> None:
    with TopologyTestDriver(wordcount.topology) as driver:
        driver.pipe("lines", [{"text": "To be, or not to be"}])
        driver.pipe("lines", [{"text": "That is not it"}, {"text": "..."}])

        counts = {record.key: record.value for record in driver.read("word-counts")}

    assert counts["not"] == {"word": "not", "count": 2}
    assert {word: row["count"] for word, row in counts.items()} == {
        "to": 2, "be": 2, "or": 1, "not": 2, "that": 1, "is": 1, "it": 1
    }  # fmt: skip


def test_revenue_sums_each_minute_once_it_is_over() -> None:
    with TopologyTestDriver(revenue.topology) as driver:
        driver.pipe(
            "orders",
            [
                order("ada", 50, 1),
                order("ada", 200, 30),
                order("bob", -5, 31),
                order("bob", 20, 59),
            ],
        )
        assert driver.read("revenue-per-minute") == []

        driver.advance_watermark(MINUTE_START_MS + 70_000)
        rows = {record.key: record.value for record in driver.read("revenue-per-minute")}

    window = {"window_start": MINUTE_START_MS, "window_end": MINUTE_START_MS + 60_000}
    assert rows == {
        "ada": {"user": "ada", **window, "total": 240.0, "orders": 2},
        "bob": {"user": "bob", **window, "total": 20.0, "orders": 1},
    }


def test_revenue_sends_orders_of_a_closed_minute_to_a_topic_of_their_own() -> None:
    with TopologyTestDriver(revenue.topology) as driver:
        driver.pipe("orders", [order("ada", 50, 1)])
        driver.advance_watermark(MINUTE_START_MS + 70_000)
        driver.pipe("orders", [order("ada", 7, 10)])

        late = [record.value for record in driver.read("late-orders")]
        rows = [record.value["total"] for record in driver.read("revenue-per-minute")]

    assert late == [order("ada", 7, 10)]
    assert rows == [50.0]


def generated_orders(*arguments: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "examples.revenue", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    return [orjson.loads(line) for line in result.stdout.splitlines()]


def test_generated_orders_repeat_with_a_seed_but_for_their_times() -> None:
    arguments = ("--seed", "7", "--count", "50", "--rate", "100000")

    one, two = generated_orders(*arguments), generated_orders(*arguments)

    assert len(one) == 50
    assert all(set(order) == {"user", "amount", "ts"} for order in one)
    assert [(o["user"], o["amount"]) for o in one] == [(o["user"], o["amount"]) for o in two]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_flights_find_what_polars_finds_to_the_last_row() -> None:
    with TopologyTestDriver(delays.topology) as driver:
        lines = (orjson.dumps(flight) for flight in flights())
        while chunk := list(itertools.islice(lines, 50_000)):
            driver.pipe("flights", chunk)
        driver.advance_watermark(1_388_548_800_000 + HOUR_MS)

        rows = [record.value for record in driver.read("delays")]

    expected = expected_delays()
    found = pl.DataFrame(rows, schema={**expected.schema, "window_end": pl.Int64})
    assert (found["window_end"] - found["window_start"] == HOUR_MS).all()
    assert found.select(expected.columns).sort("window_start", "origin").equals(expected)
