"""Sessions as Python objects: of any aggregate, and the specification of the native ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from riverrun.engine.keys import key_from_state, key_to_state
from riverrun.engine.task_state import KeyedTable

from .results import Span
from .slices import emit_rows
from .timers import TimerTable
from .windows import overlapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import OperatorContext
    from riverrun.engine.plane import SessionRows
    from riverrun.state import Delta

    from .aggregation import Aggregation


class Open(NamedTuple):
    """A session that has not ended; its accumulators are bytes until it is touched."""

    start: int
    end: int
    accumulators: list[Any] | bytes


class ObjectSessions:
    """Open sessions by key.

    In state there is a row per key with its open sessions and their accumulators, and for each key
    with sessions a timer at or before the first end among them, plus the allowed lateness.

    Args:
        aggregation: What is computed.
        gap_ms: Length of the silence that ends a session.
        lateness_ms: How long after its end a session can still be extended.
        rows_prefix: What the state keys of rows begin with.
        context: Where timers are opened, below the name of the step.
    """

    def __init__(
        self,
        aggregation: Aggregation,
        gap_ms: int,
        lateness_ms: int,
        rows_prefix: bytes,
        context: OperatorContext,
    ) -> None:
        self._gap_ms = gap_ms
        self._lateness_ms = lateness_ms
        self._shape = aggregation.shape
        self._folds = aggregation.folds()
        self._failures = context.failures
        self._rows = KeyedTable(rows_prefix, context.state.reader)
        self._timers = TimerTable.open(context, "ends")
        self._decoder = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]])
        self._watermark_ms = 0

    @property
    def timers_prefix(self) -> bytes:
        """What the state keys of timers begin with."""
        return self._timers.prefix

    def add(
        self, batch: Batch, columns: pl.DataFrame, watermark_ms: int, *, tells_changed: bool
    ) -> tuple[list[int], Iterator[Batch]]:
        """Add records; return the indices of late ones, and results of sessions that changed."""
        self._watermark_ms = watermark_ms
        needs_rows = self._folds.needs_rows or not columns.width
        inputs = self._folds.inputs(batch.rows() if needs_rows else None, columns)
        late, changed = self._add(batch, inputs, tells_changed=tells_changed)
        return sorted(late), self._emit(changed)

    def _add(
        self, batch: Batch, inputs: Sequence[Any], *, tells_changed: bool
    ) -> tuple[list[int], list[tuple[Any, Open]]]:
        """Add records; return the indices of late ones, and the sessions that changed."""
        # By the bytes in state, since Python takes True and 1 for the same key.
        groups: dict[bytes, list[int]] = {}
        keys = batch.keys()
        for index, key in enumerate(keys):
            groups.setdefault(key_to_state(key), []).append(index)
        self._rows.prefetch(list(groups))
        late: list[int] = []
        changed: list[tuple[Any, Open]] = []
        times = batch.times()
        for state_key, indices in groups.items():
            stored = self._rows.get(state_key)
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
            if tells_changed:
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

    def _add_record(self, sessions: list[Open], time_ms: int, values: Any) -> bool:
        """Add a record to the sessions of its key, in place; return False if it is late."""
        folds = self._folds
        start, end = time_ms, time_ms + self._gap_ms
        first, last = overlapping(sessions, start, end)
        if first == last:
            if end + self._lateness_ms <= self._watermark_ms:
                return False
            accumulators = folds.initial()
        else:
            joined = sessions[first:last]
            start, end = min(start, joined[0].start), max(end, joined[-1].end)
            accumulators = self._decoded(joined[0])
            for session in joined[1:]:
                accumulators = folds.merge(accumulators, self._decoded(session))
        accumulators = folds.add(accumulators, values, time_ms)
        sessions[first:last] = [Open(start, end, accumulators)]
        return True

    def _decoded(self, session: Open) -> list[Any]:
        accumulators = session.accumulators
        return self._folds.decode(accumulators) if isinstance(accumulators, bytes) else accumulators

    def _decode(self, row: bytes | None) -> list[Open]:
        """Return the sessions of a key; they are apart, so in order of both start and end."""
        return [] if row is None else [Open(*each) for each in self._decoder.decode(row)]

    def _encode(self, sessions: list[Open]) -> bytes:
        encode = self._folds.encode
        return msgspec.msgpack.encode(
            [(s, e, acc if isinstance(acc, bytes) else encode(acc)) for s, e, acc in sessions]
        )

    def _save(self, key: Any, row: bytes, first_end: int, timer_for: int | None) -> None:
        """Store the sessions of a key, and set its timer unless one for ``timer_for`` will do."""
        self._rows.put(key_to_state(key), row)
        if timer_for is None or first_end < timer_for:
            self._timers.add(first_end + self._lateness_ms, key)

    def end(self, watermark_ms: int) -> Iterator[Batch]:
        """Remove the sessions that have ended; yield results in order of their ends and keys."""
        self._watermark_ms = watermark_ms
        due: dict[bytes, Any] = {}
        while (timer := self._timers.pop_due(watermark_ms)) is not None:
            due[key_to_state(timer[1])] = timer[1]
        self._rows.prefetch(list(due))
        ended: list[tuple[Any, Open]] = []
        for state_key, key in due.items():
            sessions = self._decode(self._rows.get(state_key))
            still_open = [session for session in sessions if not self._has_ended(session)]
            ended.extend((key, session) for session in sessions if self._has_ended(session))
            if still_open:
                self._save(key, self._encode(still_open), still_open[0].end, None)
            else:
                self._rows.delete(state_key)
        # By time, so that results do not depend on how far the watermark came at once.
        ended.sort(key=lambda found: (found[1].end, key_to_state(found[0])))
        return self._emit(ended)

    def _has_ended(self, session: Open) -> bool:
        return session.end + self._lateness_ms <= self._watermark_ms

    def _emit(self, found: list[tuple[Any, Open]]) -> Iterator[Batch]:
        rows = [(key, [s.accumulators], Span(s.start, s.end)) for key, s in found]
        return emit_rows(self._folds, self._shape, rows, self._failures)

    # --- state -------------------------------------------------------------------------------

    def take_over(self, lately: SessionRows) -> None:
        """Go on with what another table has changed lately; all else is in the store."""
        for state_key, row in lately.rows:
            if row is None:
                self._rows.delete(state_key)
            else:
                self._rows.put(state_key, row)
        for time_ms, state_key, is_set in lately.timers:
            change = self._timers.add if is_set else self._timers.remove
            change(time_ms, key_from_state(state_key))

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed in rows since the last call to ``delta``; timers do that themselves."""
        self._rows.drain_delta(delta)
