"""The store port: where a task keeps its keyed state, always equal to some committed epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .unhurried import no_rest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .delta import Delta
    from .unhurried import Rest


class StateReader(Protocol):
    """Read access to committed state; what operators' tables read misses from.

    Called on the batch thread; may touch the disk, never the network.
    """

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values of the half-open range ``[start, end)`` in key order."""
        ...


class StateStore(StateReader, Protocol):
    """One task's state. It has one owner: the task that opened it."""

    def apply(self, delta: Delta, meta: bytes, rest: Rest = no_rest) -> None:
        """Apply a committed epoch and remember ``meta`` (its commit record) with it.

        Atomic with respect to a crash in the sense that matters: deltas are absolute, and
        ``meta`` never becomes durable before the changes it speaks of.

        Args:
            delta: What the epoch changed.
            meta: Its commit record.
            rest: Called now and then, so that other threads get the interpreter.
        """
        ...

    def meta(self) -> bytes | None:
        """Return the ``meta`` of the newest applied epoch, None for a new store."""
        ...

    def checkpoint(self, target: Path) -> bytes | None:
        """Write an immutable copy of the store to ``target``, by hard links where possible.

        Makes everything applied durable on local disk, too. Slow: call it on a thread. ``target``
        must not exist.

        Returns:
            The ``meta`` of the epoch that the copy holds.
        """
        ...

    def close(self) -> None:
        """Release the store. Not necessarily durable: what is missing is replayed."""
        ...
