"""The window table in native code, for numbers and text; for others it becomes the reference's."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from riverrun._kernel import WindowRows
from riverrun.engine.batch import KEY, TIME
from riverrun.engine.cache_budget import CacheBudget
from riverrun.engine.plane import WINDOW
from riverrun.engine.reference.accumulators import accumulator_of
from riverrun.engine.reference.column_types import (
    FLOAT,
    INT,
    NO_TYPE,
    TEXT,
    dtype_of,
    normalize,
    tag_of,
    widest,
)
from riverrun.engine.reference.row_format import decode_rows, row_header
from riverrun.engine.reference.slice_index import Slice, slice_range, stored_slices
from riverrun.engine.reference.state_keys import slice_to_state, split_by_type
from riverrun.engine.reference.window_table import ReferenceWindowTable
from riverrun.state import RowBlock

from .keys import keys_and_form

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from riverrun._kernel import Column, Results
    from riverrun.engine.cache_budget import CacheShare
    from riverrun.engine.plane import AggregateKind
    from riverrun.engine.reference.accumulators import Array
    from riverrun.state import Delta, StateReader

_FRAME_ROWS_MAX = 100_000
_LOADED_ROWS_MAX = 10_000  # rows read from the store at a time
_WINDOWS_MAX = 10_000  # looked at for one frame
_BLOCK_BYTES_MAX = 256 * 1024  # of blocks of several rows


class _NotNativeError(Exception):
    """The kernel does not know this; the reference table does, or can say what is wrong."""


class KernelWindowTable:
    """Keyed window aggregates; see ``riverrun.engine.plane.WindowTable`` for what it does.

    Values that are no numbers, dates, times or text, and rows in the store that are not its own,
    it leaves to the reference table: that takes over all rows, and is used from then on.

    Args:
        aggregates: Kind by name, in the order of the result's columns.
        prefix: What the state keys begin with.
        reader: The committed state.
        cache: Says how much memory rows may take that the store has too.
    """

    def __init__(
        self,
        aggregates: Mapping[str, AggregateKind],
        prefix: bytes,
        reader: StateReader,
        cache: CacheShare | None = None,
    ) -> None:
        self._aggregates = dict(aggregates)
        self._reads_times = any(kind in ("first", "last") for kind in aggregates.values())
        self._prefix = prefix
        self._reader = reader
        self._cache = cache or CacheBudget().new_share()
        self._rows = WindowRows(list(aggregates.values()), prefix)
        self._is_open = False
        self._removed: tuple[int, int] | None = None  # [from, to) of slices, until drained
        self._reference: ReferenceWindowTable | None = None

    def _open(self) -> WindowRows:
        # At the first use: a table is made before its task has restored the state.
        if not self._is_open:
            index = stored_slices(self._reader, self._prefix)
            self._rows.open_slices([(s, index.by_start[s].rows) for s in index.starts])
            self._is_open = True
        return self._rows

    @property
    def cached_bytes(self) -> int:
        """Bytes of memory that rows take, about; none any more once the reference table is used."""
        return self._rows.size

    # --- update ------------------------------------------------------------------------------

    def update(self, frame: pl.DataFrame, slice_starts: pl.Series) -> None:
        """Add records; all or, if it raises, none of them.

        Raises:
            OverflowError: A sum of integers does not fit in 64 bits.
            TypeError: A column changed to a type that does not go with the one before.
        """
        if not frame.height:
            return
        if self._reference is None:
            try:
                self._update(frame, slice_starts)
                return
            except _NotNativeError:
                self._reference = self._handed_over()
        self._reference.update(frame, slice_starts)

    def _update(self, frame: pl.DataFrame, slice_starts: pl.Series) -> None:
        rows = self._open()
        inputs, tags = self._inputs(frame)
        keys, form = keys_and_form(frame.get_column(KEY))
        widened = self._widest(tags)  # raises before anything is changed
        self._check_known(widened)
        times = frame.get_column(TIME) if self._reads_times else None
        try:
            missing = rows.prepare(keys, form, slice_starts, times, inputs)
            if isinstance(missing, int):
                raise self._overflow(missing)
            if missing:
                self._take_stored(self._found(missing), hold=True)
                # Asked again, since rows from the store may have brought types with them.
                widened = self._widest(tags)
            self._check_known(widened)
            failed = rows.apply(widened)
        except BaseException:
            rows.abandon()
            raise
        if failed is not None:
            raise self._overflow(failed)

    def _inputs(self, frame: pl.DataFrame) -> tuple[list[pl.Series | None], list[str]]:
        """Return the column that each aggregate reads, as numbers, and the tags of the types."""
        inputs: list[pl.Series | None] = []
        tags: list[str] = []
        for name, kind in self._aggregates.items():
            if kind == "count":
                column, tag = None, NO_TYPE
            elif kind == "count_values":
                column, tag = frame.get_column(name), NO_TYPE
                column = column.is_not_null() if column.null_count() else None
            else:
                column = normalize(frame.get_column(name))
                tag = tag_of(column.dtype)
                if tag == NO_TYPE:
                    column = None
                elif tag == TEXT:
                    if kind in ("sum", "mean"):
                        raise _NotNativeError
                elif tag not in (INT, FLOAT):
                    if tag[0] not in "DtTU" or kind in ("sum", "mean"):
                        raise _NotNativeError
                    column = column.to_physical().cast(pl.Int64)
            inputs.append(column)
            tags.append(tag)
        return inputs, tags

    def _widest(self, tags: Sequence[str]) -> list[str]:
        held = self._rows.tags
        if held == tags:
            return held
        return [widest(*both) for both in zip(self._aggregates, held, tags, strict=True)]

    def _check_known(self, tags: list[str]) -> None:
        if not self._rows.knows(tags):
            raise _NotNativeError

    def _overflow(self, failed: int) -> OverflowError:
        name = list(self._aggregates)[failed]
        return OverflowError(
            f"aggregate {name!r}: the sum does not fit in 64 bits; sum floats instead"
        )

    # --- rows that only the store has --------------------------------------------------------

    def _found(self, names: list[bytes]) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
        """Yield some names and the rows that the store has for them, until there are no more."""
        for at in range(0, len(names), _LOADED_ROWS_MAX):
            some = names[at : at + _LOADED_ROWS_MAX]
            yield some, self._reader.get_many(some)

    def _scanned(self, start: int, end: int) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
        """Yield state keys and rows of those slices that are not all here."""
        for first, last in self._rows.incomplete_runs(start, end):
            scan = iter(self._reader.scan(*slice_range(self._prefix, first, last)))
            while some := list(islice(scan, _LOADED_ROWS_MAX)):
                yield [name for name, _ in some], [row for _, row in some]

    def _take_stored(
        self, found: Iterable[tuple[list[bytes], list[bytes | None]]], *, hold: bool
    ) -> None:
        """Give rows to the kernel: to be held, or to be read once."""
        for names, rows in found:
            at = 0
            while at < len(names):
                at, tags = self._rows.take_stored(names, rows, at, hold)
                if at == len(names):
                    break
                if tags is None:
                    _check_row(self._aggregates, rows[at])
                    raise _NotNativeError
                widened = self._widest(tags)
                self._check_known(widened)
                self._rows.widen(widened)

    # --- read --------------------------------------------------------------------------------

    def read(
        self, windows: Sequence[int], size: int, keys: pl.Series | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield results of windows: of each, its slices merged by key.

        Yields:
            ``WINDOW``, ``KEY`` and one column per aggregate, in the order of the definition; rows
            in order of windows and state keys.

        Raises:
            OverflowError: A sum of integers does not fit in 64 bits.
        """
        at = 0
        while self._reference is None and at < len(windows):
            try:
                if keys is None:
                    results, step = self._read(list(windows[at : at + _WINDOWS_MAX]), size)
                else:
                    results, step = self._read_pairs(list(windows), size, keys), len(windows)
            except _NotNativeError:
                self._reference = self._handed_over()
                break
            if isinstance(results, int):
                raise self._overflow(results)
            at += step
            if results is not None:
                yield from self._frames(*results)
        if self._reference is not None and at < len(windows):
            yield from self._reference.read(windows[at:], size, keys)

    def _read(self, windows: list[int], size: int) -> tuple[Results, int]:
        """Return results of the first windows, and how many those are."""
        rows = self._open()
        group, end = rows.group(windows, size, _FRAME_ROWS_MAX)
        if not group:
            return None, end
        try:
            self._take_stored(self._scanned(group[0], group[-1] + size), hold=False)
            return rows.collect(group, size), end
        finally:
            rows.abandon()

    def _read_pairs(self, windows: list[int], size: int, keys: pl.Series) -> Results:
        rows = self._open()
        column, form = keys_and_form(keys)
        try:
            missing = rows.prepare_pairs(windows, size, column, form)
            self._take_stored(self._found(missing), hold=False)
            return rows.collect_pairs(windows, size)
        finally:
            rows.abandon()

    def _frames(
        self,
        windows: Column,
        keys: Column,
        are_state_keys: bool,
        columns: list[Column],
    ) -> Iterator[pl.DataFrame]:
        frame = pl.DataFrame(
            [
                pl.Series(windows).alias(WINDOW),
                *(
                    _typed(pl.Series(column).alias(name), kind, tag)
                    for (name, kind), column, tag in zip(
                        self._aggregates.items(), columns, self._rows.tags, strict=True
                    )
                ),
            ]
        )
        key_column = pl.Series(keys).alias(KEY)
        if are_state_keys:
            parts = _by_type(frame, key_column)
        else:
            parts = iter([frame.insert_column(1, key_column)])
        for part in parts:
            for at in range(0, part.height, _FRAME_ROWS_MAX):
                yield part.slice(at, _FRAME_ROWS_MAX)

    # --- the life of slices ------------------------------------------------------------------

    def slices(self) -> Sequence[int]:
        """Return the starts of all slices held, in order; valid until the table is changed."""
        return self._open().slices() if self._reference is None else self._reference.slices()

    def remove_below(self, start: int) -> None:
        """Drop all slices before ``start``, as one range delete."""
        if self._reference is not None:
            self._reference.remove_below(start)
            return
        gone = self._open().remove_below(start)
        if gone is not None:
            first, end = self._removed or (gone, start)
            self._removed = (min(first, gone), max(end, start))

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        if self._reference is not None:
            self._reference.drain_delta(delta)
            return
        if self._removed is not None:
            first, end = self._removed
            delta.range_deletes.append(
                (self._prefix + slice_to_state(first), self._prefix + slice_to_state(end))
            )
            self._removed = None
        for block in (RowBlock(*each) for each in self._rows.drain(self._cache.limit_bytes())):
            if len(block.data) <= _BLOCK_BYTES_MAX:
                delta.blocks.append(block)
            else:
                # One row of long text: what is no block is compressed before it may be too large.
                delta.puts.update(block.items())
        self._cache.held_bytes = self.cached_bytes

    def _handed_over(self) -> ReferenceWindowTable:
        """Return a reference table that has all that this one had."""
        table = ReferenceWindowTable(self._aggregates, self._prefix, self._reader, self._cache)
        table.adopt_types(self._rows.tags, self._removed)
        for start in self._open().slices():
            is_complete, count, clean, changed = self._rows.export(start)
            slice_ = Slice(is_complete=is_complete)
            slice_.rows = count
            table.adopt(start, slice_, clean, is_dirty=False)
            table.adopt(start, slice_, changed, is_dirty=True)
        self._rows = WindowRows(list(self._aggregates.values()), self._prefix)
        return table


