"""The logical graph that the fluent API builds and the planner cuts into subtopologies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .codec import Codec
    from .operator import OnError, Operator
    from .schema import Schema

KeyFormat = Literal["text", "int", "bytes", "json"]
"""How the keys of a source topic are read: UTF-8 text, decimal text, raw bytes, JSON."""


class Edge(NamedTuple):
    """An output port of a step."""

    step: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class WatermarkPolicy:
    """How the watermark of a source partition follows its records.

    Attributes:
        out_of_orderness_ms: How much earlier than the latest one a record may be.
        idle_after_ms: Without records for this long a partition no longer holds the others back,
            and when all of a task's partitions are idle the watermark follows the wall clock, so
            that the last windows close. None: a quiet partition holds the watermark for ever.
        max_future_ms: Records further ahead of the wall clock than this do not count: they are
            handled by the source's error policy. None: no bound.
    """

    out_of_orderness_ms: int = 0
    idle_after_ms: int | None = None
    max_future_ms: int | None = 3_600_000


@dataclass(frozen=True, slots=True)
class SourceNode:
    """A topic that is read.

    Attributes:
        name: Step name.
        topic: Topic name.
        codec: How values are decoded.
        schema: Schema of the values, None if they have none.
        event_time: Field name, function of the value, or None for the record's own timestamp.
            A field or function gives milliseconds since the Unix epoch, or a datetime.
        watermark: How the watermark follows.
        key_format: How record keys are read.
        keyed_by: Field whose value every record is keyed and partitioned by, None if unknown.
        on_error: What becomes of records that cannot be read.
        partitions: Partition count to create the topic with if it is missing; None: must exist.
    """

    name: str
    topic: str
    codec: Codec
    schema: Schema | None
    event_time: str | Callable[[Any], Any] | None
    watermark: WatermarkPolicy
    key_format: KeyFormat
    keyed_by: str | None
    on_error: OnError
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class OperatorNode:
    """A step of a chain.

    Attributes:
        name: Step name.
        operator: What it does.
        inputs: Where its records come from; several are merged, with the smallest watermark.
        schema: Schema of output port 0, None if unknown.
        on_error: What becomes of records it cannot process.
        kind: Word for pictures and messages, like ``filter``.
        keyed: Whether it keeps state by key, so that its inputs must be co-partitioned.
    """

    name: str
    operator: Operator
    inputs: tuple[Edge, ...]
    schema: Schema | None
    on_error: OnError
    kind: str
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class RepartitionNode:
    """Records move to the task that owns their key, through an internal topic.

    Attributes:
        name: Step name.
        input: Where records, already under their new key, come from.
        schema: Schema of the values.
        partitions: Partitions of the internal topic; None: as many as the input has.
    """

    name: str
    input: Edge
    schema: Schema | None
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class SinkNode:
    """A topic that is written.

    Attributes:
        name: Step name.
        input: Where its records come from.
        topic: Topic name.
        codec: How values are encoded.
        on_error: What becomes of values that cannot be encoded or are too large.
        partitions: Partition count to create the topic with if it is missing; None: as many as
            the task has.
        retention_ms: Retention to create it with; None: kept for ever.
    """

    name: str
    input: Edge
    topic: str
    codec: Codec
    on_error: OnError
    partitions: int | None = None
    retention_ms: int | None = None


Node = SourceNode | OperatorNode | RepartitionNode | SinkNode


@dataclass(slots=True)
class Graph:
    """All steps of a job, in an order in which inputs come before their users.

    Attributes:
        name: Name of the job: prefix of its internal topics, consumer group and state.
        nodes: Step by name.
    """

    name: str
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])

    def add(self, node: Node) -> None:
        """Add a step behind the ones it reads from.

        Raises:
            TopologyError: If the name is taken, or an input is not in the graph.
        """
        if node.name in self.nodes:
            raise TopologyError(
                f"two steps are called {node.name!r}; give one of them another name= (names are "
                "how state is found again after a restart)"
            )
        for edge in inputs_of(node):
            if edge.step not in self.nodes:
                raise TopologyError(f"step {node.name!r} reads from unknown step {edge.step!r}")
        self.nodes[node.name] = node

    def consumers(self) -> Mapping[Edge, list[str]]:
        """Return the names of the steps behind each output port."""
        behind: dict[Edge, list[str]] = {}
        for node in self.nodes.values():
            for edge in inputs_of(node):
                behind.setdefault(edge, []).append(node.name)
        return behind


def inputs_of(node: Node) -> tuple[Edge, ...]:
    """Return the ports a step reads from."""
    match node:
        case SourceNode():
            return ()
        case OperatorNode():
            return node.inputs
        case RepartitionNode() | SinkNode():
            return (node.input,)
