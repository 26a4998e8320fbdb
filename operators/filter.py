"""Filter: keep the records for which a condition holds.

State      none
Watermark  forwarded unchanged
Order      kept
Emits      zero or one record per record
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from riverrun.engine.operator import OperatorLogic

from .callables import call_each
from .expressions import Expressions, isolate

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Collector, Failures, OperatorContext


@dataclass(frozen=True, slots=True)
class Filter:
    """Keep the records for which a condition holds.

    Args:
        predicate: A Polars expression (null counts as false), or a function of the value.
    """

    predicate: pl.Expr | Callable[[Any], object]

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _FilterLogic(Matcher(self.predicate), context.failures)


class _FilterLogic(OperatorLogic):
    def __init__(self, matcher: Matcher, failures: Failures) -> None:
        self._matcher = matcher
        self._failures = failures

    def on_batch(self, batch: Batch, out: Collector) -> None:
        for part, mask in self._matcher.match(batch, self._failures):
            kept = keep(part, mask)
            if kept is not None:
                out.emit(kept)


class Matcher:
    """A condition of a user, applied to batches. Also the heart of ``branch``.

    Args:
        predicate: A Polars expression, or a function of the value.
    """

    def __init__(self, predicate: pl.Expr | Callable[[Any], object]) -> None:
        self._function: Callable[[Any], object] | None = None
        self._expressions: Expressions | None = None
        if isinstance(predicate, pl.Expr):
            self._expressions = Expressions([predicate.alias("keep")])
        else:
            self._function = predicate

    def match(self, batch: Batch, failures: Failures) -> list[tuple[Batch, pl.Series]]:
        """Return the records that could be judged, in parts, each with its verdict.

        The verdict is a Boolean column without nulls.
        """
        if self._function is not None:
            # Truth is taken inside the call: a value may refuse to be true or false.
            function = self._function
            results, kept = call_each(
                lambda value: bool(function(value)), batch.rows(), batch, failures
            )
            if not results:
                return []
            if kept is not None:
                batch = batch.take(kept)
            return [(batch, pl.Series(results, dtype=pl.Boolean))]
        return list(isolate(batch, self._mask, failures))

    def _mask(self, batch: Batch) -> pl.Series:
        assert self._expressions is not None
        mask = self._expressions.evaluate(batch).to_series()
        if mask.dtype == pl.Null:
            return pl.repeat(False, len(batch), dtype=pl.Boolean, eager=True)
        if mask.dtype != pl.Boolean:
            raise TypeError(f"the condition gave {mask.dtype}, not Boolean")
        # Only where there are any: it goes through Polars' query engine, as long as all the rest.
        return mask.fill_null(False) if mask.null_count() else mask


def keep(batch: Batch, verdict: pl.Series) -> Batch | None:
    """Return the records of a batch that a verdict keeps, None if it keeps none."""
    count = int(verdict.sum())
    if count == len(batch):
        return batch
    return batch.where(verdict) if count else None
