"""Window: aggregates per key and window of event time, for tumbling and hopping windows.

State      one accumulator per key and slice, dropped when the last window over it has closed;
           and the first window that is still open
Watermark  forwarded after the windows that it closes have been emitted, less the allowed lateness
Order      results come by start of the window, and within a window in the order of keys in state;
           late records keep theirs
Emits      port 0: one result per key and window when the watermark passes the end of the window
           and the allowed lateness, and with ``on_update`` one per key and window that a batch
           changes; port 1: records whose windows have all closed
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

import polars as pl

from riverrun.engine.batch import KEY, TIME
from riverrun.engine.operator import OperatorLogic

from .slices import keys_and_times

if TYPE_CHECKING:
    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Collector, Failures, OperatorContext
    from riverrun.engine.task_state import KeyedTable

    from .aggregation import Aggregation
    from .slices import SliceStore
    from .windows import AlignedWindows

Emit = Literal["final", "on_update"]
"""``final``: one result, when a window closes. ``on_update``: also whenever a batch changes it."""

LATE_PORT = 1

_FIRST_OPEN = b"first-open"
_TIME_MIN = -(1 << 62)
_TIME_MAX = 1 << 62
_START = "__start"
_WINDOWS_MAX = 10_000  # closed together; how many rows they have is up to the table


@dataclass(frozen=True, slots=True)
class WindowAggregate:
    """Aggregate records per key and window.

    Args:
        windows: The windows.
        aggregation: What is computed.
        allowed_lateness_ms: How long after its end a window stays open.
        emit: When results are emitted.
    """

    windows: AlignedWindows
    aggregation: Aggregation
    allowed_lateness_ms: int = 0
    emit: Emit = "final"

    def __post_init__(self) -> None:
        """Reject aggregates that cannot make a window of several slices."""
        if self.windows.slice_ms < self.windows.size_ms:
            self.aggregation.check_merges()

    @property
    def state_signature(self) -> str:
        """What must not change as long as there is state."""
        w = self.windows
        return f"windows({w.size_ms},{w.advance_ms},{w.offset_ms}):{self.aggregation.signature()}"

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        slices = self.aggregation.open_slices(context)
        progress = context.state.keyed_table(f"{context.step}/progress")
        return _WindowLogic(self, slices, progress, context.failures)


class _WindowLogic(OperatorLogic):
    def __init__(
        self,
        config: WindowAggregate,
        slices: SliceStore,
        progress: KeyedTable,
        failures: Failures,
    ) -> None:
        self._windows = config.windows
        self._lateness_ms = config.allowed_lateness_ms
        self._on_update = config.emit == "on_update"
        self._slices = slices
        self._progress = progress
        self._failures = failures
        self._first_open_known: int | None = None
        # No window that begins before this one has records: spares a look at the table.
        self._first_due = _TIME_MIN

    @property
    def _first_open(self) -> int:
        """The first window that is open: all that begin before it have been emitted.

        It is durable, since the slices of an emitted window stay as long as later windows over
        them are open.
        """
        if self._first_open_known is None:
            # Read at the first use, since logic is built before the state is restored.
            stored = self._progress.get(_FIRST_OPEN)
            self._first_open_known = _TIME_MIN if stored is None else int(stored)
        return self._first_open_known

    def on_batch(self, batch: Batch, out: Collector) -> None:
        batch_on_time = self._split_late(batch, out)
        if batch_on_time is None:
            return
        for part in self._slices.update(batch_on_time, self._windows.slice_starts):
            due = max(self._windows.first_start(part.min_time()), self._first_open)
            self._first_due = min(self._first_due, due)
            if self._on_update:
                self._emit_updates(part, out)

    def _split_late(self, batch: Batch, out: Collector) -> Batch | None:
        """Return the records that belong to an open window; put out the others."""
        # A record whose last window begins before the first open one is too late for all.
        if self._first_open == _TIME_MIN:
            return batch
        if batch.min_time() >= self._first_open:
            return batch
        late_at = (batch.time_column() < self._first_open).arg_true().to_list()
        self._failures.count_late(len(late_at))
        out.emit(batch.take(late_at), LATE_PORT)
        if len(late_at) == len(batch):
            return None
        dropped = set(late_at)
        return batch.take([i for i in range(len(batch)) if i not in dropped])

    def on_watermark(self, watermark_ms: int, out: Collector) -> None:
        windows = self._windows
        closed_from = windows.last_start(watermark_ms - self._lateness_ms - windows.size_ms)
        first_open = min(max(closed_from + windows.advance_ms, self._first_open), _TIME_MAX)
        if self._first_due < first_open:
            self._close_until(first_open, out)
        self._first_open_known = first_open

    def _close_until(self, first_open: int, out: Collector) -> None:
        """Emit all windows with records that begin before ``first_open``."""
        windows, slices = self._windows, self._slices
        due = windows.starts_over(slices.starts(), self._first_open, first_open)
        while some := list(islice(due, _WINDOWS_MAX)):
            for results in slices.results(some, windows.size_ms):
                out.emit(results)
        slices.remove_below(first_open)
        left = slices.starts()
        self._first_due = max(windows.first_start(left[0]), first_open) if left else _TIME_MAX
        self._progress.put(_FIRST_OPEN, str(first_open).encode())

    def _emit_updates(self, batch: Batch, out: Collector) -> None:
        """Emit the open windows of some records, for their keys."""
        frame = keys_and_times(batch)
        slices = self._windows.slice_starts(frame.get_column(TIME)).alias(_START)
        changed = pl.DataFrame([slices, frame.get_column(KEY)]).unique(maintain_order=True)
        windows, size_ms, slices = self._windows, self._windows.size_ms, changed[_START]
        last = windows.last_starts(slices)
        pairs: list[pl.DataFrame] = []
        for back in range(0, size_ms, windows.advance_ms):
            starts = last - back
            held = (starts > slices - size_ms) & (starts >= self._first_open)
            pairs.append(changed.with_columns(starts.alias(_START)).filter(held))
        # A window has the same key once for each of its slices.
        found = pl.concat(pairs).unique(maintain_order=True).sort(_START, maintain_order=True)
        starts = found.get_column(_START).to_list()
        for results in self._slices.results(starts, size_ms, found.get_column(KEY)):
            out.emit(results)

    def output_watermark_ms(self, watermark_ms: int) -> int:
        """Return how far results are complete: a window within its lateness is still to come."""
        return watermark_ms - self._lateness_ms
