"""Where sessions are kept: in the data plane's table, or as Python objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from riverrun.engine.plane import OutOfScopeError

from .object_sessions import ObjectSessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import OperatorContext
    from riverrun.engine.plane import SessionTable
    from riverrun.state import Delta

    from .aggregation import Aggregation
    from .results import ResultShape


class SessionStore(Protocol):
    """Open sessions by key."""

    def add(
        self, batch: Batch, columns: pl.DataFrame, watermark_ms: int, *, tells_changed: bool
    ) -> tuple[Sequence[int], Iterator[Batch]]:
        """Add records; return the indices of late ones, and results of sessions that changed.

        Args:
            batch: Records with keys.
            columns: What built-in aggregates read of them, as ``AggregateInputs`` gives it.
            watermark_ms: How far event time has come.
            tells_changed: Whether these results are wanted.
        """
        ...

    def end(self, watermark_ms: int) -> Iterator[Batch]:
        """Remove the sessions that have ended; yield results in order of their ends and keys."""
        ...

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        ...


class PlaneSessions:
    """Sessions in the data plane's table for as long as that is certain of all that comes.

    Both keep the same rows and timers, so that what one of them wrote the other goes on with.

    Args:
        table: The table.
        objects: What goes on where it cannot.
        shape: What results look like.
    """

    def __init__(self, table: SessionTable, objects: ObjectSessions, shape: ResultShape) -> None:
        self._table: SessionTable | None = table
        self._objects = objects
        self._shape = shape

    def add(
        self, batch: Batch, columns: pl.DataFrame, watermark_ms: int, *, tells_changed: bool
    ) -> tuple[Sequence[int], Iterator[Batch]]:
        """Add records; return the indices of late ones, and results of sessions that changed."""
        if self._table is not None:
            try:
                late, changed = self._table.add(
                    _keys_of(batch),
                    batch.time_column(),
                    columns,
                    watermark_ms,
                    tells_changed=tells_changed,
                )
            except OutOfScopeError:
                self._go_on_without(self._table)
            else:
                return late, (self._shape.of_spans(*results) for results in changed)
        return self._objects.add(batch, columns, watermark_ms, tells_changed=tells_changed)

    def end(self, watermark_ms: int) -> Iterator[Batch]:
        """Remove the sessions that have ended; yield results in order of their ends and keys."""
        if self._table is not None:
            try:
                ended = self._table.end(watermark_ms)
            except OutOfScopeError:
                self._go_on_without(self._table)
            else:
                return (self._shape.of_spans(*results) for results in ended)
        return self._objects.end(watermark_ms)

    def _go_on_without(self, table: SessionTable) -> None:
        self._objects.take_over(table.export())
        self._table = None

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        (self._objects if self._table is None else self._table).drain_delta(delta)


def _keys_of(batch: Batch) -> pl.Series | list[object]:
    """Return the keys of a batch as a column, or as a list if they do not go into one."""
    try:
        return batch.key_column()
    except Exception:
        return batch.keys()


def open_sessions(
    aggregation: Aggregation, gap_ms: int, lateness_ms: int, context: OperatorContext
) -> SessionStore:
    """Open the tables of a step: in the data plane if it knows all aggregates and their types."""
    name = f"{context.step}/sessions"
    prefix = context.state.open_prefix(name)
    objects = ObjectSessions(aggregation, gap_ms, lateness_ms, prefix, context)
    sessions: SessionStore = objects
    kinds = aggregation.built_in_kinds()
    if kinds is not None:
        table = context.plane.session_table(
            kinds,
            aggregation.input_types or {},
            (gap_ms, lateness_ms),
            (prefix, objects.timers_prefix),
            context.state.reader,
        )
        if table is not None:
            sessions = PlaneSessions(table, objects, aggregation.shape)
    context.state.register(name, sessions)
    return sessions
