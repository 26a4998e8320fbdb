from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.errors import TopologyError
from riverrun.operators.windows import AlignedWindows, Hopping, Session, Tumbling, overlapping

times = st.integers(-(10**6), 10**6)
offsets = st.integers(-100, 100)


@st.composite
def aligned(draw: st.DrawFn) -> AlignedWindows:
    size = draw(st.integers(1, 60))
    return AlignedWindows(size, draw(st.integers(1, size)), draw(offsets))


def naive_starts(windows: AlignedWindows, time: int) -> list[int]:
    """Return the starts of all windows that hold a time, by trying every one near it."""
    near = range(time - windows.size_ms, time + windows.size_ms + 1)
    return [
        start
        for start in near
        if (start - windows.offset_ms) % windows.advance_ms == 0
        and start <= time < start + windows.size_ms
    ]


@given(aligned(), times)
def test_starts_are_those_of_all_windows_that_hold_the_time(
    windows: AlignedWindows, time: int
) -> None:
    expected = naive_starts(windows, time)
    assert list(windows.starts(time)) == expected
    assert windows.first_start(time) == expected[0]
    assert windows.last_start(time) == expected[-1]


@given(aligned(), st.lists(st.integers(-300, 300)), st.integers(-300, 300), st.integers(-300, 300))
def test_windows_over_slices_are_those_of_any_of_them(
    windows: AlignedWindows, some_times: list[int], first: int, end: int
) -> None:
    slices = sorted(set(windows.slice_starts(pl.Series(some_times, dtype=pl.Int64)).to_list()))
    first = windows.last_start(first)
    expected = {start for time in slices for start in windows.starts(time) if first <= start < end}
    assert list(windows.starts_over(slices, first, end)) == sorted(expected)


@given(aligned(), times)
def test_a_column_of_times_gives_the_same_windows(windows: AlignedWindows, time: int) -> None:
    assert windows.last_starts(pl.Series([time])).to_list() == [windows.last_start(time)]


@given(aligned(), times)
def test_a_slice_is_in_the_same_windows_as_each_of_its_times(
    windows: AlignedWindows, time: int
) -> None:
    (start,) = windows.slice_starts(pl.Series([time])).to_list()
    assert start <= time < start + windows.slice_ms
    assert list(windows.starts(start)) == list(windows.starts(time))


@given(aligned())
def test_windows_begin_and_end_where_slices_do(windows: AlignedWindows) -> None:
    for edge in (windows.offset_ms, windows.offset_ms + windows.size_ms):
        assert windows.slice_starts(pl.Series([edge])).to_list() == [edge]


def test_times_before_1970_are_in_windows_that_begin_before_them() -> None:
    windows = Tumbling("1s").aligned()
    assert windows.last_start(-1) == -1000
    assert windows.slice_starts(pl.Series([-1000, -1, 0])).to_list() == [-1000, -1000, 0]


def test_an_offset_shifts_all_windows() -> None:
    days = Tumbling("1d", offset="6h").aligned()
    assert days.last_start(5 * 3_600_000) == -18 * 3_600_000
    assert days.last_start(7 * 3_600_000) == 6 * 3_600_000


def test_hopping_windows_are_made_of_slices_that_divide_size_and_advance() -> None:
    assert Hopping("1m", "25s").aligned().slice_ms == 5_000
    assert Hopping("1m", "10s").aligned().slice_ms == 10_000


def test_gaps_between_hopping_windows_are_refused() -> None:
    with pytest.raises(TopologyError, match="records between two windows would be lost"):
        Hopping("10s", "1m")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tumbling("0s"),
        lambda: Tumbling("x"),
        lambda: Hopping("1m", 0),
        lambda: Session("0ms"),
    ],
)
def test_windows_of_no_length_are_refused(make: object) -> None:
    with pytest.raises(TopologyError):
        make()  # type: ignore[operator]


# --- sessions ------------------------------------------------------------------------------------


def merged_by_union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what a list of spans covers, by sorting: the model."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(1, 15))
def test_sessions_merge_to_the_same_whatever_the_order_of_arrival(
    starts: list[int], gap: int
) -> None:
    sessions: list[tuple[int, int]] = []
    for start in starts:
        end = start + gap
        first, last = overlapping(sessions, start, end)
        joined = [*sessions[first:last], (start, end)]
        sessions[first:last] = [(min(s for s, _ in joined), max(e for _, e in joined))]
    assert sessions == merged_by_union([(start, start + gap) for start in starts])


def test_a_record_exactly_a_gap_later_begins_a_new_session() -> None:
    assert overlapping([(0, 10)], 9, 19) == (0, 1)
    assert overlapping([(0, 10)], 10, 20) == (1, 1)
