"""Rows of windows on their way to results: those of one window and key become one."""

from __future__ import annotations

from collections import defaultdict
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from riverrun.engine.batch import KEY
from riverrun.engine.plane import WINDOW

from .state_keys import split_by_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .accumulators import Accumulator, Array, Part

_PENDING_ROWS_MAX = 250_000  # merged beyond, so that a large window is not held slice by slice


class _Rows(NamedTuple):
    """Arrays of one length: window, number of the key, slice, and one part per aggregate."""

    windows: Array
    keys: Array
    slices: Array
    parts: list[Part]


class WindowRows:
    """Gathers rows of slices for some windows.

    Args:
        accumulators: One per aggregate.
    """

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        self._accumulators = accumulators
        self._numbers: defaultdict[bytes, int] = defaultdict(count().__next__)  # by state key
        self._added: list[_Rows] = []
        self._pending = 0
        self._pending_max = _PENDING_ROWS_MAX

    def add(
        self, windows: Array, slices: Array, keys: Sequence[bytes], parts: Sequence[Part]
    ) -> None:
        """Add rows; no two of them with the same window, slice and key.

        Args:
            windows: Start of the window that each counts in.
            slices: Start of the slice that each is from.
            keys: State keys.
            parts: One part per aggregate.
        """
        numbers = np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))
        self._keep(_Rows(windows, numbers, slices, list(parts)))

    def add_to_all(
        self,
        windows: Array,
        size: int,
        slices: Array,
        keys: Sequence[bytes],
        parts: Sequence[Part],
    ) -> None:
        """Add rows to each window that their slices are in.

        Args:
            windows: Starts of the windows, in order.
            size: Their length.
            slices: Start of the slice that each row is from.
            keys: State keys.
            parts: One part per aggregate.
        """
        numbers = np.fromiter(map(self._numbers.__getitem__, keys), np.int64, len(keys))
        if not len(numbers):
            return
        first = np.searchsorted(windows, slices - size, side="right")
        counts = np.searchsorted(windows, slices, side="right") - first
        if not counts.any():
            return  # rows that lie between the windows
        if (counts == 1).all():
            self._keep(_Rows(windows[first], numbers, slices, list(parts)))
            return
        at_most = max(1, _PENDING_ROWS_MAX // int(counts.max()))
        for begin in range(0, len(numbers), at_most):
            some = slice(begin, begin + at_most)
            again = counts[some]
            rows = np.repeat(np.arange(begin, begin + len(again)), again)
            # 0, 1, ... for each row: the places of its windows, counted from its first.
            nth = np.arange(len(rows)) - np.repeat(np.cumsum(again) - again, again)
            taken = [tuple(array[rows] for array in part) for part in parts]
            self._keep(_Rows(windows[first[rows] + nth], numbers[rows], slices[rows], taken))

    def _keep(self, rows: _Rows) -> None:
        self._added.append(rows)
        self._pending += len(rows.keys)
        if self._pending > self._pending_max:
            merged = self._merge(self._added)
            self._added, self._pending = [merged], len(merged.keys)
            self._pending_max = max(_PENDING_ROWS_MAX, 2 * self._pending)

    def _merge(self, added: Sequence[_Rows]) -> _Rows:
        """Return one row per window and key, in order of those."""
        windows = np.concatenate([rows.windows for rows in added])
        keys = np.concatenate([rows.keys for rows in added])
        slices = np.concatenate([rows.slices for rows in added])
        order = np.lexsort((slices, keys, windows))
        windows, keys, slices = windows[order], keys[order], slices[order]
        parts = [
            tuple(np.concatenate(arrays)[order] for arrays in zip(*part, strict=True))
            for part in zip(*(rows.parts for rows in added), strict=True)
        ]
        while len(keys) > 1:
            goes_on = np.append((windows[1:] == windows[:-1]) & (keys[1:] == keys[:-1]), False)
            if not goes_on.any():
                break
            # Merge the first with the second of each window and key, the third with the fourth,
            # and so on; then again with what is left.
            begins = np.flatnonzero(np.append(True, ~goes_on[:-1]))
            lengths = np.diff(np.append(begins, len(keys)))
            nth = np.arange(len(keys)) - np.repeat(begins, lengths)
            kept = np.flatnonzero(nth % 2 == 0)
            left = kept[goes_on[kept]]
            parts = [
                self._merge_pairs(accumulator, part, left, kept)
                for accumulator, part in zip(self._accumulators, parts, strict=True)
            ]
            windows, keys, slices = windows[kept], keys[kept], slices[kept]
        return _Rows(windows, keys, slices, parts)

    def _merge_pairs(self, accumulator: Accumulator, part: Part, left: Array, kept: Array) -> Part:
        """Return the rows ``kept``; those at ``left`` with their neighbours merged into them."""
        right = left + 1
        merged = accumulator.merge(
            tuple(array[left] for array in part), tuple(array[right] for array in part)
        )
        for array, changed in zip(part, merged, strict=True):
            array[left] = changed
        return tuple(array[kept] for array in part)

    def frames(self, tags: Sequence[str], rows_max: int) -> Iterator[pl.DataFrame]:
        """Yield results in order of windows and state keys, keys of one type together.

        A column holds keys of one type only, so a frame ends where their type changes.

        Args:
            tags: Type of each aggregate's values.
            rows_max: Rows of a frame.
        """
        if not self._pending:
            return
        groups = split_by_type(KEY, sorted(self._numbers))
        names = [name for alike, _ in groups for name in alike]
        ranks = np.empty(len(names), dtype=np.int64)
        ranks[[self._numbers[name] for name in names]] = np.arange(len(names))
        merged = self._merge([rows._replace(keys=ranks[rows.keys]) for rows in self._added])
        ends = np.cumsum([len(alike) for alike, _ in groups])
        group_of = np.searchsorted(ends, merged.keys, side="right")
        for at, end in _runs(group_of, rows_max):
            group = int(group_of[at])
            alike, keys = groups[group]
            some = slice(at, end)
            numbers = merged.keys[some] - (ends[group] - len(alike))
            columns = [pl.Series(WINDOW, merged.windows[some]), keys.gather(numbers)]
            columns += [
                accumulator.result(tuple(array[some] for array in part), tag)
                for accumulator, part, tag in zip(
                    self._accumulators, merged.parts, tags, strict=True
                )
            ]
            yield pl.DataFrame(columns)


def _runs(values: Array, rows_max: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of rows with one value, at most so many."""
    bounds = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for begin, end in pairwise(bounds):
        for at in range(begin, end, rows_max):
            yield at, min(at + rows_max, end)
