"""Topologies: where a job is defined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from riverrun.engine.errors import TopologyError
from riverrun.engine.graph import OperatorNode, RepartitionNode, SinkNode, SourceNode
from riverrun.engine.plan import make_plan

from .callables import check_callable
from .expressions import check_field
from .steps import Steps, check_on_error
from .stream import Stream
from .topic import Topic, Watermark

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.codec import Codec
    from riverrun.engine.graph import Graph
    from riverrun.engine.operator import OnError
    from riverrun.engine.schema import Schema

T = TypeVar("T")


class Topology:
    """A job: sources, what is done with their records, and sinks.

    Args:
        name: Name of the job: the beginning of its internal topics, its consumer group, and its
            state. Another name is another job.
        default_codec: How topics are written that do not say.

    Raises:
        TopologyError: If the name cannot be part of a topic name.

    Example:
        >>> topology = Topology("revenue")
        >>> topology.graph.name
        'revenue'
    """

    def __init__(self, name: str, *, default_codec: Codec | None = None) -> None:
        self._steps = Steps(name, default_codec)

    @property
    def name(self) -> str:
        """Name of the job."""
        return self._steps.graph.name

    @property
    def graph(self) -> Graph:
        """The steps so far."""
        return self._steps.graph

    def source(
        self,
        topic: Topic[T],
        *,
        event_time: str | Callable[[T], Any] | None = None,
        watermark: Watermark | None = None,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[T]:
        """Read a topic.

        Args:
            topic: The topic.
            event_time: When a record happened: a field, or a function of the value, with
                milliseconds since 1970 or a ``datetime``. None: the timestamp of the record.
            watermark: How event time goes on; None: by the latest record, none being out of order.
            name: Name of the step.
            on_error: What becomes of records that cannot be read.

        Raises:
            TopologyError: If the topic is read already, or has no such field.

        Example:
            >>> orders = topology.source(
            ...     Topic("orders"), event_time="ts", watermark=Watermark(out_of_orderness="5s")
            ... )  # doctest: +SKIP
        """
        if not isinstance(topic, Topic):
            raise TopologyError(f"source takes a Topic, got {topic!r}; write Topic('name')")
        step = self._steps.name("source", name)
        codec = topic.codec(self._steps.default_codec)
        self._check_unread(topic.name)
        _check_event_time(codec.schema, event_time, step)
        _check_keyed_by(codec.schema, topic, step)
        if watermark is not None and not isinstance(watermark, Watermark):
            raise TopologyError(f"step {step!r}: watermark={watermark!r} is not a Watermark(...)")
        edge = self._steps.add(
            SourceNode(
                step,
                topic.name,
                codec,
                codec.schema,
                event_time,
                (watermark or Watermark()).policy(),
                topic.key,
                topic.keyed_by,
                check_on_error(on_error, step),
                partitions=topic.partitions,
            )
        )
        for node in list(self.graph.nodes.values()):
            if isinstance(node, SinkNode):
                self._steps.check_no_cycle(node.input, node.topic, node.name)
        partitioned_by = None if topic.keyed_by is None else (topic.keyed_by,)
        return Stream(self._steps, edge, codec.schema, partitioned_by)

    def _check_unread(self, topic: str) -> None:
        for node in self.graph.nodes.values():
            if isinstance(node, SourceNode) and node.topic == topic:
                raise TopologyError(
                    f"topic {topic!r} is read by step {node.name!r} already; keep what source(...) "
                    "returned, a stream may be used any number of times"
                )

    def validate(self) -> None:
        """Check that the topology is whole; called before it runs.

        Raises:
            TopologyError: If nothing is read, a step's results go nowhere, or a topic is one that
                the job needs for itself.
        """
        nodes = self.graph.nodes
        if not any(isinstance(node, SourceNode) for node in nodes.values()):
            raise TopologyError(
                f"topology {self.name!r} has no source; begin with topology.source(Topic(...))"
            )
        used = {edge.step for edge in self.graph.consumers()}
        for node in nodes.values():
            if isinstance(node, SinkNode) or node.name in used:
                continue
            # A step for its side effects is a legitimate end, so long as it does something.
            if isinstance(node, OperatorNode) and node.kind in _MAY_END:
                continue
            shown = node.name
            if isinstance(node, RepartitionNode):
                shown = node.input.step
            raise TopologyError(
                f"the results of step {shown!r} go nowhere: a verb returns a new stream and leaves "
                "its own as it is. Use what it returned, or end with .sink(Topic(...))"
            )
        make_plan(self.graph)


# Steps that run a user's code, which may be there for what it does and not for what it returns.
_MAY_END = ("map", "flat_map", "map_async", "process")


def _check_event_time(schema: Schema | None, event_time: Any, step: str) -> None:
    if event_time is None:
        return
    if not isinstance(event_time, str):
        check_callable(event_time, step, "event_time= a field name or a function of the value")
        return
    dtype = check_field(schema, event_time, step, "event_time")
    if schema is None or (dtype is not None and (dtype.is_integer() or dtype == pl.Datetime)):
        return
    kind = "of a type without column form" if dtype is None else str(dtype)
    raise TopologyError(
        f"step {step!r}: event_time field {event_time!r} is {kind}; it must be an integer "
        "(milliseconds since 1970) or a datetime. Use event_time=lambda value: ... to convert"
    )


def _check_keyed_by(schema: Schema | None, topic: Topic[Any], step: str) -> None:
    if topic.keyed_by is not None:
        check_field(schema, topic.keyed_by, step, f"keyed_by of topic {topic.name!r}")
