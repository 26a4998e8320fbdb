"""The window table in numpy: accumulators of all (slice, key) in arrays, found by Python dicts.

A batch is grouped by Polars first, so that dicts are asked once per group and the arrays are
worked on in bulk.
"""

from __future__ import annotations

from itertools import chain, groupby, islice, pairwise
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from riverrun.engine.batch import KEY, TIME
from riverrun.engine.cache_budget import CacheBudget

from .accumulators import accumulator_of
from .column_types import widest
from .row_format import decode_rows, encode_rows, row_header
from .slice_index import Slice, SliceIndex, slice_range, stored_slices
from .slot_arrays import SlotArrays
from .state_keys import SLICE_BYTES, slice_starts_of, slice_to_state, state_keys_of
from .window_rows import WindowRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from riverrun.engine.cache_budget import CacheShare
    from riverrun.engine.plane import AggregateKind
    from riverrun.state import Delta, StateReader

    from .accumulators import Array, Part

    AdoptedRows = Sequence[tuple[bytes, bytes]]
    _Fresh = tuple[int, Slice, list[bytes]]  # start of a slice, the slice, state keys new in it

_SLICE = "\0slice"
_FRAME_ROWS_MAX = 100_000
_LOADED_ROWS_MAX = 10_000  # rows read from the store at a time

ROW_BYTES = 300
"""What a row takes with its key and four aggregates, about: most of it is Python's objects."""


