"""Watermarks: how far event time has got. Pure; clocks are handed in.

A watermark of ``t`` says that no record with an event time below ``t`` is expected any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .graph import WatermarkPolicy

NO_WATERMARK = -(2**63)
"""Below every event time: nothing is known yet."""


class InputWatermark(NamedTuple):
    """Watermark of one input.

    Attributes:
        value_ms: The watermark; ``NO_WATERMARK`` before the first record.
        idle: Whether the input has been quiet so long that it must not hold the others back.
    """

    value_ms: int
    idle: bool


UNKNOWN = InputWatermark(NO_WATERMARK, idle=False)
"""An input of which nothing has been heard: it holds the others back."""


def combine(inputs: Iterable[InputWatermark]) -> InputWatermark:
    """Return the watermark of several inputs merged.

    The smallest of the active ones; where all are idle, the largest that any of them knew, as in
    Flink's status watermark valve: nothing that is still expected can be earlier.

    Example:
        >>> combine([InputWatermark(10, False), InputWatermark(5, True)])
        InputWatermark(value_ms=10, idle=False)
        >>> combine([InputWatermark(10, True), InputWatermark(5, True)])
        InputWatermark(value_ms=10, idle=True)
    """
    known = list(inputs)
    active = [each.value_ms for each in known if not each.idle]
    if active:
        return InputWatermark(min(active), idle=False)
    return InputWatermark(max((each.value_ms for each in known), default=NO_WATERMARK), idle=True)


@dataclass(slots=True)
class SourceWatermark:
    """Watermark of one source partition: latest event time less the allowed out-of-orderness.

    Attributes:
        policy: How it follows the records.
        max_event_time_ms: Latest event time seen, None before the first record.
        quiet_since_ms: Monotonic clock of the last record, or of the start.
        floor_ms: The watermark never goes below this: what it was when last committed.
    """

    policy: WatermarkPolicy
    max_event_time_ms: int | None
    quiet_since_ms: int
    floor_ms: int = NO_WATERMARK

    def observe(self, max_event_time_ms: int, tick_ms: int) -> None:
        """Take in the latest event time of a batch that has just arrived."""
        self.quiet_since_ms = tick_ms
        if self.max_event_time_ms is None or max_event_time_ms > self.max_event_time_ms:
            self.max_event_time_ms = max_event_time_ms

    def is_idle(self, tick_ms: int) -> bool:
        """Return whether the partition has been quiet for the policy's ``idle_after_ms``."""
        limit = self.policy.idle_after_ms
        return limit is not None and tick_ms - self.quiet_since_ms >= limit

    def current(self, tick_ms: int, *, follow_clock: bool) -> InputWatermark:
        """Return the watermark now.

        Args:
            tick_ms: Monotonic clock.
            follow_clock: Whether an idle partition moves on with the wall clock; the task says so
                when all of its inputs are idle, so that the last windows of a quiet stream close.
        """
        idle = self.is_idle(tick_ms)
        if self.max_event_time_ms is not None:
            value = self.max_event_time_ms - self.policy.out_of_orderness_ms
            if idle and follow_clock:
                value += tick_ms - self.quiet_since_ms
            self.floor_ms = max(self.floor_ms, value)
        return InputWatermark(self.floor_ms, idle)
