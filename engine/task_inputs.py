"""The inputs of a task: positions, watermarks, and raw chunks into the chain."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from . import frames
from .changelog import InputPosition, UpstreamMark
from .codec import on_plane
from .errors import CorruptBatchError
from .graph import RepartitionNode, SourceNode
from .log import TopicPartition
from .source import SourceHead
from .watermarks import NO_WATERMARK, UNKNOWN, InputWatermark, SourceWatermark, combine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .batch import Batch
    from .chain import Chain
    from .changelog import CommitRecord
    from .log import Chunk
    from .plan import ResolvedPlan, TaskId
    from .plane import Plane

CLOCK_STEP_MS = 1_000
"""Idle inputs follow the wall clock in steps of this: finer ones would commit all the time."""


@dataclass(slots=True)
class SourceInput:
    """A source partition."""

    node: SourceNode
    head: SourceHead
    watermark: SourceWatermark


@dataclass(slots=True)
class RepartitionInput:
    """A repartition partition, with the watermark of every task that writes to it."""

    node: RepartitionNode
    upstream: dict[int, InputWatermark] = field(default_factory=dict[int, InputWatermark])


class TaskInputs:
    """All inputs of one task. Runs on the batch thread, except where it says otherwise.

    How long an input has been quiet goes by the monotonic clock, ``tick_ms``: event time must not
    leap because somebody sets the wall clock.

    Args:
        resolved: The plan with its sizes.
        task: Which task.
        chain: Where batches go.
        plane: Decodes record batches and values.
        tick_ms: Monotonic clock at the start.
        idle_after_ms: For sources whose policy sets none.
    """

    def __init__(
        self,
        resolved: ResolvedPlan,
        task: TaskId,
        chain: Chain,
        plane: Plane,
        tick_ms: int,
        idle_after_ms: int | None = None,
    ) -> None:
        self._chain = chain
        self._codec = plane.record_batches
        self.positions: dict[TopicPartition, int] = {}
        self._inputs: dict[TopicPartition, SourceInput | RepartitionInput] = {}
        self._told: dict[TopicPartition, InputWatermark] = {}
        for node in resolved.subtopology(task).inputs:
            where = TopicPartition(resolved.plan.topic_of(node), task.partition)
            if where not in resolved.inputs_of(task):
                continue
            if isinstance(node, SourceNode):
                policy = node.watermark
                if policy.idle_after_ms is None and idle_after_ms is not None:
                    policy = replace(policy, idle_after_ms=idle_after_ms)
                watermark = SourceWatermark(policy, None, tick_ms)
                codec = on_plane(node.codec, plane)
                head = SourceHead(node, chain.failures[node.name], codec)
                self._inputs[where] = SourceInput(node, head, watermark)
            else:
                upstream = range(resolved.upstream_tasks(node.name))
                self._inputs[where] = RepartitionInput(node, dict.fromkeys(upstream, UNKNOWN))

    def partitions(self) -> list[TopicPartition]:
        """Return what the task reads."""
        return list(self._inputs)

    def all(self) -> list[SourceInput | RepartitionInput]:
        """Return the inputs."""
        return list(self._inputs.values())

    def resume(self, commit: CommitRecord) -> None:
        """Take up positions and watermarks from the last commit record, and tell the chain."""
        for position in commit.positions:
            where = TopicPartition(position.topic, position.partition)
            each = self._inputs.get(where)
            if each is None:
                continue
            self.positions[where] = position.offset
            if isinstance(each, SourceInput):
                each.watermark.max_event_time_ms = position.max_event_time_ms
                each.watermark.floor_ms = position.watermark_ms
        for mark in commit.upstream:
            for each in self._inputs.values():
                if not isinstance(each, RepartitionInput) or each.node.name != mark.step:
                    continue
                if mark.upstream in each.upstream:
                    each.upstream[mark.upstream] = InputWatermark(mark.watermark_ms, mark.idle)
        for position in commit.positions:
            where = TopicPartition(position.topic, position.partition)
            each = self._inputs.get(where)
            if each is not None:
                # As it was said before the crash: state is as of this watermark.
                watermark = InputWatermark(position.watermark_ms, position.idle)
                self._told[where] = watermark
                self._chain.advance(each.node.name, watermark)
        self._chain.resume_merged(commit.merged)

    def process(self, chunk: Chunk, now_ms: int, tick_ms: int) -> None:
        """Decode a chunk and push it through the chain."""
        records = self._codec.decode(chunk)
        each = self._inputs[chunk.partition]
        if isinstance(each, SourceInput):
            batch = each.head.to_batch(records, now_ms)
            each.watermark.quiet_since_ms = tick_ms
            if batch is not None:
                self._chain.push(each.node.name, batch)
                each.watermark.observe(batch.max_time(), tick_ms)
        else:
            self._process_frames(each, records.values, str(chunk.partition))
        self.positions[chunk.partition] = chunk.next_offset

    def _process_frames(
        self, each: RepartitionInput, values: Sequence[bytes | None], where: str
    ) -> None:
        batches: list[Batch] = []
        marks: list[tuple[int, InputWatermark]] = []
        for value in values:
            if value is None:
                raise CorruptBatchError(f"{where} holds a tombstone; only riverrun may write there")
            frame = frames.decode(value, each.node.schema)
            if frame.batch is not None:
                batches.append(frame.batch)
            if frame.watermark is not None:
                marks.append((frame.upstream, frame.watermark))
        # Watermarks may be taken in late, never early: after all records of the chunk.
        for batch in frames.concat(batches, each.node.schema):
            self._chain.push(each.node.name, batch)
        for upstream, mark in marks:
            before = each.upstream.get(upstream)
            if before is not None:
                # Without transactions a former owner may tell late what was true once; what it
                # sends has come already.
                each.upstream[upstream] = mark._replace(
                    value_ms=max(mark.value_ms, before.value_ms)
                )

    def note_busy(self, partition: TopicPartition, tick_ms: int) -> None:
        """Count a partition as active that has records to read, or cannot be read at present."""
        each = self._inputs[partition]
        if isinstance(each, SourceInput):
            each.watermark.quiet_since_ms = tick_ms

    def watermarks(self, tick_ms: int) -> dict[TopicPartition, InputWatermark]:
        """Return the watermark of every input now, none below what the chain was told."""
        follow = all(self._is_idle(each, tick_ms) for each in self._inputs.values())
        stepped_ms = tick_ms - tick_ms % CLOCK_STEP_MS if follow else tick_ms
        result: dict[TopicPartition, InputWatermark] = {}
        for where, each in self._inputs.items():
            if isinstance(each, SourceInput):
                current = each.watermark.current(tick_ms, follow_clock=False)
                if follow and stepped_ms > each.watermark.quiet_since_ms:
                    current = each.watermark.current(stepped_ms, follow_clock=True)
                    current = current._replace(idle=True)
            else:
                # An upstream task that wakes up, or starts again, may know less than the others.
                current = combine(each.upstream.values())
            told_ms = self._told.get(where, UNKNOWN).value_ms
            result[where] = current._replace(value_ms=max(current.value_ms, told_ms))
        return result

    def _is_idle(self, each: SourceInput | RepartitionInput, tick_ms: int) -> bool:
        if isinstance(each, SourceInput):
            return each.watermark.is_idle(tick_ms)
        return combine(each.upstream.values()).idle

    def moved(self, tick_ms: int) -> bool:
        """Return whether a watermark differs from what the chain was told."""
        return any(
            mark != self._told.get(where, UNKNOWN)
            for where, mark in self.watermarks(tick_ms).items()
        )

    def advance(self, tick_ms: int) -> bool:
        """Tell the chain the watermarks that moved; return whether any did."""
        any_moved = False
        for where, mark in self.watermarks(tick_ms).items():
            if mark != self._told.get(where, UNKNOWN):
                self._told[where] = mark
                self._chain.advance(self._inputs[where].node.name, mark)
                any_moved = True
        return any_moved

    def told(self) -> dict[TopicPartition, InputWatermark]:
        """Return what the chain was told last, for metrics."""
        return dict(self._told)

    def repartition_positions(self) -> dict[TopicPartition, int]:
        """Return the positions in topics that nobody else reads."""
        return {
            where: self.positions[where]
            for where, each in self._inputs.items()
            if isinstance(each, RepartitionInput) and where in self.positions
        }

    def commit_positions(self) -> tuple[InputPosition, ...]:
        """Return positions and watermarks for the commit record."""
        result: list[InputPosition] = []
        for where, offset in self.positions.items():
            each = self._inputs[where]
            told = self._told.get(where, UNKNOWN)
            latest = each.watermark.max_event_time_ms if isinstance(each, SourceInput) else None
            result.append(
                InputPosition(
                    where.topic, where.partition, offset, latest, told.value_ms, told.idle
                )
            )
        return tuple(result)

    def commit_upstream(self) -> tuple[UpstreamMark, ...]:
        """Return the watermarks of upstream tasks for the commit record."""
        return tuple(
            UpstreamMark(each.node.name, upstream, mark.value_ms, mark.idle)
            for each in self._inputs.values()
            if isinstance(each, RepartitionInput)
            for upstream, mark in each.upstream.items()
            if mark.value_ms != NO_WATERMARK or mark.idle
        )
