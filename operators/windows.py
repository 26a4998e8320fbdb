"""Windows: which spans of event time a record belongs to. Pure arithmetic, no state.

Every window is half open: it holds the times ``start <= t < end``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from riverrun.engine.errors import TopologyError

from .durations import Duration, duration_ms, positive_duration_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class AlignedWindows:
    """Windows of one size that begin every ``advance_ms``, counted from ``offset_ms``.

    They are made of slices: spans that lie wholly inside or outside of every window. A record is
    counted once, in its slice, and a window is the sum of its slices.

    Attributes:
        size_ms: Length of a window.
        advance_ms: From the start of one window to the start of the next.
        offset_ms: Start of one of the windows.
    """

    size_ms: int
    advance_ms: int
    offset_ms: int = 0

    @property
    def slice_ms(self) -> int:
        """Length of a slice.

        Example:
            >>> AlignedWindows(60_000, 60_000).slice_ms, AlignedWindows(60_000, 25_000).slice_ms
            (60000, 5000)
        """
        return math.gcd(self.size_ms, self.advance_ms)

    def slice_starts(self, times: pl.Series) -> pl.Series:
        """Return the start of the slice of each time; times before 1970 are negative."""
        earliest, latest = cast("int | None", times.min()), cast("int | None", times.max())
        if earliest is not None and latest is not None:
            start = earliest - (earliest - self.offset_ms) % self.slice_ms
            if latest < start + self.slice_ms:  # as a rule the records of a batch are in one
                return pl.Series([start], dtype=pl.Int64).new_from_index(0, len(times))
        return times - (times - self.offset_ms) % self.slice_ms

    def last_starts(self, times: pl.Series) -> pl.Series:
        """Return the start of the last window that holds each time."""
        return times - (times - self.offset_ms) % self.advance_ms

    def last_start(self, time_ms: int) -> int:
        """Return the start of the last window that holds ``time_ms``.

        Example:
            >>> AlignedWindows(10, 5).last_start(12)
            10
        """
        return time_ms - (time_ms - self.offset_ms) % self.advance_ms

    def first_start(self, time_ms: int) -> int:
        """Return the start of the first window that holds ``time_ms``.

        Example:
            >>> AlignedWindows(10, 5).first_start(12)
            5
        """
        return self.last_start(time_ms - self.size_ms) + self.advance_ms

    def starts(self, time_ms: int) -> range:
        """Return the starts of all windows that hold ``time_ms``, earliest first.

        Example:
            >>> list(AlignedWindows(10, 5).starts(12))
            [5, 10]
        """
        return range(self.first_start(time_ms), self.last_start(time_ms) + 1, self.advance_ms)

    def starts_over(self, slices: Sequence[int], first: int, end: int) -> Iterator[int]:
        """Yield the starts of all windows that hold any of some slices, earliest first.

        Args:
            slices: Starts of slices, in order.
            first: Window to begin with.
            end: Window to stop before.

        Example:
            >>> list(AlignedWindows(10, 5).starts_over([0, 5, 50], 0, 50))
            [0, 5, 45]
        """
        start, at = first, 0
        while (at := bisect_left(slices, start, at)) < len(slices):
            start = max(start, self.first_start(slices[at]))
            if start >= end:
                return
            yield start
            start += self.advance_ms


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows side by side: every record is in exactly one.

    Args:
        size: Length of a window.
        offset: Shifts all windows; ``Tumbling("1d", offset="6h")`` begins days at 06:00 UTC.

    Raises:
        TopologyError: If ``size`` is not a positive duration.

    Example:
        >>> Tumbling("1m").aligned().last_start(61_500)
        60000
    """

    size: Duration
    offset: Duration = 0

    def __post_init__(self) -> None:
        """Reject what is not a duration."""
        self.aligned()

    def aligned(self) -> AlignedWindows:
        """Return the windows in milliseconds."""
        size_ms = positive_duration_ms(self.size, "size of a tumbling window")
        return AlignedWindows(size_ms, size_ms, _offset_ms(self.offset, size_ms))


@dataclass(frozen=True, slots=True)
class Hopping:
    """Windows that overlap: one begins every ``advance``, each is ``size`` long.

    Args:
        size: Length of a window.
        advance: From the start of one window to the start of the next; at most ``size``.
        offset: Shifts all windows.

    Raises:
        TopologyError: If a duration is not positive, or there would be gaps between windows.

    Example:
        >>> list(Hopping("10m", "5m").aligned().starts(12 * 60_000))
        [300000, 600000]
    """

    size: Duration
    advance: Duration
    offset: Duration = 0

    def __post_init__(self) -> None:
        """Reject gaps, in which records would vanish."""
        windows = self.aligned()
        if windows.advance_ms > windows.size_ms:
            raise TopologyError(
                f"hopping window: advance {self.advance!r} is longer than size {self.size!r}; "
                "records between two windows would be lost. Filter them out if that is meant"
            )

    def aligned(self) -> AlignedWindows:
        """Return the windows in milliseconds."""
        size_ms = positive_duration_ms(self.size, "size of a hopping window")
        advance_ms = positive_duration_ms(self.advance, "advance of a hopping window")
        return AlignedWindows(size_ms, advance_ms, _offset_ms(self.offset, advance_ms))


@dataclass(frozen=True, slots=True)
class Session:
    """Windows by activity: records of a key less than ``gap`` apart are in one window.

    A session ends ``gap`` after its last record. A record exactly ``gap`` after another one
    begins a new session.

    Args:
        gap: Length of the silence that ends a session.

    Raises:
        TopologyError: If ``gap`` is not a positive duration.

    Example:
        >>> Session("30m").gap_ms
        1800000
    """

    gap: Duration

    def __post_init__(self) -> None:
        """Reject what is not a duration."""
        positive_duration_ms(self.gap, "gap of a session window")

    @property
    def gap_ms(self) -> int:
        """Length of the gap in milliseconds."""
        return duration_ms(self.gap)


Window = Tumbling | Hopping | Session


def _offset_ms(offset: Duration, advance_ms: int) -> int:
    return duration_ms(offset, "offset of a window") % advance_ms


def overlapping(sessions: Sequence[tuple[Any, ...]], start: int, end: int) -> tuple[int, int]:
    """Return which of some sessions a new span joins, as a half-open range of indices.

    Args:
        sessions: Start, end and whatever else of each, apart from each other, in order of time.
        start: Start of the new span.
        end: End of the new span.

    Example:
        >>> overlapping([(0, 10), (20, 30), (40, 50)], 5, 25)
        (0, 2)
        >>> overlapping([(0, 10), (20, 30)], 10, 20)
        (1, 1)
    """
    first = 0
    while first < len(sessions) and sessions[first][1] <= start:
        first += 1
    last = first
    while last < len(sessions) and sessions[last][0] < end:
        last += 1
    return first, last
