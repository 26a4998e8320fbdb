from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from riverrun.engine.errors import TopologyError
from riverrun.operators.durations import duration_ms, positive_duration_ms
from riverrun.operators.windows import Hopping, Session, Tumbling


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("200ms", 200),
        ("5s", 5_000),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("1h30m", 5_400_000),
        ("1 m", 60_000),
        (250, 250),
        (0, 0),
        (dt.timedelta(minutes=2), 120_000),
    ],
)
def test_durations_are_read_as_milliseconds(written: Any, ms: int) -> None:
    assert duration_ms(written) == ms


@pytest.mark.parametrize("written", ["", "5", "m", "1.5s", "1 week", "-5s", "5S", "1m!"])
def test_text_that_is_no_duration_is_told_with_the_units(written: str) -> None:
    with pytest.raises(TopologyError, match=r"gap: cannot read .* ms, s, m, h, d"):
        duration_ms(written, "gap")


@pytest.mark.parametrize("written", [True, 1.5, None, b"1m"])
def test_other_types_are_no_durations(written: Any) -> None:
    with pytest.raises(TopologyError, match="is not a duration"):
        duration_ms(written)


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(TopologyError, match="negative"):
        duration_ms(-1)
    with pytest.raises(TopologyError, match="negative"):
        duration_ms(dt.timedelta(seconds=-1))


def test_parts_of_a_millisecond_are_refused() -> None:
    with pytest.raises(TopologyError, match="whole number of milliseconds"):
        duration_ms(dt.timedelta(microseconds=1500))


def test_zero_is_no_size_of_a_window() -> None:
    with pytest.raises(TopologyError, match="size must be longer than 0 ms"):
        positive_duration_ms("0s", "size")


@pytest.mark.parametrize(
    "written", [10**19, 2**53, "104249991375d", dt.timedelta(days=999_999_999)]
)
def test_a_duration_beyond_all_time_is_refused(written: Any) -> None:
    with pytest.raises(TopologyError, match=r"gap: .* is too long, more than 285 thousand years"):
        duration_ms(written, "gap")


def test_windows_that_never_end_are_refused() -> None:
    assert duration_ms(2**53 - 1) == 2**53 - 1
    for window in (Tumbling, Session):
        with pytest.raises(TopologyError, match=r"of a .* window: 10+ is too long"):
            window(10**30)
    with pytest.raises(TopologyError, match=r"advance of a hopping window: 10+ is too long"):
        Hopping("1m", 10**30)
