"""A store that gathers many small epochs in memory and writes them to the store below as few.

A sub-second epoch is too small a thing to write to RocksDB for: most of its keys are overwritten
by the next. Committed epochs merge here, readable at once; the changelog has them already, so a
crash loses nothing that a replay does not bring back.

    apply -> pending --drain--> draining --> base
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from .delta import Delta, Range, range_covering
from .errors import StateError
from .unhurried import Turns, no_rest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .store import StateStore
    from .unhurried import Rest

HARD_LIMIT_FACTOR = 2
"""At this multiple of a threshold ``apply`` drains by itself, so that memory stays bounded."""


@dataclass(frozen=True, slots=True)
class OverlayLimits:
    """When what is pending is worth writing.

    Attributes:
        rows: Pending changes, each key counted once.
        size_bytes: Bytes in keys and values merged since the last drain; overwritten ones count.
        block_bytes: Bytes in row blocks that are pending. They are cheap to keep, and most are
            dropped again, their window having closed.
    """

    rows: int = 50_000
    size_bytes: int = 16 * 1024 * 1024
    block_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        """Reject limits that would always or never be reached."""
        if self.rows < 1 or self.size_bytes < 1 or self.block_bytes < 1:
            raise ValueError(f"all limits must be positive, got {self}")


class OverlayStore:
    """Wraps ``base``, which it owns from now on.

    One thread may read and apply while another drains, flushes or checkpoints. ``apply`` touches
    memory only (short of the hard limit); after it, ask ``should_drain`` and, if so, have
    ``drain`` called on a thread.

    Attributes:
        is_waited_for: Whether somebody waits for the drain under way, which then has no rests.
    """

    def __init__(self, base: StateStore, *, limits: OverlayLimits | None = None) -> None:
        self._base = base
        self._limits = limits or OverlayLimits()
        self._pending = _Layer(None)
        self._draining: _Layer | None = None
        self._lock = Lock()  # the layers; held briefly, never during I/O
        self._drain_lock = Lock()  # one drain at a time
        self.is_waited_for = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        values: list[bytes | None] = [None] * len(keys)
        with self._lock:
            missing = self._pending.find(keys, range(len(keys)), values)
            if missing and self._draining is not None:
                missing = self._draining.find(keys, missing, values)
        # A layer leaves only after the base has it, so a miss above is no miss of ours.
        if missing:
            found = self._base.get_many([keys[at] for at in missing])
            for at, value in zip(missing, found, strict=True):
                values[at] = value
        return values

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values of ``[start, end)`` in key order, as of this call."""
        with self._lock:
            changes = self._pending.between(start, end)
            if self._draining is not None:
                older = self._draining.between(start, end)
                older.merge(changes)
                changes = older
        rows = self._base.scan(start, end)
        return _merged(rows, changes) if changes else rows

    def apply(self, delta: Delta, meta: bytes) -> None:
        """Merge a committed epoch; ``meta`` is what ``meta()`` returns from now on.

        Raises:
            StateError: The hard limit was reached and the base could not take what is pending.
                The epoch itself has been merged.
        """
        with self._lock:
            self._pending.merge(delta, meta)
            overfull = self._exceeds(HARD_LIMIT_FACTOR)
        if overfull:
            self.is_waited_for = True
            try:
                self.drain(at_once=True)
            finally:
                self.is_waited_for = False

    def should_drain(self) -> bool:
        """Return whether enough is pending for a drain to be worth it."""
        with self._lock:
            return self._exceeds(1)

    def drain(self, *, at_once: bool = False) -> None:
        """Write to the base what is pending now. Slow: call it on a thread.

        If it fails, what was to be written stays readable here and the next drain tries again.

        Args:
            at_once: Without the rests that let records be processed meanwhile.
        """
        with self._drain_lock:
            self._drain(no_rest if at_once else self._rests())

    def meta(self) -> bytes | None:
        """Return the ``meta`` of the newest applied epoch, None for a new store."""
        with self._lock:
            if self._pending.meta is not None:
                return self._pending.meta
            if self._draining is not None:
                return self._draining.meta
        return self._base.meta()

    def checkpoint(self, target: Path) -> bytes | None:
        """Drain, then write an immutable copy to ``target``. Slow: call it on a thread.

        Returns:
            The ``meta`` of the epoch in the copy. Epochs applied meanwhile are not in it.
        """
        with self._drain_lock:
            self._drain(self._rests())
            return self._base.checkpoint(target)

    def close(self) -> None:
        """Drain if that is possible, and release the base."""
        try:
            # Saves the next start a replay; if the disk is full, the replay does it.
            with suppress(StateError):
                self.drain(at_once=True)
        finally:
            self._base.close()

    def _exceeds(self, factor: int) -> bool:
        limits, pending = self._limits, self._pending
        return (
            pending.delta.rows >= limits.rows * factor
            or pending.merged_bytes >= limits.size_bytes * factor
            or pending.delta.block_bytes >= limits.block_bytes * factor
        )

    def _rests(self) -> Rest:
        turns = Turns()

        def rest() -> None:
            if not self.is_waited_for:
                turns.rest()

        return rest

    def _drain(self, rest: Rest) -> None:
        if self._draining is not None:
            self._write_draining(rest)
        with self._lock:
            if self._pending.meta is None:
                return
            self._draining, self._pending = self._pending, _Layer(None)
            self._draining.is_shared = True
        self._write_draining(rest)

    def _write_draining(self, rest: Rest) -> None:
        layer = self._draining
        assert layer is not None
        assert layer.meta is not None
        # Not under the lock, which would keep readers waiting. They may do the same meanwhile.
        plain = layer.delta.unfolded(rest)
        with self._lock:
            layer.take(plain)
        self._base.apply(plain, layer.meta, rest)
        with self._lock:
            self._draining = None


