"""Slots: the places of a window table's rows in its arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .accumulators import empty_array
from .column_types import NO_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .accumulators import Accumulator, Array, Part

_CAPACITY_MIN = 1024


class SlotArrays:
    """One array per field of each accumulator, which grow, and whose places are used again.

    Attributes:
        tags: Type of each aggregate's values as far as seen.
        is_dirty: Whether a row changed since the last barrier, by slot.
    """

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        self._accumulators = accumulators
        self._capacity = _CAPACITY_MIN
        self._end = 0  # slots from there on have never been used
        self._free: list[int] = []
        self._starts = np.zeros(self._capacity, dtype=np.int64)
        self._keys: list[bytes | None] = []
        self.tags = [NO_TYPE] * len(accumulators)
        self.is_dirty = np.zeros(self._capacity, dtype=np.bool_)
        self._fields: list[list[Array]] = [
            [empty_array(self._capacity, field) for field in accumulator.fields(NO_TYPE)]
            for accumulator in accumulators
        ]

    @property
    def used(self) -> int:
        """Number of rows held."""
        return self._end - len(self._free)

    def take(self, starts: Sequence[int] | Array, keys: Sequence[bytes]) -> list[int]:
        """Return a slot for each slice and key, with accumulators of no records."""
        again = min(len(keys), len(self._free))
        slots = self._free[len(self._free) - again :]
        del self._free[len(self._free) - again :]
        fresh = range(self._end, self._end + len(keys) - again)
        if fresh.stop > self._capacity:
            self._grow(fresh.stop)
        self._end = fresh.stop
        self._keys.extend(keys[again:])
        for slot, key in zip(slots, keys, strict=False):
            self._keys[slot] = key
        slots.extend(fresh)
        self._starts[slots] = starts
        return slots

    def release(self, slots: Sequence[int]) -> None:
        """Give slots back."""
        places = np.array(slots, dtype=np.int64)
        for arrays in self._fields:
            for array in arrays:
                array[places] = None if array.dtype == object else 0
        self.is_dirty[places] = False
        for slot in slots:
            self._keys[slot] = None
        self._free.extend(slots)

    def gather(self, slots: Array) -> list[Part]:
        """Return a copy of the accumulators at ``slots``."""
        return [tuple(array[slots] for array in arrays) for arrays in self._fields]

    def put(self, slots: Array, parts: Sequence[Part], *, is_dirty: bool = True) -> None:
        """Set the accumulators at ``slots``, each at most once among them."""
        for arrays, part in zip(self._fields, parts, strict=True):
            for array, values in zip(arrays, part, strict=True):
                array[slots] = values
        if is_dirty:
            self.is_dirty[slots] = True

    def widen(self, tags: Sequence[str]) -> None:
        """Make room for values of wider types."""
        for index, (before, after) in enumerate(zip(self.tags, tags, strict=True)):
            if before == after:
                continue
            arrays = self._fields[index]
            for at, field in enumerate(self._accumulators[index].fields(after)):
                if arrays[at].dtype != np.dtype(field):
                    # Numbers become objects only where there has been no value at all.
                    arrays[at] = (
                        empty_array(self._capacity, field)
                        if field is object
                        else arrays[at].astype(field)
                    )
            self.tags[index] = after

    def names(self, slots: Array) -> tuple[list[int], list[Any]]:
        """Return slice and state key of each slot."""
        keys = self._keys
        return self._starts[slots].tolist(), [keys[slot] for slot in slots.tolist()]

    def dirty_slots(self) -> Array:
        """Return the slots that changed."""
        return np.flatnonzero(self.is_dirty[: self._end])

    def clear_dirty(self) -> None:
        """Take all rows as unchanged."""
        self.is_dirty[: self._end] = False

    def _grow(self, needed: int) -> None:
        capacity = max(needed, self._capacity * 2)
        more = capacity - self._capacity
        self._starts = np.concatenate([self._starts, np.zeros(more, dtype=np.int64)])
        self.is_dirty = np.concatenate([self.is_dirty, np.zeros(more, dtype=np.bool_)])
        for arrays in self._fields:
            for at, array in enumerate(arrays):
                field: Any = object if array.dtype == object else array.dtype
                arrays[at] = np.concatenate([array, empty_array(more, field)])
        self._capacity = capacity
