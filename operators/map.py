"""Map, map batches and flat map: other values for the same records, or zero or more for each.

State      none
Watermark  forwarded unchanged
Order      kept; the values that one record gives stay together
Emits      ``map`` and ``map_batches`` one record per record,
          ``flat_map`` any number; each keeps event time and key
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from riverrun.engine.labels import RESERVED
from riverrun.engine.operator import OperatorLogic

from .callables import call_each
from .expressions import Expressions, isolate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Collector, Failures, OperatorContext
    from riverrun.engine.schema import Schema


@dataclass(frozen=True, slots=True)
class Map:
    """Give each record the value that a function returns for its own.

    Args:
        function: Called with the value.
        schema: Schema of what it returns, None if unknown.
    """

    function: Callable[[Any], Any]
    schema: Schema | None = None

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _MapLogic(self.function, self.schema, context.failures)


class _MapLogic(OperatorLogic):
    def __init__(
        self, function: Callable[[Any], Any], schema: Schema | None, failures: Failures
    ) -> None:
        self._function = function
        self._schema = schema
        self._failures = failures

    def on_batch(self, batch: Batch, out: Collector) -> None:
        results, kept = call_each(self._function, batch.rows(), batch, self._failures)
        if kept is not None:
            batch = batch.take(kept)
        if results:
            out.emit(batch.with_values(results, self._schema))


@dataclass(frozen=True, slots=True)
class MapColumns:
    """Give each record the columns that expressions compute from its own.

    Args:
        expressions: One or more Polars expressions, checked; they name the columns.
    """

    expressions: tuple[pl.Expr, ...]

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _MapColumnsLogic(Expressions(self.expressions), context.failures)


class _MapColumnsLogic(OperatorLogic):
    def __init__(self, expressions: Expressions, failures: Failures) -> None:
        self._expressions = expressions
        self._failures = failures

    def on_batch(self, batch: Batch, out: Collector) -> None:
        for part, columns in isolate(batch, self._expressions.evaluate, self._failures):
            out.emit(part.with_columns(columns))


@dataclass(frozen=True, slots=True)
class MapBatches:
    """Give records the values that a function computes for a whole batch of them, in columns.

    Args:
        function: Called with the values of a batch as a frame; returns one of as many rows.
        schema: What it returns, None if unknown.
    """

    function: Callable[[pl.DataFrame], pl.DataFrame]
    schema: Schema | None = None

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _MapBatchesLogic(self.function, self.schema, context.failures)


class _MapBatchesLogic(OperatorLogic):
    def __init__(
        self,
        function: Callable[[pl.DataFrame], pl.DataFrame],
        schema: Schema | None,
        failures: Failures,
    ) -> None:
        self._function = function
        self._schema = schema
        self._failures = failures

    def on_batch(self, batch: Batch, out: Collector) -> None:
        for part, columns in isolate(batch, self._call, self._failures):
            out.emit(part.with_columns(columns, self._schema))

    def _call(self, batch: Batch) -> pl.DataFrame:
        result: Any = self._function(batch.values_frame())
        if not isinstance(result, pl.DataFrame):
            raise TypeError(
                f"map_batches wants a polars.DataFrame, the function returned {result!r:.80}"
            )
        if result.height != len(batch):
            raise ValueError(
                f"the function gave {result.height} rows for {len(batch)} records; map_batches "
                "wants one for each: use filter to drop some, flat_map to add some"
            )
        for name in RESERVED:
            if name in result.columns:
                raise ValueError(f"the name {name!r} is the engine's own; call the column other")
        if self._schema is None:
            return result
        wanted = self._schema.columns
        missing = [name for name in wanted if name not in result.columns]
        if missing:
            raise ValueError(f"the function's frame lacks {', '.join(missing)}")
        return result.select(pl.col(name).cast(dtype) for name, dtype in wanted.items())


@dataclass(frozen=True, slots=True)
class FlatMap:
    """Give each record the values that a function returns for its own, zero or more.

    Args:
        function: Called with the value; returns a list or any other iterable.
        schema: Schema of the elements, None if unknown.
    """

    function: Callable[[Any], Iterable[Any]]
    schema: Schema | None = None

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _FlatMapLogic(self.function, self.schema, context.failures)


class _FlatMapLogic(OperatorLogic):
    def __init__(
        self, function: Callable[[Any], Iterable[Any]], schema: Schema | None, failures: Failures
    ) -> None:
        self._function = function
        self._schema = schema
        self._failures = failures

    def on_batch(self, batch: Batch, out: Collector) -> None:
        results, kept = call_each(self._values, batch.rows(), batch, self._failures)
        origins = range(len(batch)) if kept is None else kept
        rows: list[Any] = []
        parents: list[int] = []
        for index, values in zip(origins, results, strict=True):
            rows.extend(values)
            parents.extend([index] * len(values))
        if rows:
            out.emit(batch.with_expanded(rows, parents, self._schema))

    def _values(self, value: Any) -> list[Any]:
        # A generator runs here, inside the call, so that what it raises is told per record, and
        # the values it gave before that are dropped with it.
        values: Any = self._function(value)
        if isinstance(values, (str, bytes, dict)):
            kind = type(cast("object", values)).__name__
            raise TypeError(
                f"flat_map wants a list of values, the function returned {kind}; "
                "return [value] for one"
            )
        return list(values)
