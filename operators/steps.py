"""The graph under construction: names of steps, and what every verb checks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

from riverrun.engine.errors import TopologyError
from riverrun.engine.graph import Edge, Graph, OperatorNode, SinkNode, SourceNode, inputs_of
from riverrun.engine.operator import OnError

from .checks import if_column

if TYPE_CHECKING:
    from riverrun.engine.codec import Codec
    from riverrun.engine.graph import Node
    from riverrun.engine.operator import Operator
    from riverrun.engine.schema import Schema

# Step names become parts of topic names.
_STEP_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def check_name(name: object, what: str) -> str:
    """Return a name that can be a part of topic names.

    Raises:
        TopologyError: If it cannot.
    """
    if not isinstance(name, str):
        raise TopologyError(f"{what} must be text, got {name!r}{if_column(name, 'name')}")
    if not _STEP_NAME.fullmatch(name):
        raise TopologyError(f"{what} {name!r}: use 1 to 100 letters, digits, '.', '_' and '-'")
    return name


def _check_job_name(name: object) -> str:
    if not isinstance(name, str):
        raise TopologyError(f"a topology takes a name, like Topology('revenue'), got {name!r}")
    check_name(name, "name of a topology")
    # It is a directory as well, and an argument of commands.
    if name[0] in ".-":
        raise TopologyError(
            f"name of a topology {name!r}: begin with a letter, a digit or '_', not {name[0]!r}"
        )
    return name


class Steps:
    """The steps of one topology, with a name for each.

    Args:
        job: Name of the topology.
        default_codec: How topics are written that do not say.
    """

    def __init__(self, job: str, default_codec: Codec | None) -> None:
        self.graph = Graph(_check_job_name(job))
        self.default_codec = default_codec
        self._counts: dict[str, int] = {}  # {kind: steps of it so far}

    def name(self, kind: str, given: str | None) -> str:
        """Return the name of a new step: the given one, or ``kind-N``.

        N counts the steps of one kind, so that adding a filter does not rename a window, and with
        it lose the window's state.

        Raises:
            TopologyError: If the given one cannot be used.
        """
        if given is not None:
            name = check_name(given, "name of a step")
            if name in self.graph.nodes:
                raise TopologyError(
                    f"two steps are called {name!r}; give one of them another name="
                )
            return name
        while True:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            name = f"{kind}-{self._counts[kind]}"
            if name not in self.graph.nodes:
                return name

    def add(self, node: Node) -> Edge:
        """Add a step and return its first output."""
        self.graph.add(node)
        return Edge(node.name)

    def add_operator(
        self,
        kind: str,
        name: str,
        operator: Operator,
        inputs: tuple[Edge, ...],
        schema: Schema | None,
        on_error: OnError,
        *,
        keyed: bool = False,
    ) -> Edge:
        """Add an operator and return its first output."""
        check_on_error(on_error, name)
        return self.add(
            OperatorNode(name, operator, inputs, schema, on_error, kind=kind, keyed=keyed)
        )

    def check_no_cycle(self, edge: Edge, topic: str, step: str) -> None:
        """Check that what a sink writes does not flow back into it.

        Raises:
            TopologyError: If the topic, or one written from it, feeds the stream that is written.
        """
        nodes = self.graph.nodes
        # Upstream of the sink: over edges, and over topics that this topology writes and reads.
        found = {edge.step}
        todo = [edge.step]
        while todo:
            node = nodes[todo.pop()]
            before = [input_edge.step for input_edge in inputs_of(node)]
            if isinstance(node, SourceNode):
                if node.topic == topic:
                    raise TopologyError(
                        f"step {step!r} writes topic {topic!r}, which feeds it (source "
                        f"{node.name!r}): a cycle, whose records would go round for ever. Write "
                        "to another topic"
                    )
                before = [
                    sink.name
                    for sink in nodes.values()
                    if isinstance(sink, SinkNode) and sink.topic == node.topic
                ]
            new = [name for name in before if name not in found]
            found.update(new)
            todo.extend(new)


def check_on_error(on_error: Any, step: str) -> OnError:
    """Return the policy.

    Raises:
        TopologyError: If there is no such policy.
    """
    if on_error not in get_args(OnError):
        raise TopologyError(
            f"step {step!r}: on_error={on_error!r} is not one of fail, skip, dead_letter"
            f"{if_column(on_error, 'on_error')}"
        )
    return on_error
