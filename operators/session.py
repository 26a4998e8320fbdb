"""Session: aggregates per key and session, a span of activity that ends with a silence.

State      the open sessions of each key with their accumulators, and a timer per key for the
           first of them to end
Watermark  forwarded after the sessions that it closes have been emitted, less the allowed lateness
Order      results come in order of the end of the session; late records keep their order
Emits      port 0: one result per session when the watermark passes its end and the allowed
           lateness, and with ``on_update`` one per session that a batch changes; port 1: records
           that would be a session that has ended already
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riverrun.engine.operator import OperatorLogic

from .expressions import isolate
from .sessions import open_sessions
from .slices import AggregateInputs
from .window import LATE_PORT, Emit

if TYPE_CHECKING:
    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Collector, OperatorContext

    from .aggregation import Aggregation

_NO_WATERMARK = -(1 << 63)


@dataclass(frozen=True, slots=True)
class SessionAggregate:
    """Aggregate records per key and session.

    Args:
        gap_ms: Length of the silence that ends a session.
        aggregation: What is computed.
        allowed_lateness_ms: How long after its end a session can still be extended.
        emit: When results are emitted.
    """

    gap_ms: int
    aggregation: Aggregation
    allowed_lateness_ms: int = 0
    emit: Emit = "final"

    def __post_init__(self) -> None:
        """Reject aggregates that cannot make one session of two."""
        self.aggregation.check_merges()

    @property
    def state_signature(self) -> str:
        """What must not change as long as there is state."""
        return f"sessions({self.gap_ms}):{self.aggregation.signature()}"

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _SessionLogic(self, context)


class _SessionLogic(OperatorLogic):
    def __init__(self, config: SessionAggregate, context: OperatorContext) -> None:
        self._config = config
        self._failures = context.failures
        self._inputs = AggregateInputs(config.aggregation.aggregates)
        self._sessions = open_sessions(
            config.aggregation, config.gap_ms, config.allowed_lateness_ms, context
        )
        self._watermark_ms = _NO_WATERMARK

    def on_batch(self, batch: Batch, out: Collector) -> None:
        tells_changed = self._config.emit == "on_update"
        for part, columns in isolate(batch, self._inputs.evaluate, self._failures):
            late, changed = self._sessions.add(
                part, columns, self._watermark_ms, tells_changed=tells_changed
            )
            if late:
                self._failures.count_late(len(late))
                out.emit(part.take(list(late)), LATE_PORT)
            if tells_changed:
                for results in changed:
                    out.emit(results)

    def on_watermark(self, watermark_ms: int, out: Collector) -> None:
        self._watermark_ms = watermark_ms
        for results in self._sessions.end(watermark_ms):
            out.emit(results)

    def output_watermark_ms(self, watermark_ms: int) -> int:
        """Return how far results are complete: a session within its lateness is still to come."""
        return watermark_ms - self._config.allowed_lateness_ms
