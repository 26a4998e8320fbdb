"""The operator contract: a frozen definition that builds the logic of one task.

Everything here is synchronous and runs on the batch thread of a task, one call at a time. An
operator does no I/O, never asks a clock and keeps nothing outside its tables that matters after a
crash: what it emits and what it puts into tables become durable together, at the next barrier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .batch import Batch
    from .plane import Plane
    from .task_state import TaskState

OnError = Literal["fail", "skip", "dead_letter"]
"""What becomes of a record that a step cannot process.

``fail`` stops the task with an error that names the record, ``skip`` counts and drops it, and
``dead_letter`` writes it, with the reason, to the dead-letter topic in the same transaction.
"""


class Collector(Protocol):
    """Where logic puts its results. Valid during the call it was passed to."""

    def emit(self, batch: Batch, port: int = 0) -> None:
        """Hand ``batch`` to the operators behind output ``port``, at once and in order."""
        ...


class Failures(Protocol):
    """What to do with records that a step cannot process, by the policy of the step."""

    def record_failed(self, batch: Batch, index: int, error: Exception) -> None:
        """Account for one record of ``batch``; the step goes on without it.

        Raises:
            RecordError: If the policy is ``fail``.
        """
        ...

    def count_late(self, count: int) -> None:
        """Count records that came after their window had closed."""
        ...


class SinkOutput(Protocol):
    """Collects what the epoch writes to topics."""

    def write(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        *,
        partitions: Sequence[int] | None = None,
        headers: Sequence[Sequence[tuple[str, bytes | None]]] | None = None,
    ) -> None:
        """Add records to ``topic``, partitioned by key unless ``partitions`` are given."""
        ...


def _no_clock() -> int:
    raise RuntimeError("this context was made without a clock")


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """What the logic of one step in one task may use.

    Attributes:
        job: Name of the topology.
        step: Name of the step.
        partition: Partition number of the task.
        plane: Implementations of the hot steps.
        state: Where to open tables.
        failures: What to do with records that cannot be processed.
        now_ms: Tells the wall clock, for what is about processing time. Results that depend on
            it are other ones after a restart.
    """

    job: str
    step: str
    partition: int
    plane: Plane
    state: TaskState
    failures: Failures
    now_ms: Callable[[], int] = _no_clock


class Operator(Protocol):
    """A frozen definition in a topology."""

    def build(self, context: OperatorContext) -> OperatorLogic | AsyncLogic:
        """Return the logic for one task. Its tables are already at the committed state."""
        ...


class OperatorLogic:
    """The running part of an operator. Override what is needed."""

    def on_batch(self, batch: Batch, out: Collector) -> None:
        """Process records. Never called with an empty batch."""
        raise NotImplementedError

    def on_watermark(self, watermark_ms: int, out: Collector) -> None:
        """React to the watermark of the inputs: no earlier event time is expected any more.

        Called only when it grew, after all batches before it. The chain forwards it downstream
        when this returns.
        """

    def output_watermark_ms(self, watermark_ms: int) -> int:
        """Return the watermark of the results, given that of the inputs.

        Smaller where results come with earlier event times than the inputs may still have: a
        window with allowed lateness is one. Must not shrink while ``watermark_ms`` grows.
        """
        return watermark_ms

    def on_processing_time(self, now_ms: int, out: Collector) -> None:
        """React to the wall clock; called when ``next_processing_time_ms`` has passed."""

    def next_processing_time_ms(self) -> int | None:
        """Return when ``on_processing_time`` is wanted, None if not."""
        return None


class AsyncLogic(Protocol):
    """The running part of an operator whose work waits: called on the event loop, per record.

    The engine keeps at most ``in_flight_max`` calls running, holds the watermark until the calls
    before it are done, and finishes all of them before a barrier passes.
    """

    @property
    def in_flight_max(self) -> int:
        """How many calls may run at once in one task."""
        ...

    @property
    def ordered(self) -> Literal["key", "stream"]:
        """``key``: results of one key keep their order, other keys overtake. ``stream``: all do."""
        ...

    async def call(self, value: Any) -> Any:
        """Return the result for one value; time-outs and retries are inside.

        Raises:
            Exception: Whatever made it fail for good; the step's policy decides.
        """
        ...
