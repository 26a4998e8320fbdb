"""The parts of the benchmarks that decide what a figure means; no broker."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl
import pytest

from benchmarks.__main__ import DOCS, RESULTS
from benchmarks.jobs import AMOUNT_MIN, SAMPLE
from benchmarks.large_state import last_of_each
from benchmarks.latency import Latency
from benchmarks.load import FEW, KEYS, Load
from benchmarks.orders import JITTER_MS, WINDOW_MS, OrderStream, parse
from benchmarks.plots import draw
from benchmarks.recovery import LEAD_S, LOCAL, SNAPSHOT, Recovery, checkpoint_of
from benchmarks.report import AT_LEAST, Report, Row
from benchmarks.scaling import Scaling
from benchmarks.start import Start
from benchmarks.throughput import Throughput, rate

if TYPE_CHECKING:
    from pathlib import Path

STREAM = OrderStream(count=3_000, keys=10, rate=20, start_ms=WINDOW_MS * 1000)


def throughput(job: str, rate: float) -> Throughput:
    return Throughput(job, 1_000, 95.0, rate, rate * 0.8, 0.5, 120.0, 10, "kernel")


def latency(guarantee: str, rate: int, p99_ms: float) -> Latency:
    return Latency(guarantee, rate, 15.0, 100, 2.0, 5.0, p99_ms, p99_ms * 2, p99_ms * 3, 0.5)


def report() -> Report:
    """All that plots are drawn of."""
    return Report(
        {"cpu": "2 x test"},
        {},
        throughputs=[throughput("filter", 2_400_000.0), throughput("window", 1_750_000.0)],
        latencies=[
            latency(guarantee, rate, 12.0)
            for guarantee in ("at_least_once", "exactly_once")
            for rate in (10_000, 50_000)
        ],
        recoveries=[
            Recovery(source, mb, 5.0, 2.0, (1.5, 2.0, 2.5))
            for source in (LOCAL, SNAPSHOT)
            for mb in (80.0, 1_075.0)
        ],
        scaling=[
            Scaling(1, 6_000, 6.0, 1.5, "kernel", 0.25),
            Scaling(2, 6_000, 3.2, 1.6, "kernel", 0.25),
            Scaling(1, 6_000, 6.0, 5.0, "kernel"),
            Scaling(2, 6_000, 4.0, 5.5, "kernel"),
        ],
        start=Start(0.8, 0.9, 100.0, ((0.8, 0.9),), "kernel"),
    )


# --- input and what follows from it --------------------------------------------------------------


def test_a_shorter_stream_is_the_beginning_of_a_longer_one() -> None:
    longer = OrderStream(count=5_000, keys=10, rate=20, start_ms=STREAM.start_ms)
    assert longer.all().head(STREAM.count).equals(STREAM.all())


def test_orders_are_as_the_page_says() -> None:
    orders = OrderStream(count=1_000, start_ms=1_790_000_000_000).all()
    sizes = [len(msgspec.json.encode(order)) for order in orders.iter_rows(named=True)]
    assert 85 <= sum(sizes) / len(sizes) <= 105
    behind = orders["ts"].cum_max() - orders["ts"]
    assert behind.max() <= JITTER_MS  # type: ignore[operator]


def test_users_in_turn_all_order_before_one_orders_again() -> None:
    users = OrderStream(count=1_200, keys=1_000, in_turn=True).all()["user"]
    assert users.head(1_000).n_unique() == 1_000
    assert users.tail(200).to_list() == users.head(200).to_list()


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


def test_windows_behind_a_filter_have_what_it_keeps() -> None:
    results = STREAM.expected_window(AMOUNT_MIN)
    assert results["orders"].sum() == STREAM.expected_filter().height < STREAM.count


def test_counts_are_those_of_the_sample() -> None:
    stream = OrderStream(count=1_500, keys=1_000, in_turn=True)
    counts = stream.expected_counts()
    assert counts.height == 10
    assert all(user.endswith(SAMPLE) for user in counts["user"])
    assert counts["orders"].sum() == stream.all()["user"].str.ends_with(SAMPLE).sum()


def test_the_last_update_of_a_count_is_the_count() -> None:
    updates = pl.DataFrame({"user": ["b", "a", "b"], "orders": [1, 1, 2]})
    assert last_of_each(updates).rows() == [("a", 1), ("b", 2)]


def test_output_is_parsed_in_any_order_of_fields() -> None:
    expected = pl.DataFrame({"user": ["ada"], "order": [1], "amount": [2.5]})
    assert parse([b'{"order":1,"amount":2.5,"user":"ada"}'], expected).equals(expected)
    assert parse([], expected).height == 0


# --- loads ---------------------------------------------------------------------------------------


def test_a_load_of_orders_is_created_on_schedule() -> None:
    records = Load("orders", rate=2_000, count=1_000).render(start_ms=5_000)
    assert records["ts"].to_list()[:4] == [5_000, 5_000, 5_001, 5_001]
    orders = [msgspec.json.decode(value) for value in records["value"]]
    assert [order["order"] for order in orders] == list(range(1_000))
    assert records["key"].to_list() == [order["user"].encode() for order in orders]
    kept = [order["amount"] >= AMOUNT_MIN for order in orders]
    assert Load("orders", rate=2_000, count=1_000).wanted().tolist() == kept


@pytest.mark.parametrize("count", [FEW, FEW + 1])
def test_results_tell_from_which_record_they_come(count: int) -> None:
    kept = [b'{"user":"user-000001","order":%d,"amount":1.0}' % n for n in range(count)]
    assert Load("orders", 10, count).orders_of(kept).tolist() == list(range(count))

    load = Load("visits", 10, 2 * KEYS)
    users = [msgspec.json.decode(value)["user"] for value in load.render(0)["value"]]
    second = [b'{"user":"%b","visits":2}' % user.encode() for user in users[KEYS : KEYS + count]]
    assert load.orders_of(second).tolist() == list(range(KEYS, KEYS + count))


def test_what_comes_twice_counts_once() -> None:
    load = Load("orders", rate=10, count=3)
    arrivals = load.arrivals(np.array([0, 2, 0]), np.array([1.0, 2.0, 9.0]))
    assert arrivals[[0, 2]].tolist() == [1.0, 2.0]
    assert np.isnan(arrivals[1])


def test_visits_that_come_out_together_came_with_the_last_one() -> None:
    load = Load("visits", rate=10, count=KEYS + 3)
    orders = np.array([KEYS, KEYS + 2, 1])
    arrivals = load.arrivals(orders, np.array([7.0, 8.0, 3.0]))
    assert arrivals[[0, KEYS, 1, 2, KEYS + 2]].tolist() == [7.0, 7.0, 3.0, 8.0, 8.0]
    assert np.isnan(arrivals[KEYS + 1])


def test_the_pause_of_a_snapshot_is_told_from_what_is_usual() -> None:
    created_s = np.arange(10_000) / 1_000
    latencies_ms = np.full(10_000, 4.0)
    latencies_ms[5_000:5_100] = 34.0  # a tenth of a second at second 5
    found = checkpoint_of(1_000.0, 1_000, [(5.0, 5.2), (8.0, 8.1)], created_s, latencies_ms)
    assert (found.snapshots, found.snapshot_s) == (2, pytest.approx(0.2))
    assert (found.p99_between_ms, found.p99_during_ms, found.pause_p99_ms) == (4.0, 34.0, 30.0)
    assert (found.pause_ms, found.pause_max_ms) == (15.0, 30.0)


def test_what_a_checkpoint_does_before_it_can_be_seen_counts() -> None:
    created_s = np.arange(10_000) / 1_000
    latencies_ms = np.where(created_s == 5.0, 50.0, 4.0)
    appears_s = 5.0 + LEAD_S / 2
    found = checkpoint_of(1.0, 1_000, [(appears_s, appears_s)], created_s, latencies_ms)
    assert found.pause_max_ms == 46.0


# --- the report ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("rate", 450_000.0, "records/s", 300_000.0, AT_LEAST), "met, 1.50x"),
        (Row("rate", 150_000.0, "records/s", 300_000.0, AT_LEAST), "missed, 0.50x"),
        (Row("p99", 20.0, "ms", 25.0), "met, 1.25x"),
        (Row("p99", 50.0, "ms", 25.0), "missed, 0.50x"),
        (Row("pause", 0.0, "ms", 25.0), "met"),
        (Row("p50", 5.0, "ms"), ""),
        (Row("rate", rate(1_000, -0.1), "records/s", 300_000.0, AT_LEAST), ""),
    ],
)
def test_figures_stand_beside_their_goal(row: Row, verdict: str) -> None:
    assert row.cells()[3] == verdict


def test_a_report_names_what_is_missed() -> None:
    found = report()
    assert [row.what for row in found.missed()] == [
        "window, exactly once: per core of CPU",
        "at least once, 10,000 records/s: p99",
    ]
    assert "missed, 0.50x" in found.table()
    assert "| window, exactly once: per core of CPU | 1.75 M records/s |" in found.markdown()


def test_goals_of_much_state_say_nothing_of_little() -> None:
    goals = {row.what: row.goal for row in report().rows() if row.what.startswith("kill -9")}
    assert goals == {
        f"kill -9, {size} MB, {source}: to first new result": goal
        for source, large in ((LOCAL, 3.0), (SNAPSHOT, 10.0))
        for size, goal in (("80", None), ("1,075", large))
    }


def test_rates_per_core_add_up_over_processes() -> None:
    one, two = report().scaling_by_limit()[None]
    assert (two.per_wall_s / one.per_wall_s, two.cores) == (1.5, 1.375)
    assert two.sum_of_cores_s / one.sum_of_cores_s == pytest.approx(2 * 5.0 / 5.5)


def test_the_goal_of_scaling_is_for_workers_that_bring_what_they_take() -> None:
    goals = {row.what: (row.value, row.goal) for row in report().rows() if "against" in row.what}
    assert goals == {
        "window, 4 partitions, 0.25 cores each, 2 processes against 1: wall": (1.875, 1.8),
        "window, 4 partitions, 2 processes against 1: wall": (1.5, None),
        "window, 4 partitions, 2 processes against 1: sum of rates per core of CPU": (
            pytest.approx(2 * 5.0 / 5.5),
            None,
        ),
    }


def test_a_report_tells_which_plane_ran() -> None:
    assert report().facts() == {"cpu": "2 x test", "plane": "kernel"}


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    drawn = draw(report(), tmp_path)
    assert sorted(path.name for _, path in drawn) == [
        "benchmark-latency.svg",
        "benchmark-recovery.svg",
        "benchmark-scaling.svg",
        "benchmark-throughput.svg",
    ]
    before = {path: path.read_bytes() for _, path in drawn}
    draw(report(), tmp_path)
    assert {path: path.read_bytes() for path in before} == before, "the same report, other files"


def test_the_page_has_a_place_for_results() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert len(re.findall(RESULTS, text)) == 1
