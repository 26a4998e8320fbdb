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
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from riverrun.engine.keys import key_to_state
from riverrun.engine.operator import OperatorLogic

from .expressions import isolate
from .results import Span
from .slices import AggregateInputs, emit_rows
from .timers import TimerTable
from .window import LATE_PORT, Emit
from .windows import overlapping

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class _Open(NamedTuple):
    """A session that has not ended; its accumulators are bytes until it is touched."""

    start: int
    end: int
    accumulators: list[Any] | bytes


class _SessionLogic(OperatorLogic):
    def __init__(self, config: SessionAggregate, context: OperatorContext) -> None:
        self._config = config
        self._failures = context.failures
        self._folds = config.aggregation.folds()
        self._inputs = AggregateInputs(config.aggregation.aggregates)
        self._sessions = context.state.keyed_table(f"{context.step}/sessions")
        # For each key with sessions there is a timer at or before the first end among them.
        self._timers = TimerTable.open(context, "ends")
        self._decoder = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]])
        self._watermark_ms = _NO_WATERMARK

    def on_batch(self, batch: Batch, out: Collector) -> None:
        for part, columns in isolate(batch, self._inputs.evaluate, self._failures):
            needs_rows = self._folds.needs_rows or not columns.width
            inputs = self._folds.inputs(part.rows() if needs_rows else None, columns)
            late, changed = self._add(part, inputs)
            if late:
                self._failures.count_late(len(late))
                out.emit(part.take(sorted(late)), LATE_PORT)
            if self._config.emit == "on_update":
                self._emit(changed, out)

    def _add(
        self, batch: Batch, inputs: Sequence[Any]
    ) -> tuple[list[int], list[tuple[Any, _Open]]]:
        """Add records; return the indices of late ones, and the sessions that changed."""
        # By the bytes in state, since Python takes True and 1 for the same key.
        groups: dict[bytes, list[int]] = {}
        keys = batch.keys()
        for index, key in enumerate(keys):
            groups.setdefault(key_to_state(key), []).append(index)
        self._sessions.prefetch(list(groups))
        late: list[int] = []
        changed: list[tuple[Any, _Open]] = []
        times = batch.times()
        for state_key, indices in groups.items():
            stored = self._sessions.get(state_key)
            sessions = self._decode(stored)
            first_end = sessions[0].end if sessions else None
            try:
                on_time = [self._add_record(sessions, times[i], inputs[i]) for i in indices]
                row = self._encode(sessions)
            except Exception:
                indices, on_time, row = self._add_one_by_one(stored, indices, batch, inputs)
                sessions = self._decode(row)
            if not all(on_time):
                late.extend(i for i, is_in in zip(indices, on_time, strict=True) if not is_in)
            if row is None or not any(on_time):
                continue
            key = keys[indices[0]]
            self._save(key, row, sessions[0].end, first_end)
            if self._config.emit == "on_update":
                joined = [times[i] for i, is_in in zip(indices, on_time, strict=True) if is_in]
                changed.extend(
                    (key, session)
                    for session in sessions
                    if any(session.start <= time < session.end for time in joined)
                )
        return late, changed

    def _add_one_by_one(
        self, row: bytes | None, indices: list[int], batch: Batch, inputs: Sequence[Any]
    ) -> tuple[list[int], list[bool], bytes | None]:
        """Add to the row of a key those records that can be; the others are told as failures.

        Returns:
            Which they are, whether each is on time, and the row.
        """
        added: list[int] = []
        on_time: list[bool] = []
        for index in indices:
            try:
                # From bytes: a record that raised may have changed an accumulator before.
                sessions = self._decode(row)
                is_in = self._add_record(sessions, batch.times()[index], inputs[index])
                if is_in:
                    row = self._encode(sessions)
            except Exception as error:
                raised = error
            else:
                added.append(index)
                on_time.append(is_in)
                continue
            self._failures.record_failed(batch, index, raised)
        return added, on_time, row

    def _add_record(self, sessions: list[_Open], time_ms: int, values: Any) -> bool:
        """Add a record to the sessions of its key, in place; return False if it is late."""
        folds = self._folds
        start, end = time_ms, time_ms + self._config.gap_ms
        first, last = overlapping(sessions, start, end)
        if first == last:
            if end + self._config.allowed_lateness_ms <= self._watermark_ms:
                return False
            accumulators = folds.initial()
        else:
            joined = sessions[first:last]
            start, end = min(start, joined[0].start), max(end, joined[-1].end)
            accumulators = self._decoded(joined[0])
            for session in joined[1:]:
                accumulators = folds.merge(accumulators, self._decoded(session))
        accumulators = folds.add(accumulators, values, time_ms)
        sessions[first:last] = [_Open(start, end, accumulators)]
        return True

    def _decoded(self, session: _Open) -> list[Any]:
        accumulators = session.accumulators
        return self._folds.decode(accumulators) if isinstance(accumulators, bytes) else accumulators

    def _decode(self, row: bytes | None) -> list[_Open]:
        """Return the sessions of a key; they are apart, so in order of both start and end."""
        return [] if row is None else [_Open(*each) for each in self._decoder.decode(row)]

    def _encode(self, sessions: list[_Open]) -> bytes:
        encode = self._folds.encode
        return msgspec.msgpack.encode(
            [(s, e, acc if isinstance(acc, bytes) else encode(acc)) for s, e, acc in sessions]
        )

    def _save(self, key: Any, row: bytes, first_end: int, timer_for: int | None) -> None:
        """Store the sessions of a key, and set its timer unless one for ``timer_for`` will do."""
        self._sessions.put(key_to_state(key), row)
        if timer_for is None or first_end < timer_for:
            self._timers.add(first_end + self._config.allowed_lateness_ms, key)

    def on_watermark(self, watermark_ms: int, out: Collector) -> None:
        self._watermark_ms = watermark_ms
        due: dict[bytes, Any] = {}
        while (timer := self._timers.pop_due(watermark_ms)) is not None:
            due[key_to_state(timer[1])] = timer[1]
        self._sessions.prefetch(list(due))
        ended: list[tuple[Any, _Open]] = []
        for state_key, key in due.items():
            sessions = self._decode(self._sessions.get(state_key))
            still_open = [session for session in sessions if not self._has_ended(session)]
            ended.extend((key, session) for session in sessions if self._has_ended(session))
            if still_open:
                self._save(key, self._encode(still_open), still_open[0].end, None)
            else:
                self._sessions.delete(state_key)
        # By time, so that results do not depend on how far the watermark came at once.
        ended.sort(key=lambda found: (found[1].end, key_to_state(found[0])))
        self._emit(ended, out)

    def _has_ended(self, session: _Open) -> bool:
        return session.end + self._config.allowed_lateness_ms <= self._watermark_ms

    def _emit(self, found: list[tuple[Any, _Open]], out: Collector) -> None:
        rows = [(key, [s.accumulators], Span(s.start, s.end)) for key, s in found]
        shape = self._config.aggregation.shape
        for batch in emit_rows(self._folds, shape, rows, self._failures):
            out.emit(batch)

    def output_watermark_ms(self, watermark_ms: int) -> int:
        """Return how far results are complete: a session within its lateness is still to come."""
        return watermark_ms - self._config.allowed_lateness_ms
