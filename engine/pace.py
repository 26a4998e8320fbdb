"""When a task commits: at its interval, and less often while it catches up."""

from __future__ import annotations

FULL_BYTES = 256 * 1024
"""A task that keeps up reads less than this at a time: what has come since it looked last."""

BEHIND_AFTER_MS = 1_000
"""A task that has read full chunks for this long is catching up, and not just busy."""

CATCH_UP_INTERVAL_MS = 500
"""Interval while catching up: results are late by more than that anyway, and each commit costs."""


class Pace:
    """Tells when the next commit is due. Times are of the monotonic clock, milliseconds.

    Args:
        interval_ms: Shortest time between two commits.
        now_ms: The time now; the first commit is due at once.

    Example:
        >>> pace = Pace(100, now_ms=5_000)
        >>> pace.committed(5_000)
        >>> pace.due_ms()
        5100
        >>> pace.looked(FULL_BYTES, lags=True, now_ms=6_001)
        >>> pace.due_ms()
        5500
    """

    def __init__(self, interval_ms: int, now_ms: int) -> None:
        self.interval_ms = interval_ms
        self._last_commit_ms = now_ms - interval_ms
        self._caught_up_ms = now_ms
        self._catches_up = False

    def committed(self, now_ms: int) -> None:
        """Take in that a commit was made."""
        self._last_commit_ms = now_ms

    def looked(self, read_bytes: int, *, lags: bool, now_ms: int) -> None:
        """Take in how much was read at once, and whether there are records left to read."""
        if not lags or 0 < read_bytes < FULL_BYTES:
            self._caught_up_ms = now_ms
        self._catches_up = now_ms - self._caught_up_ms > BEHIND_AFTER_MS

    def due_ms(self) -> int:
        """Return when the next commit is due."""
        interval_ms = self.interval_ms
        if self._catches_up:
            interval_ms = max(interval_ms, CATCH_UP_INTERVAL_MS)
        return self._last_commit_ms + interval_ms
