"""Progress of long work, told now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S = 2.0
"""Between two lines about one task."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


class RestoreProgress:
    """Tells how far the restore of each task is.

    Args:
        tell: Called with a line.
        now_s: A clock that never goes back.
    """

    def __init__(
        self, tell: Callable[[str], None], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._now_s = now_s
        self._next_s: dict[str, float] = {}

    def __call__(self, task: str, done: int, total: int) -> None:
        """Take in that ``done`` of ``total`` bytes of a task's snapshot are here."""
        now_s = self._now_s()
        is_whole = done >= total
        # A restore that is quick is not worth a line before its end.
        due_s = self._next_s.setdefault(task, now_s + INTERVAL_S)
        if not is_whole and now_s < due_s:
            return
        if is_whole:
            del self._next_s[task]
        else:
            self._next_s[task] = now_s + INTERVAL_S
        percent = 100 if total == 0 else done * 100 // total
        self._tell(f"restoring task {task}: {size_text(done)} of {size_text(total)} ({percent} %)")


def size_text(size_bytes: int) -> str:
    """Return a size for people.

    Example:
        >>> size_text(1_234_567)
        '1.2 MB'
    """
    value = float(size_bytes)
    for unit in _UNITS[:-1]:
        if value < 1_000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1_000
    return f"{value:.1f} {_UNITS[-1]}"