class ReferenceWindowTable:
    """Keyed window aggregates; see ``riverrun.engine.plane.WindowTable`` for what it does.

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
        self._accumulators = [accumulator_of(name, kind) for name, kind in aggregates.items()]
        self._reads_times = any(kind in ("first", "last") for kind in aggregates.values())
        self._prefix = prefix
        self._reader = reader
        self._cache = cache or CacheBudget().new_share()
        self._arrays = SlotArrays(self._accumulators)
        self._opened: SliceIndex | None = None
        self._removed: tuple[int, int] | None = None  # [from, to) of slices, until drained

    @property
    def _slices(self) -> SliceIndex:
        """Every slice that has rows, here or in the store."""
        # Looked up at the first use: a table is made before its task has restored the state.
        if self._opened is None:
            self._opened = stored_slices(self._reader, self._prefix)
        return self._opened

    def adopt(self, start: int, slice_: Slice, rows: AdoptedRows, *, is_dirty: bool) -> None:
        """Take over rows of a slice that another table held; called before anything else.

        Args:
            start: Start of the slice.
            slice_: The slice, empty, or with the rows of an earlier call.
            rows: State keys and stored rows.
            is_dirty: Whether the store does not have them yet.
        """
        if self._opened is None:
            self._opened = SliceIndex()
        if start not in self._opened.by_start:
            self._opened.add(start, slice_)
        for keys, tags, parts in self._decode(rows):
            slots = self._arrays.take([start] * len(keys), keys)
            slice_.slots.update(zip(keys, slots, strict=True))
            self._arrays.widen(self._widest(tags))
            self._arrays.put(np.array(slots), parts, is_dirty=is_dirty)

    def adopt_types(self, tags: Sequence[str], removed: tuple[int, int] | None) -> None:
        """Take over what else another table knew; called before anything else.

        Args:
            tags: Type of each aggregate's values.
            removed: Slices ``[from, to)`` that the store still has.
        """
        self._opened = self._opened or SliceIndex()
        self._arrays.widen(self._widest(tags))
        self._removed = removed

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
        fresh: list[_Fresh] = []
        try:
            slots = self._slots_of(starts, keys, fresh)
            # Asked again, since rows from the store may have brought types with them.
            tags = self._widest(tags)
            merged = [
                accumulator.merge(older, newer)
                for accumulator, older, newer in zip(
                    self._accumulators, self._arrays.gather(slots), parts, strict=True
                )
            ]
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

    def _slots_of(self, starts: Array, keys: list[bytes], fresh: list[_Fresh]) -> Array:
        """Return the place of each row, making one where there is none.

        Args:
            starts: Slices, in order.
            keys: State keys.
            fresh: Receives the rows that are new, by slice.
        """
        index = self._slices
        bounds = [0, *(np.flatnonzero(np.diff(starts)) + 1).tolist(), len(keys)]
        found: list[int | None] = []
        for start, (begin, end) in zip(starts[bounds[:-1]].tolist(), pairwise(bounds), strict=True):
            wanted = keys[begin:end]
            slice_ = index.by_start.get(start)
            if slice_ is None:
                slice_ = Slice(is_complete=True)
                index.add(start, slice_)
                fresh.append((start, slice_, wanted))
                found += [None] * len(wanted)
                continue
            places = list(map(slice_.slots.get, wanted))
            if None in places:
                missing = [key for key, place in zip(wanted, places, strict=True) if place is None]
                if not slice_.is_complete:
                    self._load(start, slice_, missing)
                    missing = [key for key in missing if key not in slice_.slots]
                    places = list(map(slice_.slots.get, wanted))
                fresh.append((start, slice_, missing))
            found += places
        if fresh:
            slots = iter(self._make(fresh))
            found = [next(slots) if place is None else place for place in found]
        return np.array(found, dtype=np.int64)

    def _make(self, fresh: list[_Fresh]) -> list[int]:
        """Make rows, and return their places."""
        counts = [len(keys) for _, _, keys in fresh]
        starts = np.repeat([start for start, _, _ in fresh], counts)
        slots = self._arrays.take(starts, list(chain.from_iterable(keys for _, _, keys in fresh)))
        rest = iter(slots)
        for (_, slice_, keys), count in zip(fresh, counts, strict=True):
            # Ends with the keys, and leaves the other places to the next.
            slice_.slots.update(zip(keys, rest, strict=False))
            slice_.rows += count
        return slots

    def _load(self, start: int, slice_: Slice, keys: list[bytes]) -> None:
        """Bring those of ``keys`` that the store has into the arrays."""
        first = self._prefix + slice_to_state(start)
        for at in range(0, len(keys), _LOADED_ROWS_MAX):
            some = keys[at : at + _LOADED_ROWS_MAX]
            rows = self._reader.get_many([first + key for key in some])
            stored = [(key, row) for key, row in zip(some, rows, strict=True) if row is not None]
            for held, tags, parts in self._decode(stored):
                # Raises before a place is taken: one that stays empty would hide the stored row.
                self._arrays.widen(self._widest(tags))
                slots = self._arrays.take([start] * len(held), held)
                slice_.slots.update(zip(held, slots, strict=True))
                self._arrays.put(np.array(slots), parts, is_dirty=False)

    def _forget(self, rows: list[_Fresh]) -> None:
        """Undo that rows were made, or were going to be."""
        for start, slice_, keys in rows:
            made = [key for key in keys if key in slice_.slots]
            self._arrays.release([slice_.slots.pop(key) for key in made])
            slice_.rows -= len(made)
            if slice_.is_complete and not slice_.slots:
                self._slices.remove(start)

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

    def read(
        self, windows: Sequence[int], size: int, keys: pl.Series | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield results of windows: of each, its slices merged by key.

        Yields:
            ``WINDOW``, ``KEY`` and one column per aggregate, in the order of the definition; rows
            in order of windows and state keys.
        """
        if keys is not None:
            rows = WindowRows(self._accumulators)
            self._add_pairs(rows, windows, size, state_keys_of(keys))
            yield from rows.frames(self._arrays.tags, _FRAME_ROWS_MAX)
            return
        for group in self._slices.groups(windows, size, _FRAME_ROWS_MAX):
            rows = WindowRows(self._accumulators)
            starts = np.array(group, dtype=np.int64)
            for slices, held, parts in self._rows_between(group[0], group[-1] + size):
                rows.add_to_all(starts, size, slices, held, parts)
            yield from rows.frames(self._arrays.tags, _FRAME_ROWS_MAX)

    def _rows_between(
        self, start: int, end: int
    ) -> Iterator[tuple[Array, list[bytes], list[Part]]]:
        """Yield slice, state key and accumulators of all rows of some slices."""
        by_start = self._slices.by_start
        known = self._slices.between(start, end)
        for is_complete, run in groupby(known, lambda start: by_start[start].is_complete):
            slices = list(run)
            keys: list[bytes] = []
            slots: list[int] = []
            for start in slices:
                held = by_start[start].slots
                keys += held
                slots += held.values()
            if keys:
                counts = [len(by_start[start].slots) for start in slices]
                starts = np.repeat(np.array(slices, dtype=np.int64), counts)
                yield starts, keys, self._arrays.gather(np.array(slots, dtype=np.int64))
            if not is_complete:
                yield from self._stored_rows(slices)

    def _stored_rows(self, slices: list[int]) -> Iterator[tuple[Array, list[bytes], list[Part]]]:
        """Yield the rows of neighbouring slices that only the store has."""
        cut = len(self._prefix)
        held = {slice_to_state(start): self._slices.by_start[start].slots for start in slices}
        scan = iter(self._reader.scan(*slice_range(self._prefix, slices[0], slices[-1])))
        while some := list(islice(scan, _LOADED_ROWS_MAX)):
            rows: list[tuple[bytes, bytes]] = []  # slice and state key, row
            for stored_key, row in some:
                key = stored_key[cut:]
                slots = held.get(key[:SLICE_BYTES])
                if slots is not None and key[SLICE_BYTES:] not in slots:
                    rows.append((key, row))
            for keys, tags, parts in self._decode(rows):
                self._arrays.widen(self._widest(tags))
                yield slice_starts_of(keys), [key[SLICE_BYTES:] for key in keys], parts

    def _add_pairs(
        self, into: WindowRows, windows: Sequence[int], size: int, keys: list[bytes]
    ) -> None:
        """Add the rows of some keys of some windows: from here, and from the store the others."""
        found: list[tuple[int, int, list[bytes]]] = []  # window, slice, state keys
        slots: list[int] = []
        absent: list[tuple[int, int, list[bytes]]] = []
        bounds = [0, *(np.flatnonzero(np.diff(windows)) + 1).tolist(), len(windows)]
        for begin, end in pairwise(bounds if keys else []):
            window, wanted = windows[begin], keys[begin:end]
            for start in self._slices.between(window, window + size):
                slice_ = self._slices.by_start[start]
                places = list(map(slice_.slots.get, wanted))
                held = wanted
                if None in places:
                    held = [key for key in wanted if key in slice_.slots]
                    if not slice_.is_complete:
                        absent.append((window, start, [k for k in wanted if k not in slice_.slots]))
                found.append((window, start, held))
                slots += [place for place in places if place is not None]
            if len(slots) > _FRAME_ROWS_MAX or end == len(windows):
                counts = [len(held) for _, _, held in found]
                into.add(
                    np.repeat([window for window, _, _ in found], counts),
                    np.repeat([start for _, start, _ in found], counts),
                    [key for _, _, held in found for key in held],
                    self._arrays.gather(np.array(slots, dtype=np.int64)),
                )
                found, slots = [], []
        self._add_stored_pairs(into, absent)

    def _add_stored_pairs(
        self, into: WindowRows, pairs: list[tuple[int, int, list[bytes]]]
    ) -> None:
        """Add those rows that the store has: window, slice and state keys of each."""
        names = (
            slice_to_state(window) + slice_to_state(start) + key
            for window, start, keys in pairs
            for key in keys
        )
        while some := list(islice(names, _LOADED_ROWS_MAX)):
            rows = self._reader.get_many([self._prefix + name[SLICE_BYTES:] for name in some])
            stored = [(name, row) for name, row in zip(some, rows, strict=True) if row is not None]
            for alike, tags, parts in self._decode(stored):
                self._arrays.widen(self._widest(tags))
                keys = [name[SLICE_BYTES:] for name in alike]
                windows, slices = slice_starts_of(alike), slice_starts_of(keys)
                into.add(windows, slices, [key[SLICE_BYTES:] for key in keys], parts)

    # --- the life of slices ------------------------------------------------------------------

    def slices(self) -> Sequence[int]:
        """Return the starts of all slices held, in order; valid until the table is changed."""
        return self._slices.starts

    def remove_below(self, start: int) -> None:
        """Drop all slices before ``start``, as one range delete."""
        gone = self._slices.pop_below(start)
        if not gone:
            return
        self._arrays.release([slot for _, slice_ in gone for slot in slice_.slots.values()])
        first, end = self._removed or (gone[0][0], start)
        self._removed = (min(first, gone[0][0]), max(end, start))

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
        if self._arrays.used * ROW_BYTES > self._cache.limit_bytes():
            self._evict()
        self._cache.held_bytes = self._arrays.used * ROW_BYTES
        self._arrays.clear_dirty()

    def _evict(self) -> None:
        """Drop the rows that were clean before this barrier: the store has them by now.

        Those just drained it has not yet, only the delta has.
        """
        is_dirty = self._arrays.is_dirty
        released: list[int] = []
        for slice_ in self._slices.by_start.values():
            clean = [key for key, slot in slice_.slots.items() if not is_dirty[slot]]
            if clean:
                released += map(slice_.slots.pop, clean)
                slice_.is_complete = False
        self._arrays.release(released)
