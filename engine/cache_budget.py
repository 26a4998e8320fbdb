"""How much memory the window tables of one worker take for rows that their stores have too."""

from __future__ import annotations

from threading import Lock
from weakref import WeakSet

DEFAULT_BYTES = 256 * 1024 * 1024
"""What the tables share unless a worker is told otherwise."""


class CacheBudget:
    """Memory that tables share: each may take what the others leave, its equal part in any case.

    A table asks at each barrier. So one that took all gives back what a new one is due, and for the
    time until both have passed a barrier they may take more together.

    Args:
        total_bytes: What all of them may take.

    Example:
        >>> budget = CacheBudget(100)
        >>> large, small = budget.new_share(), budget.new_share()
        >>> small.held_bytes = 10
        >>> large.limit_bytes(), small.limit_bytes()
        (90, 100)
        >>> large.held_bytes = 90
        >>> small.limit_bytes()
        50
    """

    def __init__(self, total_bytes: int = DEFAULT_BYTES) -> None:
        self._total_bytes = total_bytes
        # Gone with its table: as long as a table is in memory, so are its rows.
        self._shares: WeakSet[CacheShare] = WeakSet()
        self._lock = Lock()  # tasks open their tables on different threads

    def new_share(self) -> CacheShare:
        """Return the part of one table."""
        share = CacheShare(self)
        with self._lock:
            self._shares.add(share)
        return share

    def limit_bytes(self, share: CacheShare) -> int:
        """Return how much the table of a share may take now."""
        with self._lock:
            held = [each.held_bytes for each in self._shares if each is not share]
        return max(self._total_bytes - sum(held), self._total_bytes // (len(held) + 1))


class CacheShare:
    """The part of one table.

    Attributes:
        held_bytes: What its rows take; the table says so at each barrier.
    """

    def __init__(self, budget: CacheBudget) -> None:
        self.held_bytes = 0
        self._budget = budget

    def limit_bytes(self) -> int:
        """Return how much the rows may take now; above, those that the store has are dropped."""
        return self._budget.limit_bytes(self)
