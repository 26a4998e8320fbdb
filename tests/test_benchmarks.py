"""The parts of the benchmarks that decide what a figure means; no broker."""

from __future__ import annotations

import msgspec
import polars as pl
import pytest

from benchmarks.orders import JITTER_MS, WINDOW_MS, OrderStream, parse
from benchmarks.report import AT_LEAST, Report, Row
from benchmarks.throughput import Throughput

STREAM = OrderStream(count=3_000, keys=10, rate=20, start_ms=WINDOW_MS * 1000)


def test_a_shorter_stream_is_the_beginning_of_a_longer_one() -> None:
    longer = OrderStream(count=5_000, keys=10, rate=20, start_ms=STREAM.start_ms)
    assert longer.all().head(STREAM.count).equals(STREAM.all())


def test_orders_are_as_the_page_says() -> None:
    orders = OrderStream(count=1_000, start_ms=1_790_000_000_000).all()
    sizes = [len(msgspec.json.encode(order)) for order in orders.iter_rows(named=True)]
    assert 85 <= sum(sizes) / len(sizes) <= 105
    behind = orders["ts"].cum_max() - orders["ts"]
    assert behind.max() <= JITTER_MS  # type: ignore[operator]


def test_windows_are_computed_anew() -> None:
    orders, results = STREAM.all(), STREAM.expected_window()
    assert results["orders"].sum() == STREAM.count
    assert results["total"].sum() == orders["amount"].sum()
    one = results.row(0, named=True)
    own = orders.filter(
        (pl.col("user") == one["user"])
        & pl.col("ts").is_between(one["window_start"], one["window_end"], closed="left")
    )
    assert (own.height, own["amount"].sum()) == (one["orders"], one["total"])
    assert STREAM.closing_ms() - JITTER_MS >= results["window_end"].max()  # type: ignore[operator]


def test_output_is_parsed_in_any_order_of_fields() -> None:
    expected = pl.DataFrame({"user": ["ada"], "order": [1], "amount": [2.5]})
    assert parse([b'{"order":1,"amount":2.5,"user":"ada"}'], expected).equals(expected)
    assert parse([], expected).height == 0


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("rate", 450_000.0, "records/s", 300_000.0, AT_LEAST), "met, 1.50x"),
        (Row("rate", 150_000.0, "records/s", 300_000.0, AT_LEAST), "missed, 0.50x"),
        (Row("p99", 20.0, "ms", 25.0), "met, 1.25x"),
        (Row("p99", 50.0, "ms", 25.0), "missed, 0.50x"),
        (Row("p50", 5.0, "ms"), ""),
    ],
)
def test_figures_stand_beside_their_goal(row: Row, verdict: str) -> None:
    assert row.cells()[3] == verdict


def test_a_report_names_what_is_missed() -> None:
    slow = Throughput("window", 1_000, 95.0, 200_000.0, 150_000.0, 0.5, 120.0, 10)
    report = Report({"cpu": "2 x test"}, {}, [slow])
    assert [row.what for row in report.missed()] == ["window, exactly once: per core of CPU"]
    assert "missed, 0.67x" in report.table()
    assert "| window, exactly once: per core of CPU | 200 k records/s |" in report.markdown()
