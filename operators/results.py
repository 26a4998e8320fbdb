"""Results of aggregates as batches: key fields, window bounds, and a column per aggregate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import polars as pl

from riverrun.engine.batch import KEY, TIME, Batch
from riverrun.engine.plane import WINDOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.schema import Schema

WINDOW_START = "window_start"
WINDOW_END = "window_end"


class Span(NamedTuple):
    """A window: ``start_ms <= time < end_ms``."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class ResultShape:
    """What rows of results look like.

    Attributes:
        key_names: Columns of the key; several for a composite key.
        schema: Schema of the rows, None if unknown.
    """

    key_names: tuple[str, ...]
    schema: Schema | None = None

    def of_frame(self, results: pl.DataFrame, size_ms: int) -> Batch:
        """Return results of windows of one size: ``WINDOW``, ``KEY`` and the aggregates."""
        starts = results.get_column(WINDOW)
        return self.of_spans(results, starts, starts + size_ms)

    def of_spans(self, results: pl.DataFrame, starts: pl.Series, ends: pl.Series) -> Batch:
        """Return results of windows of any size: ``KEY`` and the aggregates."""
        bounds = [starts.alias(WINDOW_START), ends.alias(WINDOW_END)]
        return self._batch(results, bounds, ends - 1)

    def of_running_frame(self, results: pl.DataFrame, times: pl.Series) -> Batch:
        """Return results that belong to no window, each with an event time."""
        return self._batch(results, [], times)

    def _batch(self, results: pl.DataFrame, bounds: list[pl.Series], times: pl.Series) -> Batch:
        key = results.get_column(KEY)
        if len(self.key_names) == 1:
            names = [key.alias(self.key_names[0])]
        else:
            parts = zip(key.struct.fields, self.key_names, strict=True)
            names = [key.struct.field(part).alias(name) for part, name in parts]
        values = [column for column in results.get_columns() if column.name not in (WINDOW, KEY)]
        # Put together by hand, which for a few rows is quicker than a query.
        return Batch.of_frame(pl.DataFrame([*names, *bounds, *values, times.alias(TIME), key]))

    def of_rows(
        self,
        keys: list[Any],
        results: Sequence[Any],
        spans: Sequence[Span | int],
        *,
        named: bool,
    ) -> Batch:
        """Return results as rows.

        Args:
            keys: Key of each.
            results: Dicts by aggregate name, or values.
            spans: Window of each, or event time where there are no windows.
            named: Whether results are dicts, to be completed by key and window.
        """
        times = [span if isinstance(span, int) else span.end_ms - 1 for span in spans]
        rows = list(results)
        if named:
            rows = [
                {**self._key_fields(key), **_bounds(span), **result}
                for key, result, span in zip(keys, results, spans, strict=True)
            ]
        return Batch.of_rows(rows, times, keys=keys, schema=self.schema)

    def _key_fields(self, key: Any) -> dict[str, Any]:
        if len(self.key_names) == 1:
            if isinstance(key, tuple):
                # The same as the column form of a composite key.
                parts = cast("tuple[Any, ...]", key)
                key = {f"f{i}": part for i, part in enumerate(parts)}
            return {self.key_names[0]: key}
        return dict(zip(self.key_names, key, strict=True))


def _bounds(span: Span | int) -> dict[str, int]:
    if isinstance(span, int):
        return {}
    return {WINDOW_START: span.start_ms, WINDOW_END: span.end_ms}