def _check_row(aggregates: Mapping[str, AggregateKind], row: bytes | None) -> None:
    """Raise what the reference does if a row cannot be read."""
    if row is not None:
        row_header(row)
        decode_rows([accumulator_of(name, kind) for name, kind in aggregates.items()], [row])


def _typed(column: pl.Series, kind: AggregateKind, tag: str) -> pl.Series:
    """Return numbers as values of the type that they stand for."""
    if kind in ("count", "count_values", "sum", "mean") or tag in (INT, FLOAT):
        return column
    dtype: Any = dtype_of(tag)
    if tag == NO_TYPE:
        return pl.Series(column.name, [None] * len(column), dtype=dtype)
    return column.cast(dtype)


def _by_type(frame: pl.DataFrame, state_keys: pl.Series) -> Iterator[pl.DataFrame]:
    """Yield results with their keys, in order of windows and of the types of keys.

    A column holds keys of one type only, so a frame ends where their type changes.

    Args:
        frame: The results without keys, in order of windows.
        state_keys: The key of each.
    """
    groups = split_by_type(KEY, state_keys.unique().sort().to_list())
    ranks = {key: rank for rank, key in enumerate(key for alike, _ in groups for key in alike)}
    rank: Array = np.fromiter(
        map(ranks.__getitem__, state_keys.to_list()), np.int64, len(state_keys)
    )
    order = np.lexsort((rank, frame.get_column(WINDOW).to_numpy()))
    frame, rank = frame[order], rank[order]
    ends = np.cumsum([len(alike) for alike, _ in groups]).tolist()
    group_of: Array = np.searchsorted(ends, rank, side="right")
    bounds = [0, *(np.flatnonzero(np.diff(group_of)) + 1).tolist(), len(rank)]
    for begin, end in pairwise(bounds):
        at = int(group_of[begin])
        alike, keys = groups[at]
        column = keys.gather(rank[begin:end] - (ends[at] - len(alike)))
        yield frame.slice(begin, end - begin).insert_column(1, column)
