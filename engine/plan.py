"""From the logical graph to what runs: subtopologies, tasks and internal topics.

A *subtopology* is a part of the graph between repartition topics. A *task* is one subtopology on
one partition number, all its inputs together, so that records of one key meet in one task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .errors import StateMismatchError, TopicMissingError, TopologyError
from .graph import Graph, OperatorNode, RepartitionNode, SinkNode, SourceNode, inputs_of
from .log import FOREVER_MS, TopicPartition, TopicSpec
from .topic_conflicts import check_topic_conflicts

if TYPE_CHECKING:
    from collections.abc import Mapping


class TaskId(NamedTuple):
    """One subtopology on one partition number."""

    subtopology: str
    partition: int

    def __str__(self) -> str:
        """Return ``subtopology-partition``, as in logs and paths."""
        return f"{self.subtopology}-{self.partition}"


@dataclass(frozen=True, slots=True)
class Subtopology:
    """Steps that run together in one task.

    Attributes:
        id: Number in the plan, as text.
        inputs: Sources and repartitions that it reads, in graph order.
        steps: Operators, sinks and repartitions that it writes, in graph order.
        keyed: Whether any step keeps state by key.
    """

    id: str
    inputs: tuple[SourceNode | RepartitionNode, ...]
    steps: tuple[OperatorNode | SinkNode | RepartitionNode, ...]
    keyed: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph, cut into subtopologies; knows the names of all topics, not their sizes."""

    graph: Graph
    subtopologies: tuple[Subtopology, ...]

    @property
    def job(self) -> str:
        """Name of the job."""
        return self.graph.name

    @property
    def dead_letters(self) -> str:
        """Topic of records that could not be processed."""
        return f"{self.job}-dead-letters"

    def changelog(self, subtopology: str) -> str:
        """Return the changelog topic of a subtopology."""
        return f"{self.job}-{subtopology}-changelog"

    def topic_of(self, node: SourceNode | RepartitionNode) -> str:
        """Return the topic that an input reads."""
        if isinstance(node, SourceNode):
            return node.topic
        suffix = "" if node.name.endswith("-repartition") else "-repartition"
        return f"{self.job}-{node.name}{suffix}"

    def input_topics(self) -> list[str]:
        """Return all topics that tasks read, sources and repartitions."""
        return sorted({self.topic_of(node) for sub in self.subtopologies for node in sub.inputs})

    def uses_dead_letters(self) -> bool:
        """Return whether any step may write to the dead-letter topic."""
        return any(
            not isinstance(node, RepartitionNode) and node.on_error == "dead_letter"
            for node in self.graph.nodes.values()
        )


def make_plan(graph: Graph) -> Plan:
    """Cut a graph at its repartitions.

    Raises:
        TopologyError: If there is nothing to run, a topic is read twice by one subtopology, or a
            step uses a topic that it must not.
    """
    if not any(isinstance(node, SourceNode) for node in graph.nodes.values()):
        raise TopologyError(
            f"topology {graph.name!r} has no source; begin with topology.source(Topic(...))"
        )
    # Disjoint sets over step names; a repartition is a member of the part that writes it, and
    # "in:" + its name is a member of the part that reads it.
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    def reading_name(step: str) -> str:
        return f"in:{step}" if isinstance(graph.nodes[step], RepartitionNode) else step

    for node in graph.nodes.values():
        find(node.name)
        if isinstance(node, RepartitionNode):
            find(f"in:{node.name}")
        for edge in inputs_of(node):
            # The earlier name becomes the root, so that parts are numbered in graph order.
            parent[find(node.name)] = find(reading_name(edge.step))
    parts: dict[str, list[str]] = {}
    for name in parent:
        parts.setdefault(find(name), []).append(name)
    subtopologies = [
        _subtopology(str(number), graph, members) for number, members in enumerate(parts.values())
    ]
    plan = Plan(graph, tuple(sub for sub in subtopologies if sub.inputs))
    for sub in plan.subtopologies:
        _check_topics(plan, sub)
    check_topic_conflicts(plan)
    return plan


def _subtopology(number: str, graph: Graph, members: list[str]) -> Subtopology:
    inputs: list[SourceNode | RepartitionNode] = []
    steps: list[OperatorNode | SinkNode | RepartitionNode] = []
    for name, node in graph.nodes.items():
        if isinstance(node, RepartitionNode) and f"in:{name}" in members:
            inputs.append(node)
        if name not in members:
            continue
        if isinstance(node, SourceNode):
            inputs.append(node)
        else:
            steps.append(node)
    keyed = any(isinstance(node, OperatorNode) and node.keyed for node in steps)
    return Subtopology(number, tuple(inputs), tuple(steps), keyed)


def _check_topics(plan: Plan, sub: Subtopology) -> None:
    seen: dict[str, str] = {}
    for node in sub.inputs:
        topic = plan.topic_of(node)
        if topic in seen:
            raise TopologyError(
                f"steps {seen[topic]!r} and {node.name!r} both read topic {topic!r}; read it once "
                "and use the stream twice"
            )
        seen[topic] = node.name