class _Layer:
    """A delta that is read from: ``range_deletes`` sorted and disjoint, keys sorted on demand.

    Attributes:
        delta: The changes.
        meta: Of the newest epoch among them.
        merged_bytes: Bytes in keys and values taken in, overwritten ones too.
        is_shared: Whether another thread writes ``delta`` to the base, so that it must stay as it
            is: what takes its place says the same.
    """

    def __init__(self, meta: bytes | None) -> None:
        self.delta = Delta()
        self.meta = meta
        self.merged_bytes = 0
        self.is_shared = False
        self._sorted: list[bytes] | None = None

    def merge(self, later: Delta, meta: bytes) -> None:
        delta = self.delta
        if self._sorted is not None:
            if later.range_deletes:
                self._sorted = None
            else:
                known, gone = delta.puts, delta.deletes
                fresh = [k for k in later.puts if k not in known and k not in gone]
                fresh += [k for k in later.deletes if k not in known and k not in gone]
                # Two sorted runs: sorting them as one costs a merge, not a sort.
                self._sorted += sorted(fresh)
                self._sorted.sort()
        first = delta.blocks[:1]
        delta.merge(later)
        if first and delta.blocks[:1] != first:
            self._sorted = None  # rows may have come out of blocks
        self.meta = meta
        self.merged_bytes += later.byte_size()

    def unfold(self) -> None:
        """Make rows that can be looked up of those that came as blocks."""
        if not self.delta.blocks:
            return
        if self.is_shared:
            self.take(self.delta.unfolded())
        else:
            self.delta.unfold()
            self._sorted = None

    def take(self, delta: Delta) -> None:
        """Go on with the same changes in another form."""
        if delta is not self.delta:
            self.delta, self._sorted = delta, None

    def find(
        self, keys: Sequence[bytes], at: Sequence[int], values: list[bytes | None]
    ) -> list[int]:
        """Fill in ``values`` at those positions that this layer decides; return the others."""
        if self.delta.has_blocks_at(keys[position] for position in at):
            self.unfold()
        puts, deletes = self.delta.puts, self.delta.deletes
        ranges = self.delta.range_deletes
        undecided: list[int] = []
        for position in at:
            key = keys[position]
            value = puts.get(key)
            if value is not None:
                values[position] = value
            elif key not in deletes and not (ranges and range_covering(ranges, key)):
                undecided.append(position)
        return undecided

    def between(self, start: bytes, end: bytes) -> Delta:
        """Return a copy of the changes to ``[start, end)``."""
        changes = Delta()
        if not self.delta or start >= end:
            return changes
        if any(block.start < end and start < block.end for block in self.delta.blocks):
            self.unfold()
        delta = self.delta
        if self._sorted is None:
            self._sorted = sorted([*delta.puts, *delta.deletes])
        keys = self._sorted
        for key in keys[bisect_left(keys, start) : bisect_left(keys, end)]:
            value = delta.puts.get(key)
            if value is None:
                changes.deletes.add(key)
            else:
                changes.puts[key] = value
        for low, high in delta.range_deletes:
            if low < end and start < high:
                changes.range_deletes.append((max(low, start), min(high, end)))
        return changes


def _merged(rows: Iterator[tuple[bytes, bytes]], changes: Delta) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``rows`` with ``changes`` applied, in key order."""
    puts = sorted(changes.puts.items())
    ranges: list[Range] = changes.range_deletes
    next_put = 0
    for row in rows:
        key = row[0]
        while next_put < len(puts) and puts[next_put][0] <= key:
            yield puts[next_put]
            next_put += 1
        if key in changes.puts or key in changes.deletes:
            continue
        if not (ranges and range_covering(ranges, key)):
            yield row
    yield from puts[next_put:]
