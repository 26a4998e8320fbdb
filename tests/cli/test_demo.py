"""``riverrun demo``: it ends by itself, says so, and its check finds what is wrong."""

from __future__ import annotations

import random
import re
import signal
from typing import TYPE_CHECKING

import pytest

from riverrun.cli.demo_job import (
    JITTER_MS,
    OUT_OF_ORDERNESS_MS,
    WINDOW_MS,
    Amounts,
    Cell,
    OrderBook,
    Results,
    find_differences,
)
from riverrun.cli.demo_screen import Readings, coloured, picture, sparkline, window_line
from tests.cli.commands import run, started

if TYPE_CHECKING:
    from pathlib import Path


def test_demo_piped_ends_by_itself_with_checked_results(tmp_path: Path) -> None:
    result = run("demo", "--duration", "8", "--rate", "500", cwd=tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr
    windows = [line for line in result.stdout.splitlines() if line.startswith("window ")]
    assert windows
    assert re.fullmatch(
        r"window \d\d:\d\d: [\d,]+ orders of 8 users, revenue [\d,.]+, \d+ ms after it could "
        r"close; [\d,]+ records/s, watermark [\d:-]+, [\d,]+ epochs committed",
        windows[0],
    )
    assert result.stdout.splitlines()[-1].startswith("checked: all ")
    assert "\x1b" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_demo_cleanly(tmp_path: Path) -> None:
    with started("demo", "--rate", "300", cwd=tmp_path) as demo:
        assert demo.stdout is not None
        line = demo.stdout.readline()
        while not line.startswith("window "):
            assert line
            line = demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()

        assert demo.wait(30) == 0
    assert "checked: all " in rest


@pytest.fixture
def book() -> OrderBook:
    made = OrderBook(random.Random(1))
    for minute in range(4):
        made.make(400, minute * WINDOW_MS + JITTER_MS + 40_000)
    return made


def results_of(cells: dict[Cell, Amounts]) -> Results:
    results = Results()
    for cell, amounts in cells.items():
        results.take(
            f'{{"window_start": {cell.window_ms}, "user": "{cell.user}", '
            f'"total": {amounts.total}, "orders": {amounts.orders}}}'.encode()
        )
    return results


def test_right_results_are_found_right(book: OrderBook) -> None:
    assert len(book.closed()) == 3 * 8
    assert find_differences(book, results_of(book.closed())) == []


def test_a_lost_a_repeated_a_wrong_and_a_surplus_result_are_found(book: OrderBook) -> None:
    right = book.closed()
    first, second = sorted(right)[:2]

    lost = results_of({cell: amounts for cell, amounts in right.items() if cell != first})
    assert find_differences(book, lost) == [f"{first}: no result, recomputed {right[first]}"]

    repeated = results_of(right)
    repeated.take(
        f'{{"window_start": {first.window_ms}, "user": "{first.user}", '
        f'"total": {right[first].total}, "orders": {right[first].orders}}}'.encode()
    )
    assert find_differences(book, repeated) == [f"{first} came more than once"]

    wrong = Amounts(right[second].total, right[second].orders + 1)
    assert find_differences(book, results_of({**right, second: wrong})) == [
        f"{second}: {wrong}, recomputed {right[second]}"
    ]

    surplus = Cell(10 * WINDOW_MS, "nobody")
    [difference] = find_differences(book, results_of({**right, surplus: wrong}))
    assert difference == f"{surplus}: {wrong}, recomputed None"


def test_no_order_is_later_than_the_watermark_allows(book: OrderBook) -> None:
    assert JITTER_MS < OUT_OF_ORDERNESS_MS
    watermark_ms = book.watermark_ms

    _, times, partitions = book.make(100, 3 * WINDOW_MS + JITTER_MS + 40_000)

    assert min(times) >= watermark_ms
    assert set(partitions) == {0, 1, 2, 3}


def test_the_picture_fits_and_shows_the_newest_window() -> None:
    readings = Readings(
        records_in=12_000, lag=5, watermark_ms=90_000, windows=1, commits=7, tasks=8
    )
    readings.rates.extend([1_000.0, 3_000.0])
    assert "waiting for the first window" in picture(readings, "demo", 80)[-1]

    readings.newest, readings.users = 60_000, {"bob": Amounts(50.0, 2), "ada": Amounts(100.0, 3)}
    lines = picture(readings, "demo", 80)

    assert max(map(len, lines)) <= 80
    assert "2,000/s" in lines[2]
    assert "00:01:30" in lines[3]
    assert [line.split()[0] for line in lines[-2:]] == ["ada", "bob"]
    assert lines[-2].count("█") == 2 * lines[-1].count("█")
    assert "\x1b[32m█" in coloured(lines)[-1]
    assert max(map(len, picture(readings, "demo", 30))) <= 30
    assert window_line(readings).startswith("window 00:01: 5 orders of 2 users, revenue 150.00;")


def test_sparklines() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""
