"""Watches for what no error tells: a partition that is assigned, has lag, and does not move."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import Clock
    from .log import TopicPartition
    from .plan import TaskId

_log = logging.getLogger(__name__)


class Watchdog:
    """Remembers when each partition last moved.

    Args:
        clock: Time.
        stall_after_ms: Lag without movement for this long is a stall.

    Example:
        >>> from .clock import ManualClock
        >>> from .log import TopicPartition
        >>> from .plan import TaskId
        >>> clock = ManualClock()
        >>> dog = Watchdog(clock, stall_after_ms=1_000)
        >>> dog.note(TaskId("0", 0), TopicPartition("in", 0), position=5, lag=3)
        >>> clock.advance(2_000)
        >>> dog.stalled()
        [TopicPartition(topic='in', partition=0)]
    """

    def __init__(self, clock: Clock, stall_after_ms: int) -> None:
        self._clock = clock
        self._stall_after_ms = stall_after_ms
        self._moved: dict[TopicPartition, tuple[TaskId, int, int]] = {}  # task, position, when
        self._reported: set[TopicPartition] = set()

    def note(self, task: TaskId, where: TopicPartition, position: int, lag: int | None) -> None:
        """Take in where a task stands."""
        before = self._moved.get(where)
        now_ms = self._clock.monotonic_ms()
        if lag == 0 or before is None or before[1] != position:
            self._moved[where] = (task, position, now_ms)
            self._reported.discard(where)

    def forget(self, task: TaskId) -> None:
        """Stop watching the partitions of a task."""
        self._moved = {w: entry for w, entry in self._moved.items() if entry[0] != task}

    def stalled(self) -> list[TopicPartition]:
        """Return the partitions that stand still with lag; each is logged once."""
        now_ms = self._clock.monotonic_ms()
        result = [
            where
            for where, (_, _, moved_ms) in self._moved.items()
            if now_ms - moved_ms >= self._stall_after_ms
        ]
        for where in result:
            if where not in self._reported:
                self._reported.add(where)
                _log.error(
                    "%s has lag and has not moved for %d s", where, self._stall_after_ms // 1000
                )
        return sorted(result)
