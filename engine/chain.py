"""The chain of a task: its steps bound into direct calls, one per batch and step.

Everything here runs on the batch thread, except ``AsyncStage``'s queue, which the task's event
loop works off between two calls into the chain.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .failures import StepFailures
from .graph import Edge, OperatorNode, RepartitionNode, SinkNode, SourceNode, inputs_of
from .operator import OperatorContext, OperatorLogic
from .sink import RepartitionLogic, SinkLogic
from .watermarks import NO_WATERMARK, UNKNOWN, InputWatermark, combine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .batch import Batch
    from .metrics import Metrics, StepMetrics
    from .operator import AsyncLogic
    from .output import OutputBuffer
    from .plan import Plan, Subtopology, TaskId
    from .plane import Plane
    from .task_state import TaskState

_log = logging.getLogger(__name__)


class _Stage:
    """One step in one task: its logic, what is behind each of its ports, and its watermark."""

    def __init__(self, name: str, inputs: tuple[Edge, ...], metrics: StepMetrics) -> None:
        self.name = name
        self.behind: dict[int, list[_Stage]] = {}  # {port: stages}
        self.watermark = UNKNOWN
        self._inputs: dict[Edge, InputWatermark] = dict.fromkeys(inputs, UNKNOWN)
        self._metrics = metrics

    def emit(self, batch: Batch, port: int = 0) -> None:
        """Hand a batch to the stages behind ``port``."""
        if len(batch):
            for stage in self.behind.get(port, ()):
                stage.on_batch(batch)

    def on_batch(self, batch: Batch) -> None:
        """Take in a batch."""
        raise NotImplementedError

    def on_input_watermark(self, edge: Edge, watermark: InputWatermark) -> None:
        """Take in the watermark of one input; act when the merged one moved."""
        self._inputs[edge] = watermark
        merged = combine(self._inputs.values())
        # An input that wakes up may know less than was said already: a watermark never goes back.
        merged = merged._replace(value_ms=max(merged.value_ms, self.watermark.value_ms))
        if merged != self.watermark:
            grew = merged.value_ms > self.watermark.value_ms
            self.watermark = merged
            self.on_watermark(merged, grew=grew)

    def on_watermark(self, watermark: InputWatermark, *, grew: bool) -> None:
        """React to the merged watermark, then forward it."""
        raise NotImplementedError

    @property
    def merges(self) -> bool:
        """Whether it has several inputs."""
        return len(self._inputs) > 1

    def resume(self, value_ms: int) -> None:
        """Take up the watermark that it had come to before a restart."""
        if value_ms > self.watermark.value_ms:
            self.watermark = self.watermark._replace(value_ms=value_ms)
            self.on_watermark(self.watermark, grew=True)

    def forward(self, watermark: InputWatermark) -> None:
        """Pass the watermark to the stages behind all ports."""
        for port, stages in self.behind.items():
            for stage in stages:
                stage.on_input_watermark(Edge(self.name, port), watermark)


class OperatorStage(_Stage):
    """A step that computes."""

    def __init__(
        self, name: str, inputs: tuple[Edge, ...], metrics: StepMetrics, logic: OperatorLogic
    ) -> None:
        super().__init__(name, inputs, metrics)
        self.logic = logic

    def on_batch(self, batch: Batch) -> None:
        """Process a batch."""
        self._metrics.records.inc(len(batch))
        self.logic.on_batch(batch, self)

    def on_watermark(self, watermark: InputWatermark, *, grew: bool) -> None:
        """Let the logic react, then forward."""
        if grew:
            self.logic.on_watermark(watermark.value_ms, self)
        if watermark.value_ms != NO_WATERMARK:
            results_ms = self.logic.output_watermark_ms(watermark.value_ms)
            watermark = watermark._replace(value_ms=results_ms)
        self.forward(watermark)


@dataclass(slots=True)
class AsyncEntry:
    """One record on its way through an async step, or a watermark that waits for those before it.

    Attributes:
        batch: The record, in a batch of one; None for a watermark.
        watermark: The watermark; None for a record.
        key: Key that orders records; None orders with all.
        done: Whether a result is there.
        result: The result, or the exception.
        started: Whether its call runs.
    """

    batch: Batch | None = None
    watermark: InputWatermark | None = None
    key: Any = None
    done: bool = False
    result: Any = None
    started: bool = False


class AsyncStage(_Stage):
    """A step whose work waits: records queue here until the event loop has their results."""

    def __init__(
        self,
        name: str,
        inputs: tuple[Edge, ...],
        metrics: StepMetrics,
        logic: AsyncLogic,
        failures: StepFailures,
    ) -> None:
        super().__init__(name, inputs, metrics)
        self.logic = logic
        self.queue: deque[AsyncEntry] = deque()
        self._failures = failures

    def on_batch(self, batch: Batch) -> None:
        """Queue the records of a batch."""
        self._metrics.records.inc(len(batch))
        keys = batch.keys()
        self.queue.extend(
            AsyncEntry(batch=batch.take([index]), key=keys[index]) for index in range(len(batch))
        )

    def on_watermark(self, watermark: InputWatermark, *, grew: bool) -> None:
        """Queue the watermark behind the records before it, or pass it on if there are none."""
        del grew
        if self.queue:
            self.queue.append(AsyncEntry(watermark=watermark, done=True))
        else:
            self.forward(watermark)

    def deliver(self) -> None:
        """Pass on what is finished, as far as the order allows."""
        blocked_keys: set[Any] = set()
        kept: deque[AsyncEntry] = deque()
        by_key = self.logic.ordered == "key"
        while self.queue:
            entry = self.queue.popleft()
            if entry.watermark is not None:
                # Records that overtook are before it as well as after it: earlier is allowed.
                if kept:
                    kept.append(entry)
                else:
                    self.forward(entry.watermark)
            elif not entry.done or (kept and not by_key) or entry.key in blocked_keys:
                blocked_keys.add(entry.key)
                kept.append(entry)
            else:
                self._pass_on(entry)
        self.queue = kept

    def _pass_on(self, entry: AsyncEntry) -> None:
        assert entry.batch is not None
        if isinstance(entry.result, BaseException):
            if not isinstance(entry.result, Exception):
                raise entry.result
            self._failures.record_failed(entry.batch, 0, entry.result)
        else:
            self.emit(entry.batch.with_values([entry.result]))


@dataclass(slots=True)
class ChainParts:
    """What a chain is built from, besides the plan.

    Attributes:
        plane: Implementations of the hot steps.
        state: Where operators open their tables.
        output: Where sinks write to.
        metrics: Metrics of the worker.
    """

    plane: Plane
    state: TaskState
    output: OutputBuffer
    metrics: Metrics


@dataclass(slots=True)
class Chain:
    """All steps of one task.

    Attributes:
        heads: Stages behind each port of each input.
        async_stages: Steps with work on the event loop, in graph order.
        failures: Error policy by step.
        signatures: What each keyed step keeps, for the check that committed state still fits.
        stages: All steps, in graph order.
        repartitions: The steps that write to other tasks.
    """

    heads: dict[Edge, list[_Stage]] = field(default_factory=dict[Edge, "list[_Stage]"])
    async_stages: list[AsyncStage] = field(default_factory=list[AsyncStage])
    failures: dict[str, StepFailures] = field(default_factory=dict[str, StepFailures])
    signatures: dict[str, str] = field(default_factory=dict[str, str])
    stages: list[_Stage] = field(default_factory=list[_Stage])
    repartitions: list[tuple[OperatorStage, RepartitionLogic]] = field(
        default_factory=list[tuple[OperatorStage, RepartitionLogic]]
    )

    def push(self, input_step: str, batch: Batch) -> None:
        """Process a batch of an input, all the way down."""
        for stage in self.heads.get(Edge(input_step), ()):
            stage.on_batch(batch)

    def advance(self, input_step: str, watermark: InputWatermark) -> None:
        """Take in the watermark of an input."""
        edge = Edge(input_step)
        for stage in self.heads.get(edge, ()):
            stage.on_input_watermark(edge, watermark)

    def deliver_async(self) -> None:
        """Pass on finished results of all async steps, upstream ones first."""
        for stage in self.async_stages:
            stage.deliver()

    def has_async_work(self) -> bool:
        """Return whether records are inside async steps."""
        return any(stage.queue for stage in self.async_stages)

    def next_processing_time_ms(self) -> int | None:
        """Return the earliest wall-clock time that a step waits for, None if there is none."""
        wanted = [
            time
            for stage in self.stages
            if isinstance(stage, OperatorStage)
            and (time := stage.logic.next_processing_time_ms()) is not None
        ]
        return min(wanted, default=None)

    def on_processing_time(self, now_ms: int) -> None:
        """Tell the steps that wait for it that the wall clock has come to ``now_ms``."""
        for stage in self.stages:
            if isinstance(stage, OperatorStage):
                wanted = stage.logic.next_processing_time_ms()
                if wanted is not None and wanted <= now_ms:
                    stage.logic.on_processing_time(now_ms, stage)

    def merged_watermarks(self) -> dict[str, int]:
        """Return the watermarks of steps with several inputs, for the commit record."""
        return {
            stage.name: stage.watermark.value_ms
            for stage in self.stages
            if stage.merges and stage.watermark.value_ms != NO_WATERMARK
        }

    def resume_merged(self, watermarks: Mapping[str, int]) -> None:
        """Take up ``merged_watermarks``, when the inputs have taken up theirs."""
        for stage in self.stages:
            if stage.name in watermarks:
                stage.resume(watermarks[stage.name])

    def write_watermarks(self) -> bool:
        """Tell downstream tasks the watermarks; part of the barrier. Returns whether any moved."""
        moved = [
            logic.write_watermark(stage.watermark)
            for stage, logic in self.repartitions
            if stage.watermark.value_ms != NO_WATERMARK or stage.watermark.idle
        ]
        return any(moved)


def build_chain(plan: Plan, sub: Subtopology, task: TaskId, parts: ChainParts) -> Chain:
    """Bind the steps of a subtopology for one task; tables are opened, nothing is processed."""
    chain = Chain()
    stages: dict[str, _Stage] = {}
    for node in sub.inputs:
        policy = node.on_error if isinstance(node, SourceNode) else "fail"
        chain.failures[node.name] = _failures(plan, node.name, policy, task, parts)
    for node in sub.steps:
        stage = _build_stage(plan, node, task, parts, chain)
        if node.name not in stages:
            stages[node.name] = stage
        chain.stages.append(stage)
        for edge in inputs_of(node):
            source = stages.get(edge.step)
            # A repartition that this very task writes is an input when it is read.
            if source is not None and not isinstance(plan.graph.nodes[edge.step], RepartitionNode):
                source.behind.setdefault(edge.port, []).append(stage)
            else:
                chain.heads.setdefault(edge, []).append(stage)
    return chain


def _failures(plan: Plan, step: str, policy: Any, task: TaskId, parts: ChainParts) -> StepFailures:
    metrics = parts.metrics.step(step, task.partition)
    return StepFailures(step, policy, plan.dead_letters, parts.output, metrics)


def _build_stage(
    plan: Plan,
    node: OperatorNode | SinkNode | RepartitionNode,
    task: TaskId,
    parts: ChainParts,
    chain: Chain,
) -> _Stage:
    metrics = parts.metrics.step(node.name, task.partition)
    inputs = inputs_of(node)
    policy = "fail" if isinstance(node, RepartitionNode) else node.on_error
    failures = _failures(plan, node.name, policy, task, parts)
    chain.failures[node.name] = failures
    if isinstance(node, SinkNode):
        logic = SinkLogic(node, parts.output, failures, parts.plane)
        return OperatorStage(node.name, inputs, metrics, logic)
    if isinstance(node, RepartitionNode):
        repartition = RepartitionLogic(node, plan.topic_of(node), task.partition, parts.output)
        stage = OperatorStage(node.name, inputs, metrics, repartition)
        chain.repartitions.append((stage, repartition))
        return stage
    before = set(parts.state.names)
    context = OperatorContext(
        plan.job,
        node.name,
        task.partition,
        parts.plane,
        parts.state,
        failures,
        parts.output.now_ms,
    )
    built = node.operator.build(context)
    signature = getattr(node.operator, "state_signature", type(node.operator).__name__)
    for table in set(parts.state.names) - before:
        chain.signatures[table] = str(signature)
    if isinstance(built, OperatorLogic):
        return OperatorStage(node.name, inputs, metrics, built)
    stage = AsyncStage(node.name, inputs, metrics, built, failures)
    chain.async_stages.append(stage)
    return stage
