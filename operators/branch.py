"""Branch: split a stream by conditions, first match wins.

State      none
Watermark  forwarded unchanged, to all branches
Order      kept within each branch
Emits      each record once: behind the port of the first condition that holds, or behind the last
           port, which is for the rest
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riverrun.engine.operator import OperatorLogic

from .filter import Matcher, keep

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Collector, Failures, OperatorContext


@dataclass(frozen=True, slots=True)
class Branch:
    """Send each record to the first of several outputs whose condition holds.

    Args:
        predicates: Condition by port, expressions or functions; the port behind the last one
            gets what matches none.
    """

    predicates: tuple[pl.Expr | Callable[[Any], object], ...]

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _BranchLogic([Matcher(predicate) for predicate in self.predicates], context.failures)


class _BranchLogic(OperatorLogic):
    def __init__(self, matchers: list[Matcher], failures: Failures) -> None:
        self._matchers = matchers
        self._failures = failures

    def on_batch(self, batch: Batch, out: Collector) -> None:
        self._split(batch, 0, out)

    def _split(self, batch: Batch, port: int, out: Collector) -> None:
        if port == len(self._matchers):
            out.emit(batch, port)
            return
        for part, mask in self._matchers[port].match(batch, self._failures):
            matching, rest = keep(part, mask), keep(part, ~mask)
            if matching is not None:
                out.emit(matching, port)
            if rest is not None:
                self._split(rest, port + 1, out)