@dataclass(frozen=True, slots=True)
class ResolvedPlan:
    """A plan with the sizes of its topics: what tasks there are.

    Attributes:
        plan: The plan.
        partitions: Number of partitions by topic, internal and sink topics included.
        tasks: Number of tasks by subtopology.
    """

    plan: Plan
    partitions: Mapping[str, int]
    tasks: Mapping[str, int]

    def task_ids(self) -> list[TaskId]:
        """Return all tasks, in order."""
        return [
            TaskId(sub.id, number)
            for sub in self.plan.subtopologies
            for number in range(self.tasks[sub.id])
        ]

    def inputs_of(self, task: TaskId) -> list[TopicPartition]:
        """Return the partitions that a task reads."""
        return [
            TopicPartition(topic, task.partition)
            for topic in map(self.plan.topic_of, self.subtopology(task).inputs)
            if task.partition < self.partitions[topic]
        ]

    def subtopology(self, task: TaskId) -> Subtopology:
        """Return the subtopology of a task."""
        return next(sub for sub in self.plan.subtopologies if sub.id == task.subtopology)

    def upstream_tasks(self, repartition: str) -> int:
        """Return how many tasks write to the repartition step of that name."""
        for sub in self.plan.subtopologies:
            if any(isinstance(s, RepartitionNode) and s.name == repartition for s in sub.steps):
                return self.tasks[sub.id]
        raise KeyError(repartition)

    def internal_topics(self) -> list[TopicSpec]:
        """Return the topics that the engine makes for itself.

        Retention is explicit: records carry event times, and the broker's default of 7 days would
        delete old ones within minutes.
        """
        specs: list[TopicSpec] = []
        for sub in self.plan.subtopologies:
            specs.append(
                TopicSpec(self.plan.changelog(sub.id), self.tasks[sub.id], retention_ms=FOREVER_MS)
            )
            for node in sub.inputs:
                if isinstance(node, RepartitionNode):
                    topic = self.plan.topic_of(node)
                    specs.append(TopicSpec(topic, self.partitions[topic], retention_ms=FOREVER_MS))
        if self.plan.uses_dead_letters():
            topic = self.plan.dead_letters
            specs.append(TopicSpec(topic, self.partitions[topic], retention_ms=FOREVER_MS))
        return specs


def resolve(plan: Plan, existing: Mapping[str, int]) -> ResolvedPlan:
    """Work out the number of partitions of every topic and of tasks.

    Args:
        plan: The plan.
        existing: Number of partitions by topic, for the topics that exist.

    Raises:
        TopicMissingError: If a source topic does not exist and is not to be created.
        TopologyError: If inputs that must be co-partitioned are not.
        StateMismatchError: If a repartition topic exists with another number of partitions.
    """
    partitions = dict(existing)
    tasks: dict[str, int] = {}
    pending = list(plan.subtopologies)
    while pending:
        progressed = False
        for sub in list(pending):
            counts = _input_partitions(plan, sub, partitions)
            if counts is None:
                continue
            pending.remove(sub)
            progressed = True
            tasks[sub.id] = max(counts.values())
            _check_copartitioned(sub, counts)
            _size_outputs(plan, sub, partitions, tasks[sub.id])
        if not progressed:
            names = sorted(node.name for sub in pending for node in sub.inputs)
            raise TopologyError(
                f"the number of partitions of {names} depends on itself; give one key_by a "
                "partitions= of its own"
            )
    partitions.setdefault(plan.dead_letters, 1)
    return ResolvedPlan(plan, partitions, tasks)


def _input_partitions(
    plan: Plan, sub: Subtopology, partitions: dict[str, int]
) -> dict[str, int] | None:
    counts: dict[str, int] = {}
    for node in sub.inputs:
        topic = plan.topic_of(node)
        if topic not in partitions and node.partitions is not None:
            partitions[topic] = node.partitions
        if topic not in partitions and isinstance(node, SourceNode):
            raise TopicMissingError(
                f"source {node.name!r} reads topic {topic!r}, which does not exist; create it, or "
                f"give Topic({topic!r}, partitions=...) to have it created"
            )
        if topic not in partitions:
            own = isinstance(node, RepartitionNode) and node in sub.steps
            if own and len(sub.inputs) > 1:
                continue
            return None
        if (
            isinstance(node, RepartitionNode)
            and node.partitions is not None
            and partitions[topic] != node.partitions
        ):
            raise StateMismatchError(
                f"key_by step {node.name!r} asks for {node.partitions} partitions, but topic "
                f"{topic!r} has {partitions[topic]}: keys would move to other tasks, away from "
                "their state. Go back to the old number, or start a job of another name"
            )
        counts[topic] = partitions[topic]
    return counts or None


def _check_copartitioned(sub: Subtopology, counts: Mapping[str, int]) -> None:
    if sub.keyed and len(set(counts.values())) > 1:
        raise TopologyError(
            f"these inputs meet in keyed steps and need the same number of partitions: "
            f"{dict(counts)}; put a key_by(..., partitions=N) behind the others"
        )


def _size_outputs(plan: Plan, sub: Subtopology, partitions: dict[str, int], tasks: int) -> None:
    for step in sub.steps:
        if isinstance(step, RepartitionNode):
            partitions.setdefault(plan.topic_of(step), step.partitions or tasks)
        elif isinstance(step, SinkNode):
            partitions.setdefault(step.topic, step.partitions or tasks)
