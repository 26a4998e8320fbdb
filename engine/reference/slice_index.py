"""Which slices a window table has, in order, and where their rows are."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import accumulate
from typing import TYPE_CHECKING

from .state_keys import SLICE_BYTES, slice_start_of, slice_to_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from riverrun.state import StateReader

MANY_ROWS = 100_000
"""Rows of a slice whose rows in the store have not been counted: as if it filled a frame."""

_COUNTED_ROWS_MAX = 1000  # beyond, the next slice is sought and not scanned for


class Slice:
    """One slice of event time.

    Attributes:
        slots: Place in the arrays, by state key.
        is_complete: Whether all its rows are here, so that a miss need not ask the store.
        rows: How many rows it has, those in the store included; ``MANY_ROWS`` or more if there
            are too many to count.
    """

    __slots__ = ("is_complete", "rows", "slots")

    def __init__(self, *, is_complete: bool) -> None:
        self.slots: dict[bytes, int] = {}
        self.is_complete = is_complete
        self.rows = 0


class SliceIndex:
    """Slices by start.

    Attributes:
        starts: The starts of all slices, in order.
        by_start: The slices.
    """

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.by_start: dict[int, Slice] = {}

    def add(self, start: int, slice_: Slice) -> None:
        """Add a slice that is not there yet."""
        insort(self.starts, start)
        self.by_start[start] = slice_

    def remove(self, start: int) -> None:
        """Remove a slice."""
        del self.starts[bisect_left(self.starts, start)]
        del self.by_start[start]

    def pop_below(self, start: int) -> list[tuple[int, Slice]]:
        """Remove the slices that begin before ``start``, and return them with their starts."""
        count = bisect_left(self.starts, start)
        gone = self.starts[:count]
        del self.starts[:count]
        return [(known, self.by_start.pop(known)) for known in gone]

    def between(self, start: int, end: int) -> list[int]:
        """Return the starts ``start <= s < end``."""
        starts = self.starts
        return starts[bisect_left(starts, start) : bisect_left(starts, end)]

    def groups(self, windows: Sequence[int], size: int, rows_max: int) -> Iterator[list[int]]:
        """Yield those windows that have rows, together as long as their slices' rows are few.

        Args:
            windows: Their starts, in order.
            size: Length of each.
            rows_max: Rows that several windows have together; a single one may have more.
        """
        if not windows:
            return
        known = self.between(windows[0], windows[-1] + size)
        rows_before = [0, *accumulate(self.by_start[start].rows for start in known)]
        group: list[int] = []
        rows = first = 0
        for window in windows:
            first = bisect_left(known, window, first)
            last = bisect_left(known, window + size, first)
            more = rows_before[last] - rows_before[first]
            if not more:
                continue
            if group and rows + more > rows_max:
                yield group
                group, rows = [], 0
            group.append(window)
            rows += more
        if group:
            yield group


def stored_slices(reader: StateReader, prefix: bytes) -> SliceIndex:
    """Return the slices that have rows in the store: one scan, which skips what is large.

    Args:
        reader: The committed state.
        prefix: What the state keys of the table begin with.
    """
    index = SliceIndex()
    cut = len(prefix) + SLICE_BYTES
    at: bytes | None = prefix
    end = prefix + b"\xff" * (SLICE_BYTES + 1)
    while at is not None:
        rows, at = reader.scan(at, end), None
        head, slice_ = b"", Slice(is_complete=False)
        for key, _ in rows:
            if key[:cut] != head:
                head = key[:cut]
                slice_ = Slice(is_complete=False)
                index.add(slice_start_of(head[len(prefix) :]), slice_)
            slice_.rows += 1
            if slice_.rows > _COUNTED_ROWS_MAX:
                slice_.rows = MANY_ROWS
                at = head + b"\xff"
                break
    return index


def slice_range(prefix: bytes, first: int, last: int | None = None) -> tuple[bytes, bytes]:
    """Return the range of state keys of a slice, or of all from one to another.

    Args:
        prefix: What the state keys of the table begin with.
        first: Start of the first slice.
        last: Start of the last slice; None if that is the first.
    """
    end = slice_to_state(first if last is None else last)
    # No state key of a record begins with that byte.
    return prefix + slice_to_state(first), prefix + end + b"\xff"
