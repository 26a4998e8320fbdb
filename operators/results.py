"""Results of aggregates as batches: key fields, window bounds, and a column per aggregate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import polars as pl

from riverrun.engine.batch import KEY, TIME, Batch

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

    def of_frame(self, results: pl.DataFrame, span: Span) -> Batch:
        """Return results of one window: ``results`` has ``KEY`` and the aggregates."""
        frame = self._with_key_columns(results).with_columns(
            pl.lit(span.end_ms - 1, pl.Int64).alias(TIME)
        )
        bounds = [
            pl.lit(span.start_ms, pl.Int64).alias(WINDOW_START),
            pl.lit(span.end_ms, pl.Int64).alias(WINDOW_END),
        ]
        names = [name for name in results.columns if name != KEY]
        return Batch.of_frame(frame.select(*self.key_names, *bounds, *names, TIME, KEY))

    def of_running_frame(self, results: pl.DataFrame, times: pl.Series) -> Batch:
        """Return results that belong to no window, each with an event time."""
        frame = self._with_key_columns(results).with_columns(times.alias(TIME))
        names = [name for name in results.columns if name != KEY]
        return Batch.of_frame(frame.select(*self.key_names, *names, TIME, KEY))

    def _with_key_columns(self, results: pl.DataFrame) -> pl.DataFrame:
        key = results.get_column(KEY)
        if len(self.key_names) == 1:
            return results.with_columns(key.alias(self.key_names[0]))
        parts = key.struct.fields
        return results.with_columns(
            [
                key.struct.field(part).alias(name)
                for part, name in zip(parts, self.key_names, strict=True)
            ]
        )

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
