"""Where aggregates of slices are kept: in the data plane's window table, or as Python objects.

A slice is the part of event time that windows are made of. An aggregate over all time is one
slice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from functools import reduce
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from riverrun.engine.batch import KEY, TIME, Batch, key_series, keys_to_list
from riverrun.engine.keys import key_from_state, key_to_state
from riverrun.engine.labels import key_type
from riverrun.engine.plane import WINDOW

from .aggregates import NUMBERS_ONLY, AnyAggregate, is_built_in
from .expressions import Expressions, is_one_of, isolate
from .results import ResultShape, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from riverrun.engine.operator import Failures, OperatorContext
    from riverrun.engine.plane import AggregateKind, WindowTable
    from riverrun.engine.task_state import KeyedTable

    from .accumulators import Folds, Reduction

ALL_TIME = Span(0, 1)
"""The one slice of an aggregate without windows."""

_RESULT_ROWS_MAX = 100_000


class SliceStore(Protocol):
    """Aggregates by slice and key."""

    def update(self, batch: Batch, slicer: Callable[[pl.Series], pl.Series]) -> list[Batch]:
        """Add records, and return those that could be added; the others are told as failures.

        Args:
            batch: Records with keys.
            slicer: Gives the start of the slice of each event time.
        """
        ...

    def results(
        self, windows: Sequence[int], size_ms: int, keys: pl.Series | None = None
    ) -> Iterator[Batch]:
        """Yield results of windows, in order of windows and, within one, of keys.

        Args:
            windows: Their starts, in order.
            size_ms: Length of each.
            keys: One for each of ``windows``, for the results of these pairs; None for all keys,
                and each window is there once.
        """
        ...

    def running_results(self, times: pl.DataFrame) -> Iterator[Batch]:
        """Yield results of the slice of all time, for keys with an event time for each."""
        ...

    def remove_below(self, start: int) -> None:
        """Drop all slices before ``start``."""
        ...

    def starts(self) -> Sequence[int]:
        """Return the starts of all slices, in order; valid until records are added or removed."""
        ...


class AggregateInputs:
    """The columns that aggregates read, computed from a batch.

    Args:
        aggregates: Aggregate by name.
    """

    def __init__(self, aggregates: Mapping[str, AnyAggregate]) -> None:
        self._kinds: dict[str, AggregateKind] = {}
        expressions: list[pl.Expr] = []
        for name, aggregate in aggregates.items():
            if is_built_in(aggregate) and aggregate.expression is not None:
                expressions.append(aggregate.expression.alias(name))
                self._kinds[name] = aggregate.kind
        self._expressions = Expressions(expressions) if expressions else None

    def evaluate(self, batch: Batch) -> pl.DataFrame:
        """Return one column per aggregate that reads one, in the form that tables take.

        Raises:
            Exception: If an expression does, or a value is not a number where one is needed.
        """
        if self._expressions is None:
            return pl.DataFrame()
        frame = self._expressions.evaluate(batch)
        return pl.DataFrame(
            [
                _numbers(column, kind) if kind in NUMBERS_ONLY else column
                for column, kind in zip(frame.get_columns(), self._kinds.values(), strict=True)
            ]
        )


def _numbers(column: pl.Series, kind: AggregateKind) -> pl.Series:
    dtype = column.dtype
    if not (dtype.is_numeric() or is_one_of(dtype, pl.Boolean, pl.Null)):
        raise TypeError(f"{kind} of {column.name!r} needs numbers, the column is {dtype}")
    if kind == "mean" or dtype.is_float() or dtype.is_decimal():
        return column.cast(pl.Float64)
    return column.cast(pl.Int64)


class PlaneSlices:
    """Slices in the data plane's table; all aggregates are built in.

    Args:
        table: The table.
        inputs: What it is fed with.
        shape: What results look like.
        failures: The policy of the step.
    """

    def __init__(
        self, table: WindowTable, inputs: AggregateInputs, shape: ResultShape, failures: Failures
    ) -> None:
        self._table = table
        self._inputs = inputs
        self._shape = shape
        self._failures = failures

    def update(self, batch: Batch, slicer: Callable[[pl.Series], pl.Series]) -> list[Batch]:
        """Add records, and return those that could be added."""

        def add(part: Batch) -> None:
            columns = self._inputs.evaluate(part)
            frame = keys_and_times(part)
            if columns.width:
                frame = pl.DataFrame([*frame.get_columns(), *columns.get_columns()])
            self._table.update(frame, slicer(frame.get_column(TIME)))

        # The table takes all records of a part or none, so trying again is safe.
        return [
            part
            for alike in split_by_key_type(batch)
            for part, _ in isolate(alike, add, self._failures)
        ]

    def results(
        self, windows: Sequence[int], size_ms: int, keys: pl.Series | None = None
    ) -> Iterator[Batch]:
        """Yield results of windows."""
        done: int | None = None
        try:
            for frame in self._table.read(windows, size_ms, keys):
                yield self._shape.of_frame(frame, size_ms)
                done = frame.get_column(WINDOW)[-1]
        except OverflowError:
            # Of the windows whose slices were merged together, none has been put out.
            if keys is None:
                pairs = self._pairs([w for w in windows if done is None or w > done], size_ms)
            else:
                pairs = zip(windows, keys_to_list(keys), strict=True)
            yield from self._one_by_one(pairs, size_ms)

    def _pairs(self, windows: Sequence[int], size_ms: int) -> Iterator[tuple[int, Any]]:
        """Yield each window with each of its keys, in the order of the keys in state."""
        slices = list(self._table.slices())
        for window in windows:
            within = slices[bisect_left(slices, window) : bisect_left(slices, window + size_ms)]
            found = {
                key_to_state(key): key
                for frame in self._table.read(within, 1)
                for key in keys_to_list(frame.get_column(KEY))
            }
            yield from ((window, found[state_key]) for state_key in sorted(found))

    def _one_by_one(self, pairs: Iterable[tuple[int, Any]], size_ms: int) -> Iterator[Batch]:
        """Yield those results that can be computed; the others are told as failures."""
        for window, key in pairs:
            try:
                frames = list(self._table.read([window], size_ms, key_series([key])))
            except OverflowError as error:
                raised = error
            else:
                yield from (self._shape.of_frame(frame, size_ms) for frame in frames)
                continue
            _result_failed(self._failures, key, window + size_ms - 1, raised)

    def running_results(self, times: pl.DataFrame) -> Iterator[Batch]:
        """Yield results of the slice of all time."""
        keys = times.get_column(KEY)
        time_by_key = dict(zip(keys_to_list(keys), times[TIME].to_list(), strict=True))
        for frame in self._table.read([ALL_TIME.start_ms] * len(keys), 1, keys):
            # A dict, since Polars does not join on composite keys.
            found = [time_by_key[key] for key in keys_to_list(frame.get_column(KEY))]
            yield self._shape.of_running_frame(frame, pl.Series(TIME, found, dtype=pl.Int64))

    def remove_below(self, start: int) -> None:
        """Drop all slices before ``start``."""
        self._table.remove_below(start)

    def starts(self) -> Sequence[int]:
        """Return the starts of all slices."""
        return self._table.slices()


def split_by_key_type(batch: Batch) -> list[Batch]:
    """Return a batch in parts, of each the keys go into one column: True is not 1, nor '1'."""
    try:
        batch.key_column()
    except Exception:
        groups: dict[Any, list[int]] = {}
        for index, key in enumerate(batch.keys()):
            groups.setdefault(key_type(key), []).append(index)
        if len(groups) > 1:
            return [batch.take(indices) for indices in groups.values()]
    return [batch]


def keys_and_times(batch: Batch) -> pl.DataFrame:
    """Return the columns ``KEY`` and ``TIME`` of a batch, whatever its values are."""
    return pl.DataFrame([batch.key_column(), batch.time_column()])


class ObjectSlices:
    """Slices as accumulators in Python, for a user's own aggregates and ``reduce``.

    Args:
        folds: How records are folded.
        inputs: The columns that built-in aggregates among them read.
        shape: What results look like.
        context: Where tables are opened, below the name of the step.
    """

    def __init__(
        self,
        folds: Folds | Reduction,
        inputs: AggregateInputs,
        shape: ResultShape,
        context: OperatorContext,
    ) -> None:
        self._folds = folds
        self._inputs = inputs
        self._shape = shape
        self._failures = context.failures
        self._rows: KeyedTable = context.state.keyed_table(f"{context.step}/slices")
        # One row per slice, so that the earliest is found without a look at all keys.
        self._starts: KeyedTable = context.state.keyed_table(f"{context.step}/slice-starts")
        self._starts_known: list[int] | None = None

    def update(self, batch: Batch, slicer: Callable[[pl.Series], pl.Series]) -> list[Batch]:
        """Add records, and return those that could be added."""
        added: list[Batch] = []
        for alike in split_by_key_type(batch):
            for part, columns in isolate(alike, self._inputs.evaluate, self._failures):
                failed = self._add(part, columns, slicer)
                if failed:
                    part = part.take([i for i in range(len(part)) if i not in failed])
                if len(part):
                    added.append(part)
        return added

    def _add(
        self, batch: Batch, columns: pl.DataFrame, slicer: Callable[[pl.Series], pl.Series]
    ) -> set[int]:
        times = batch.times()
        starts = slicer(pl.Series(TIME, times, dtype=pl.Int64)).to_list()
        rows = batch.rows() if self._folds.needs_rows or not columns.width else None
        inputs = self._folds.inputs(rows, columns)
        groups: dict[bytes, list[int]] = {}
        for index, (start, key) in enumerate(zip(starts, batch.keys(), strict=True)):
            groups.setdefault(_row_key(start, key), []).append(index)
        self._rows.prefetch(list(groups))
        failed: set[int] = set()
        for row_key, indices in groups.items():
            stored = self._rows.get(row_key)
            row = self._fold(stored, indices, inputs, batch, failed)
            if row is not None and row is not stored:
                self._rows.put(row_key, row)
        known = self._known_starts
        for start in set(starts):
            at = bisect_left(known, start)
            if at == len(known) or known[at] != start:
                known.insert(at, start)
                self._starts.put(_int_key(start), b"")
        return failed

    def _fold(
        self,
        row: bytes | None,
        indices: list[int],
        inputs: Sequence[Any],
        batch: Batch,
        failed: set[int],
    ) -> bytes | None:
        """Return the accumulators of a slice and key with some records more, None for none."""
        times = batch.times()
        try:
            accumulators = self._folds.initial() if row is None else self._folds.decode(row)
            for index in indices:
                accumulators = self._folds.add(accumulators, inputs[index], times[index])
            return self._folds.encode(accumulators)
        except Exception as error:
            if len(indices) == 1:
                self._failures.record_failed(batch, indices[0], error)
                failed.add(indices[0])
                return row
        # One by one, each from bytes: what raised may have changed an accumulator before.
        for index in indices:
            row = self._fold(row, [index], inputs, batch, failed)
        return row

    def results(
        self, windows: Sequence[int], size_ms: int, keys: pl.Series | None = None
    ) -> Iterator[Batch]:
        """Yield results of windows."""
        if keys is None:
            rows = self._rows_by_window(windows, size_ms)
        else:
            rows = self._rows_of_pairs(windows, size_ms, keys_to_list(keys))
        found = (
            (key, parts, Span(start, start + size_ms))
            for start, stored in rows
            for key, parts in _by_key(stored)
        )
        yield from emit_rows(self._folds, self._shape, found, self._failures)

    def running_results(self, times: pl.DataFrame) -> Iterator[Batch]:
        """Yield results of the slice of all time."""
        time_by_key = dict(zip(keys_to_list(times[KEY]), times[TIME].to_list(), strict=True))
        rows = self._rows_of_pairs([ALL_TIME.start_ms] * len(time_by_key), 1, list(time_by_key))
        found = (
            (key, parts, time_by_key[key]) for _, stored in rows for key, parts in _by_key(stored)
        )
        yield from emit_rows(self._folds, self._shape, found, self._failures)

    def _rows_by_window(
        self, windows: Sequence[int], size_ms: int
    ) -> Iterator[tuple[int, list[tuple[bytes, bytes]]]]:
        """Yield each window with its rows, earlier slices first; each slice is read once."""
        if not windows:
            return
        scanned = self._rows.scan(_int_key(windows[0]), _int_key(windows[-1] + size_ms))
        slices = groupby(scanned, lambda row: _key_int(row[0]))
        read: deque[tuple[int, list[tuple[bytes, bytes]]]] = deque()
        upcoming = next(slices, None)
        for start in windows:
            while upcoming is not None and upcoming[0] < start + size_ms:
                read.append((upcoming[0], list(upcoming[1])))
                upcoming = next(slices, None)
            while read and read[0][0] < start:
                read.popleft()
            yield start, [row for _, rows in read for row in rows]

    def _rows_of_pairs(
        self, windows: Sequence[int], size_ms: int, keys: list[Any]
    ) -> Iterator[tuple[int, list[tuple[bytes, bytes]]]]:
        """Yield each window with the rows of some keys, earlier slices first."""
        known = self._known_starts
        pairs = zip(windows, map(key_to_state, keys), strict=True)
        for window, run in groupby(pairs, lambda pair: pair[0]):
            wanted = [key for _, key in run]
            slices = known[bisect_left(known, window) : bisect_left(known, window + size_ms)]
            row_keys = [_int_key(start) + key for start in slices for key in wanted]
            self._rows.prefetch(row_keys)
            rows = ((key, self._rows.get(key)) for key in row_keys)
            yield window, [(key, stored) for key, stored in rows if stored is not None]

    def remove_below(self, start: int) -> None:
        """Drop all slices before ``start``."""
        for table in (self._rows, self._starts):
            for key, _ in list(table.scan(b"", _int_key(start))):
                table.delete(key)
        known = self._known_starts
        del known[: bisect_left(known, start)]

    def starts(self) -> Sequence[int]:
        """Return the starts of all slices."""
        return self._known_starts

    @property
    def _known_starts(self) -> list[int]:
        # Read at the first use, since logic is built before the state is restored.
        if self._starts_known is None:
            self._starts_known = [_key_int(key) for key, _ in self._starts.scan(b"", None)]
        return self._starts_known


def _by_key(rows: list[tuple[bytes, bytes]]) -> Iterator[tuple[Any, list[bytes]]]:
    """Yield the accumulators of the slices by key, in the order of the keys in state."""
    by_key: dict[bytes, list[bytes]] = {}
    for row_key, stored in rows:
        by_key.setdefault(row_key[8:], []).append(stored)
    for key in sorted(by_key):
        yield key_from_state(key), by_key[key]


def emit_rows(
    folds: Folds | Reduction,
    shape: ResultShape,
    found: Iterable[tuple[Any, Sequence[bytes | list[Any]], Span | int]],
    failures: Failures,
) -> Iterator[Batch]:
    """Yield accumulators as batches of results, whose keys go into one column.

    Args:
        folds: How accumulators become results.
        shape: What results look like.
        found: Key, accumulators to be merged, stored or not, those of earlier slices first, and
            the window, or the event time where there are no windows.
        failures: The policy for results that cannot be computed.
    """
    rest = iter(found)
    while some := list(islice(rest, _RESULT_ROWS_MAX)):
        rows: list[tuple[Any, Any, Span | int]] = []
        for key, parts, span in some:
            try:
                decoded = (folds.decode(p) if isinstance(p, bytes) else p for p in parts)
                result = folds.result(reduce(folds.merge, decoded))
            except Exception as error:
                raised = error
            else:
                rows.append((key, result, span))
                continue
            time_ms = span if isinstance(span, int) else span.end_ms - 1
            _result_failed(failures, key, time_ms, raised)
        for _, alike in groupby(rows, lambda row: key_type(row[0])):
            keys, results, spans = zip(*alike, strict=True)
            yield shape.of_rows(list(keys), results, spans, named=bool(folds.names))


def _result_failed(failures: Failures, key: Any, time_ms: int, error: Exception) -> None:
    # There is no record to blame; what is known of the result stands in for one.
    failures.record_failed(Batch.of_rows([{"key": key}], [time_ms], keys=[key]), 0, error)


_SIGN = 1 << 63


def _int_key(value: int) -> bytes:
    # Shifted, so that the order of bytes is the order of numbers, negative ones included.
    return (value + _SIGN).to_bytes(8, "big")


def _key_int(key: bytes) -> int:
    return int.from_bytes(key[:8], "big") - _SIGN


def _row_key(start: int, key: Any) -> bytes:
    return _int_key(start) + key_to_state(key)
