"""Timers of one step: which key wants to be called at what time; durable, in order of time."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from riverrun.engine.keys import key_from_state, key_to_state

if TYPE_CHECKING:
    from riverrun.engine.operator import OperatorContext
    from riverrun.state import Delta, StateReader

_SIGN = 1 << 63
_TIME_BYTES = 8


class TimerTable:
    """Timers by time and key; setting one twice is setting it once.

    In state a timer is a row whose key begins with the time, so that those that are due are a
    range. In memory are only the rows that this epoch or the one before set, and those that were
    read because they are due.

    Args:
        prefix: What all rows begin with.
        reader: The committed state.
    """

    def __init__(self, prefix: bytes, reader: StateReader) -> None:
        self._prefix = prefix
        self._reader = reader
        self._heap: list[bytes] = []  # rows, some of them no longer live
        self._live: set[bytes] = set()
        # Every stored row below this one is in the heap or was taken out.
        self._loaded_to = b""
        self._changed: dict[bytes, bool] = {}  # {row: whether it is set}, since the last drain
        self._removed_before: set[bytes] = set()  # removed in the epoch before

    @staticmethod
    def open(context: OperatorContext, name: str) -> TimerTable:
        """Open the timers of a step."""
        full_name = f"{context.step}/{name}"
        table = TimerTable(context.state.open_prefix(full_name), context.state.reader)
        context.state.register(full_name, table)
        return table

    @property
    def prefix(self) -> bytes:
        """What all rows begin with."""
        return self._prefix

    def add(self, time_ms: int, key: Any) -> None:
        """Set a timer."""
        row = _row(time_ms, key)
        if row not in self._live:
            self._live.add(row)
            heapq.heappush(self._heap, row)
            self._changed[row] = True

    def remove(self, time_ms: int, key: Any) -> None:
        """Remove a timer; one that is not set is no mistake."""
        self._drop(_row(time_ms, key))

    def _drop(self, row: bytes) -> None:
        self._live.discard(row)
        self._changed[row] = False

    def pop_due(self, time_ms: int) -> tuple[int, Any] | None:
        """Take out the earliest timer that is not after ``time_ms``, None if there is none."""
        limit = _time_bytes(time_ms + 1)
        self._load(limit)
        row = self._first_live()
        if row is None or row >= limit:
            return None
        heapq.heappop(self._heap)
        self._drop(row)
        return _time_of(row), key_from_state(row[_TIME_BYTES:])

    def earliest_ms(self) -> int | None:
        """Return the time of the earliest timer, None if there is none."""
        row = self._first_live()
        end = None if row is None else row
        for stored in self._stored(self._loaded_to, end):
            row = stored
            break
        return None if row is None else _time_of(row)

    def _first_live(self) -> bytes | None:
        heap = self._heap
        while heap and heap[0] not in self._live:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _load(self, limit: bytes) -> None:
        """Bring the stored rows below ``limit`` into the heap."""
        if limit <= self._loaded_to:
            return
        for row in list(self._stored(self._loaded_to, limit)):
            if row not in self._live:
                self._live.add(row)
                heapq.heappush(self._heap, row)
        self._loaded_to = limit

    def _stored(self, start: bytes, end: bytes | None) -> Any:
        prefix = self._prefix
        # Times are below 2**63, so no row begins with nine bytes of 0xff.
        stop = prefix + (b"\xff" * (_TIME_BYTES + 1) if end is None else end)
        if prefix + start >= stop:
            return
        for key, _ in self._reader.scan(prefix + start, stop):
            row = key[len(prefix) :]
            if self._changed.get(row) is not False and row not in self._removed_before:
                yield row

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        for row, is_set in self._changed.items():
            if is_set:
                delta.put(self._prefix + row, b"")
            else:
                delta.delete(self._prefix + row)
        # The delta may not be readable yet, so what it says is remembered for one epoch more.
        keep = {row for row in self._live if row < self._loaded_to or row in self._changed}
        if len(keep) < len(self._live):
            self._live = keep
            self._heap = sorted(keep)
        self._removed_before = {row for row, is_set in self._changed.items() if not is_set}
        self._changed = {}


def _row(time_ms: int, key: Any) -> bytes:
    return _time_bytes(time_ms) + key_to_state(key)


def _time_bytes(time_ms: int) -> bytes:
    # Shifted, so that the order of bytes is the order of times, those before 1970 included.
    return (time_ms + _SIGN).to_bytes(_TIME_BYTES, "big")


def _time_of(row: bytes) -> int:
    return int.from_bytes(row[:_TIME_BYTES], "big") - _SIGN
