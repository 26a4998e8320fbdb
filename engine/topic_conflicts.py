"""Topics of a plan that must not be what they are: the job's own, and cycles of dead letters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .errors import TopologyError
from .graph import RepartitionNode, SinkNode, SourceNode, inputs_of

if TYPE_CHECKING:
    from .graph import Graph
    from .plan import Plan


def check_topic_conflicts(plan: Plan) -> None:
    """Check that no step gets in the way of the engine, of itself or of another one.

    Raises:
        TopologyError: If a source or sink uses an internal topic of the job, dead letters come
            back to a step that writes them, or sinks want one topic in two sizes.
    """
    _check_internal(plan)
    _check_dead_letters(plan)
    _check_sizes(plan.graph)


def _check_internal(plan: Plan) -> None:
    internal = {plan.changelog(sub.id) for sub in plan.subtopologies}
    internal |= {
        plan.topic_of(node)
        for node in plan.graph.nodes.values()
        if isinstance(node, RepartitionNode)
    }
    # Those of other versions of the job as well: they would find their state destroyed.
    reserved = re.compile(rf"{re.escape(plan.job)}-(\d+-changelog|.+-repartition)")
    for node in plan.graph.nodes.values():
        if not isinstance(node, (SourceNode, SinkNode)):
            continue
        if node.topic in internal or reserved.fullmatch(node.topic):
            does = "reads" if isinstance(node, SourceNode) else "writes"
            raise TopologyError(
                f"step {node.name!r} {does} topic {node.topic!r}, a name that belongs to job "
                f"{plan.job!r} itself, for its state and for moving records; use a topic of "
                "another name"
            )


def _check_dead_letters(plan: Plan) -> None:
    graph = plan.graph
    for source in graph.nodes.values():
        if not isinstance(source, SourceNode) or source.topic != plan.dead_letters:
            continue
        for name in _downstream(graph, source.name):
            node = graph.nodes[name]
            if not isinstance(node, RepartitionNode) and node.on_error == "dead_letter":
                raise TopologyError(
                    f"step {name!r} has on_error='dead_letter' and gets its records from "
                    f"{plan.dead_letters!r}, the dead letters of this job: a cycle, in which a "
                    "bad record would go round for ever. Give the step on_error='skip', or read "
                    "the dead letters in a job of their own"
                )


def _downstream(graph: Graph, step: str) -> list[str]:
    """Return a step and all behind it, over edges and over topics, in the order of the graph."""
    found, grown = {step}, True
    while grown:
        written = {
            node.topic
            for node in graph.nodes.values()
            if isinstance(node, SinkNode) and node.name in found
        }
        new = {
            node.name
            for node in graph.nodes.values()
            if any(edge.step in found for edge in inputs_of(node))
            or (isinstance(node, SourceNode) and node.topic in written)
        }
        grown = not new <= found
        found |= new
    return [name for name in graph.nodes if name in found]


def _check_sizes(graph: Graph) -> None:
    sized: dict[str, SourceNode | SinkNode] = {}
    for node in graph.nodes.values():
        if not isinstance(node, (SourceNode, SinkNode)) or node.partitions is None:
            continue
        other = sized.setdefault(node.topic, node)
        if other.partitions != node.partitions:
            raise TopologyError(
                f"steps {other.name!r} and {node.name!r} want topic {node.topic!r} with "
                f"{other.partitions} and with {node.partitions} partitions; use one Topic(...) "
                "for both"
            )
