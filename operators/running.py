"""Running aggregate: aggregates per key over all records so far.

State      one accumulator per key, kept for ever
Watermark  forwarded unchanged
Order      results come in the order of the batches
Emits      per batch, one result for each key in it; its event time is the latest of the key's
           records in the batch
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from riverrun.engine.batch import KEY, TIME, Batch
from riverrun.engine.operator import OperatorLogic

from .slices import ALL_TIME, SliceStore, keys_and_times

if TYPE_CHECKING:
    from riverrun.engine.operator import Collector, OperatorContext

    from .aggregation import Aggregation


@dataclass(frozen=True, slots=True)
class RunningAggregate:
    """Aggregate all records of each key.

    Args:
        aggregation: What is computed.
    """

    aggregation: Aggregation

    @property
    def state_signature(self) -> str:
        """What must not change as long as there is state."""
        return f"running:{self.aggregation.signature()}"

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _RunningLogic(self.aggregation.open_slices(context))


class _RunningLogic(OperatorLogic):
    def __init__(self, slices: SliceStore) -> None:
        self._slices = slices

    def on_batch(self, batch: Batch, out: Collector) -> None:
        for part in self._slices.update(batch, _one_slice):
            frame = keys_and_times(part)
            latest = frame.group_by(KEY, maintain_order=True).agg(pl.col(TIME).max())
            for results in self._slices.running_results(latest):
                out.emit(results)


def _one_slice(times: pl.Series) -> pl.Series:
    return pl.repeat(ALL_TIME.start_ms, len(times), dtype=pl.Int64, eager=True)
