"""The window table in numpy: accumulators of all (slice, key) in arrays, found by Python dicts.

A batch is grouped by Polars first, so that dicts are asked once per group and the arrays are
worked on in bulk.
"""

from __future__ import annotations

from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from riverrun.engine.batch import KEY, TIME

from .accumulators import accumulator_of
from .column_types import widest
from .row_format import decode_rows, empty_parts, encode_rows, row_header
from .slot_arrays import SlotArrays
from .state_keys import slice_start_of, slice_to_state, state_keys_of, state_keys_to_series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from riverrun.engine.plane import AggregateKind
    from riverrun.state import Delta, StateReader

    from .accumulators import Array, Part

_SLICE = "\0slice"
_SLICE_BYTES = 8
_FRAME_ROWS_MAX = 100_000
_LOADED_ROWS_MAX = 10_000  # rows read from the store at a time

CACHED_ROWS_MAX = 500_000
"""Above, rows that the store has are dropped at a barrier; about 150 MB with four aggregates."""


class _Slice:
    """One slice of event time.

    Attributes:
        slots: Place in the arrays, by state key.
        is_complete: Whether all its rows are here, so that a miss need not ask the store.
    """

    __slots__ = ("is_complete", "slots")

    def __init__(self, *, is_complete: bool) -> None:
        self.slots: dict[bytes, int] = {}
        self.is_complete = is_complete


