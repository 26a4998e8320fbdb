"""Union: the records of several streams as one.

State      none
Watermark  the smallest of the inputs, merged by the engine
Order      kept within each input, free between them
Emits      one record per record
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from riverrun.engine.operator import OperatorLogic

if TYPE_CHECKING:
    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Collector, OperatorContext


@dataclass(frozen=True, slots=True)
class Union:
    """Pass on the records of all inputs."""

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        del context
        return _UnionLogic()


class _UnionLogic(OperatorLogic):
    def on_batch(self, batch: Batch, out: Collector) -> None:
        out.emit(batch)
