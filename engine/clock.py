"""Time, injected: nothing in the engine asks the system clock directly."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the engine gets the time."""

    def now_ms(self) -> int:
        """Return the wall-clock time in milliseconds since the Unix epoch."""
        ...

    def monotonic_ms(self) -> int:
        """Return a time in milliseconds that never goes back, for deadlines and intervals."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return the wall-clock time in milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return the monotonic time in milliseconds."""
        return time.monotonic_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told to; for tests.

    Example:
        >>> clock = ManualClock(now_ms=1_000)
        >>> clock.advance(250)
        >>> clock.now_ms()
        1250
    """

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the time that was last set."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Return the time that was last set."""
        return self._now_ms

    def advance(self, by_ms: int) -> None:
        """Move the clock forward by ``by_ms`` milliseconds.

        Raises:
            ValueError: If ``by_ms`` is negative.
        """
        if by_ms < 0:
            raise ValueError(f"a clock cannot go back: advance({by_ms})")
        self._now_ms += by_ms