class ReferenceWindowTable:
    """Keyed window aggregates; see ``riverrun.engine.plane.WindowTable`` for what it does.

    Args:
        aggregates: Kind by name, in the order of the result's columns.
        prefix: What the state keys begin with.
        reader: The committed state.
    """

    def __init__(
        self, aggregates: Mapping[str, AggregateKind], prefix: bytes, reader: StateReader
    ) -> None:
        self._accumulators = [accumulator_of(name, kind) for name, kind in aggregates.items()]
        self._reads_times = any(kind in ("first", "last") for kind in aggregates.values())
        self._prefix = prefix
        self._reader = reader
        self._arrays = SlotArrays(self._accumulators)
        self._opened: dict[int, _Slice] | None = None
        self._removed: tuple[int, int] | None = None  # [from, to) of slices, until drained

    @property
    def _slices(self) -> dict[int, _Slice]:
        """Every slice that has rows, here or in the store."""
        # Looked up at the first use: a table is made before its task has restored the state.
        if self._opened is None:
            self._opened = {}
            at, end = self._prefix, self._prefix + b"\xff" * (_SLICE_BYTES + 1)
            while (row := next(iter(self._reader.scan(at, end)), None)) is not None:
                start = slice_start_of(row[0][len(self._prefix) :])
                self._opened[start] = _Slice(is_complete=False)
                at = self._slice_range(start)[1]
        return self._opened

    def _slice_range(self, start: int) -> tuple[bytes, bytes]:
        """Return the range of state keys of a slice."""
        first = self._prefix + slice_to_state(start)
        return first, first + b"\xff"  # no state key of a record begins with that byte

    # --- update ------------------------------------------------------------------------------

    def update(self, frame: pl.DataFrame, slice_starts: pl.Series) -> None:
        """Add records; all or, if it raises, none of them.

        Raises:
            OverflowError: A sum of integers does not fit in 64 bits.
            TypeError: A column changed to a type that does not go with the one before.
        """
        if not frame.height:
            return
        inputs = [accumulator.input(frame) for accumulator in self._accumulators]
        tags = [
            accumulator.tag(column)
            for accumulator, column in zip(self._accumulators, inputs, strict=True)
        ]
        self._widest(tags)  # raises before anything is changed
        grouped = self._group(frame, slice_starts, inputs)
        parts = [
            accumulator.part(grouped, tag)
            for accumulator, tag in zip(self._accumulators, tags, strict=True)
        ]
        starts = grouped.get_column(_SLICE).to_numpy()
        keys = state_keys_of(grouped.get_column(KEY))
        fresh: list[tuple[int, list[bytes]]] = []
        try:
            slots = self._slots_of(starts, keys, fresh)
            merged = [
                accumulator.merge(older, newer)
                for accumulator, older, newer in zip(
                    self._accumulators, self._arrays.gather(slots), parts, strict=True
                )
            ]
            # Asked again, since rows from the store may have brought types with them.
            tags = self._widest(tags)
        except Exception:
            self._forget(fresh)
            raise
        self._arrays.widen(tags)
        self._arrays.put(slots, merged)

    def _group(
        self, frame: pl.DataFrame, slice_starts: pl.Series, inputs: Sequence[pl.Series | None]
    ) -> pl.DataFrame:
        """Return partial aggregates of a batch, by slice and key, in order of slices."""
        columns = [frame.get_column(KEY), slice_starts.alias(_SLICE)]
        columns += [column for column in inputs if column is not None]
        if self._reads_times:
            columns.append(frame.get_column(TIME))
        batch = pl.DataFrame(columns)
        if self._reads_times and not frame.get_column(TIME).is_sorted():
            batch = batch.sort(TIME, maintain_order=True)
        grouped = batch.group_by(_SLICE, KEY).agg(
            expression
            for accumulator, column in zip(self._accumulators, inputs, strict=True)
            for expression in accumulator.expressions(column)
        )
        return grouped if slice_starts.min() == slice_starts.max() else grouped.sort(_SLICE)

    def _slots_of(
        self, starts: Array, keys: list[bytes], fresh: list[tuple[int, list[bytes]]]
    ) -> Array:
        """Return the place of each row, making one where there is none.

        Args:
            starts: Slices, in order.
            keys: State keys.
            fresh: Receives the rows that are new, by slice.
        """
        bounds = [0, *(np.flatnonzero(np.diff(starts)) + 1).tolist(), len(keys)]
        found: list[int | None] = []
        for begin, end in pairwise(bounds):
            start = int(starts[begin])
            slice_ = self._slices.get(start)
            if slice_ is None:
                slice_ = self._slices[start] = _Slice(is_complete=True)
            wanted = keys[begin:end]
            places = list(map(slice_.slots.get, wanted))
            if None in places:
                missing = [key for key, place in zip(wanted, places, strict=True) if place is None]
                if not slice_.is_complete:
                    self._load(start, slice_, missing)
                    missing = [key for key in missing if key not in slice_.slots]
                slice_.slots.update(zip(missing, self._arrays.take(start, missing), strict=True))
                fresh.append((start, missing))
                places = list(map(slice_.slots.get, wanted))
            found += places
        return np.array(found, dtype=np.int64)

    def _load(self, start: int, slice_: _Slice, keys: list[bytes]) -> None:
        """Bring those of ``keys`` that the store has into the arrays."""
        first = self._prefix + slice_to_state(start)
        for at in range(0, len(keys), _LOADED_ROWS_MAX):
            some = keys[at : at + _LOADED_ROWS_MAX]
            rows = self._reader.get_many([first + key for key in some])
            stored = [(key, row) for key, row in zip(some, rows, strict=True) if row is not None]
            for held, tags, parts in self._decode(stored):
                slots = self._arrays.take(start, held)
                slice_.slots.update(zip(held, slots, strict=True))
                self._arrays.widen(self._widest(tags))
                self._arrays.put(np.array(slots), parts, is_dirty=False)

    def _forget(self, rows: list[tuple[int, list[bytes]]]) -> None:
        """Undo that rows were made."""
        for start, keys in rows:
            slice_ = self._slices[start]
            self._arrays.release([slice_.slots.pop(key) for key in keys])
            if slice_.is_complete and not slice_.slots:
                del self._slices[start]

    def _decode(
        self, rows: Sequence[tuple[bytes, bytes]]
    ) -> Iterator[tuple[list[bytes], list[str], list[Part]]]:
        """Yield keys, tags and parts of stored rows, those of one layout together."""
        by_header: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for key, row in rows:
            by_header.setdefault(row_header(row), []).append((key, row))
        for alike in by_header.values():
            tags, parts = decode_rows(self._accumulators, [row for _, row in alike])
            yield [key for key, _ in alike], tags, parts

    def _widest(self, tags: Sequence[str]) -> list[str]:
        return [
            widest(accumulator.name, a, b)
            for accumulator, a, b in zip(self._accumulators, self._arrays.tags, tags, strict=True)
        ]

    # --- read --------------------------------------------------------------------------------

    def read(self, start: int, end: int, keys: pl.Series | None = None) -> Iterator[pl.DataFrame]:
        """Yield results over all slices with ``start <= slice start < end``, merged by key.

        Yields:
            ``KEY`` and one column per aggregate, in the order of the state keys.
        """
        wanted = None if keys is None else state_keys_of(keys)
        merged = _Rows([], empty_parts(self._accumulators, self._arrays.tags, 0))
        for slice_start in sorted(s for s in self._slices if start <= s < end):
            for rows in self._rows_of(slice_start, wanted):
                merged = self._merge(merged, rows)
        tags = self._arrays.tags
        order = sorted(range(len(merged.keys)), key=merged.keys.__getitem__)
        for at in range(0, len(order), _FRAME_ROWS_MAX):
            some = order[at : at + _FRAME_ROWS_MAX]
            index = np.array(some)
            columns = [state_keys_to_series(KEY, [merged.keys[i] for i in some])]
            columns += [
                accumulator.result(tuple(array[index] for array in part), tag)
                for accumulator, part, tag in zip(
                    self._accumulators, merged.parts, tags, strict=True
                )
            ]
            yield pl.DataFrame(columns)

    def _rows_of(self, start: int, wanted: list[bytes] | None) -> Iterator[_Rows]:
        """Yield the rows of a slice, all or those of some keys: cached, then stored."""
        slice_ = self._slices[start]
        held = slice_.slots
        keys = list(held) if wanted is None else [key for key in wanted if key in held]
        if keys:
            slots = np.array([held[key] for key in keys])
            yield _Rows(keys, self._arrays.gather(slots))
        if slice_.is_complete:
            return
        first, end = self._slice_range(start)
        if wanted is None:
            cut = len(first)
            stored = [
                (key[cut:], row)
                for key, row in self._reader.scan(first, end)
                if key[cut:] not in held
            ]
        else:
            missing = [key for key in wanted if key not in held]
            rows = self._reader.get_many([first + key for key in missing])
            stored = [(key, row) for key, row in zip(missing, rows, strict=True) if row is not None]
        for alike, tags, parts in self._decode(stored):
            self._arrays.widen(self._widest(tags))
            yield _Rows(alike, parts)

    def _merge(self, older: _Rows, newer: _Rows) -> _Rows:
        """Return the rows of two sets, merged where they have the same key."""
        if not older.keys:
            return newer
        place = {key: i for i, key in enumerate(older.keys)}
        shared = [i for i, key in enumerate(newer.keys) if key in place]
        extra = [i for i, key in enumerate(newer.keys) if key not in place]
        into = np.array([place[newer.keys[i]] for i in shared], dtype=np.int64)
        parts: list[Part] = []
        for accumulator, a, b in zip(self._accumulators, older.parts, newer.parts, strict=True):
            merged = accumulator.merge(
                tuple(array[into] for array in a), tuple(array[shared] for array in b)
            )
            arrays: list[Any] = []
            for whole, changed, other in zip(a, merged, b, strict=True):
                joined = np.concatenate([whole, other[extra]])
                joined = joined.astype(np.result_type(joined, changed), copy=False)
                joined[into] = changed
                arrays.append(joined)
            parts.append(tuple(arrays))
        return _Rows(older.keys + [newer.keys[i] for i in extra], parts)

    # --- the life of slices ------------------------------------------------------------------

    def first_slice(self) -> int | None:
        """Return the start of the earliest slice held, None if the table is empty."""
        return min(self._slices, default=None)

    def remove_below(self, start: int) -> None:
        """Drop all slices before ``start``, as one range delete."""
        gone = [known for known in self._slices if known < start]
        if not gone:
            return
        for known in gone:
            self._arrays.release(list(self._slices.pop(known).slots.values()))
        first, end = self._removed or (min(gone), start)
        self._removed = (min(first, *gone), max(end, start))

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        if self._removed is not None:
            first, end = self._removed
            delta.range_deletes.append(
                (self._prefix + slice_to_state(first), self._prefix + slice_to_state(end))
            )
            self._removed = None
        slots = self._arrays.dirty_slots()
        if len(slots):
            rows = encode_rows(self._accumulators, self._arrays.tags, self._arrays.gather(slots))
            starts, keys = self._arrays.names(slots)
            first = {start: self._prefix + slice_to_state(start) for start in set(starts)}
            state_keys = list(map(add, map(first.__getitem__, starts), keys))
            delta.puts.update(zip(state_keys, rows, strict=True))
        if self._arrays.used > CACHED_ROWS_MAX:
            self._evict()
        self._arrays.clear_dirty()

    def _evict(self) -> None:
        """Drop the rows that were clean before this barrier: the store has them by now.

        Those just drained it has not yet, only the delta has.
        """
        is_dirty = self._arrays.is_dirty
        for slice_ in self._slices.values():
            clean = [key for key, slot in slice_.slots.items() if not is_dirty[slot]]
            if clean:
                self._arrays.release([slice_.slots.pop(key) for key in clean])
                slice_.is_complete = False


class _Rows:
    """Some rows outside of the table: state keys and one part per aggregate."""

    __slots__ = ("keys", "parts")

    def __init__(self, keys: list[bytes], parts: list[Part]) -> None:
        self.keys = keys
        self.parts = parts
