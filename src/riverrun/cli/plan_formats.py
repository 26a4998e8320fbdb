"""A plan as text, as a Mermaid flowchart and as JSON: pure functions of the plan."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from riverrun.engine.graph import OperatorNode, RepartitionNode, SinkNode, SourceNode, inputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from riverrun.engine.graph import Edge, Node
    from riverrun.engine.plan import Plan, Subtopology

_LATE_PORT = 1


@dataclass(frozen=True, slots=True)
class StepView:
    """A step in a description.

    Attributes:
        name: Its name.
        kind: ``source``, ``sink``, ``repartition``, or what the verb is called.
        inputs: Steps it reads from, as ``step`` or ``step (late)``.
        topic: Topic that it reads or writes, None for operators.
        state: What it keeps by key, None if nothing.
        on_error: What becomes of records that it cannot process; None where nothing can fail.
        notes: What else is worth knowing.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    topic: str | None
    state: str | None
    on_error: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubtopologyView:
    """A part that runs as one task per partition.

    Attributes:
        id: Its number.
        reads: Topics it reads.
        writes: Topics it writes, besides its changelog.
        changelog: Topic that keeps its state and progress.
        steps: Its steps, those that read first.
    """

    id: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    changelog: str
    steps: tuple[StepView, ...]


@dataclass(frozen=True, slots=True)
class TopicView:
    """A topic in a description.

    Attributes:
        name: Its name.
        role: ``source``, ``sink``, ``repartition``, ``changelog`` or ``dead letters``.
        partitions: How many there will be, in words.
    """

    name: str
    role: str
    partitions: str


@dataclass(frozen=True, slots=True)
class PlanView:
    """All of a plan, as it is described."""

    job: str
    subtopologies: tuple[SubtopologyView, ...]
    topics: tuple[TopicView, ...]


def view_of(plan: Plan) -> PlanView:
    """Return what there is to say about a plan."""
    return PlanView(
        plan.job,
        tuple(_subtopology_view(plan, sub) for sub in plan.subtopologies),
        tuple(_topics(plan)),
    )


def _subtopology_view(plan: Plan, sub: Subtopology) -> SubtopologyView:
    writing = [step for step in sub.steps if not isinstance(step, OperatorNode)]
    return SubtopologyView(
        sub.id,
        tuple(map(plan.topic_of, sub.inputs)),
        tuple(
            dict.fromkeys(s.topic if isinstance(s, SinkNode) else plan.topic_of(s) for s in writing)
        ),
        plan.changelog(sub.id),
        (
            *(_input_view(plan, node) for node in sub.inputs),
            *(_step_view(plan, node) for node in sub.steps),
        ),
    )


def _input_view(plan: Plan, node: SourceNode | RepartitionNode) -> StepView:
    topic = plan.topic_of(node)
    if isinstance(node, RepartitionNode):
        return StepView(node.name, "repartition", (), topic, None, None, ())
    notes = [f"event time {_event_time(node)}"]
    policy = node.watermark
    if policy.out_of_orderness_ms:
        notes.append(f"out of order up to {duration_text(policy.out_of_orderness_ms)}")
    if policy.idle_after_ms is not None:
        notes.append(f"idle after {duration_text(policy.idle_after_ms)}")
    return StepView(node.name, "source", (), topic, None, node.on_error, tuple(notes))


def _event_time(node: SourceNode) -> str:
    if node.event_time is None:
        return "from the record timestamp"
    return node.event_time if isinstance(node.event_time, str) else "by a function"


def _step_view(plan: Plan, node: OperatorNode | SinkNode | RepartitionNode) -> StepView:
    inputs = tuple(_edge_text(plan, edge) for edge in inputs_of(node))
    match node:
        case SinkNode():
            return StepView(node.name, "sink", inputs, node.topic, None, node.on_error, ())
        case RepartitionNode():
            topic = plan.topic_of(node)
            return StepView(node.name, "repartition", inputs, topic, None, None, ())
        case OperatorNode():
            state = _state_text(node) if node.keyed else None
            return StepView(node.name, node.kind, inputs, None, state, node.on_error, ())


def _state_text(node: OperatorNode) -> str:
    return str(getattr(node.operator, "state_signature", "by key"))


def _edge_text(plan: Plan, edge: Edge) -> str:
    label = _port_label(plan.graph.nodes[edge.step], edge.port)
    return edge.step if label is None else f"{edge.step} ({label})"


def _port_label(node: Node, port: int) -> str | None:
    if isinstance(node, OperatorNode) and node.kind == "window":
        return "late" if port == _LATE_PORT else None
    if isinstance(node, OperatorNode) and (port or node.kind == "branch"):
        return f"output {port}"
    return None


def _topics(plan: Plan) -> list[TopicView]:
    found: dict[str, TopicView] = {}
    for sub in plan.subtopologies:
        for node in sub.inputs:
            if isinstance(node, SourceNode):
                count = "as it has" if node.partitions is None else f"{node.partitions} if created"
                found[node.topic] = TopicView(node.topic, "source", count)
    for sub in plan.subtopologies:
        tasks = f"one per task of {sub.id}"
        for node in sub.steps:
            if isinstance(node, OperatorNode):
                continue
            count = tasks if node.partitions is None else str(node.partitions)
            if isinstance(node, RepartitionNode):
                topic = plan.topic_of(node)
                found[topic] = TopicView(topic, "repartition", count)
            else:
                found.setdefault(node.topic, TopicView(node.topic, "sink", count))
        changelog = plan.changelog(sub.id)
        found[changelog] = TopicView(changelog, "changelog", tasks)
    if plan.uses_dead_letters():
        found[plan.dead_letters] = TopicView(plan.dead_letters, "dead letters", "1")
    return list(found.values())


# --- text ----------------------------------------------------------------------------------------


def text_of(plan: Plan) -> str:
    """Return a plan as text for reading."""
    view = view_of(plan)
    lines = [f"job {view.job}"]
    for sub in view.subtopologies:
        lines += ["", f"subtopology {sub.id}: one task per partition of {', '.join(sub.reads)}"]
        rows = [(step.kind, step.name, _step_text(step)) for step in sub.steps]
        lines += _table(rows, indent=2)
    lines += ["", "topics"]
    lines += _table(
        [(t.name, t.role, f"partitions: {t.partitions}") for t in view.topics], indent=2
    )
    return "\n".join(lines)


def _step_text(step: StepView) -> str:
    parts: list[str] = []
    if step.inputs:
        parts.append(f"from {', '.join(step.inputs)}")
    if step.topic is not None:
        parts.append(f"{'writes' if step.inputs else 'reads'} {step.topic}")
    parts += step.notes
    if step.state is not None:
        parts.append(f"keeps {step.state}")
    if step.on_error not in (None, "fail"):
        parts.append(f"on error: {step.on_error}")
    return "; ".join(parts)


def _table(rows: list[tuple[str, str, str]], indent: int) -> list[str]:
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return [f"{' ' * indent}{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]


def duration_text(duration_ms: int) -> str:
    """Return a duration as a user writes it.

    Example:
        >>> duration_text(90_000), duration_text(250), duration_text(0)
        ('1m30s', '250ms', '0ms')
    """
    parts: list[str] = []
    rest = duration_ms
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        count, rest = divmod(rest, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        parts.append(f"{rest}ms")
    return "".join(parts)


# --- JSON ----------------------------------------------------------------------------------------


def json_of(plan: Plan) -> str:
    """Return a plan as JSON; the form is part of the interface of riverrun."""
    return json.dumps(asdict(view_of(plan)), indent=2)


# --- Mermaid -------------------------------------------------------------------------------------


def mermaid_of(plan: Plan) -> str:
    """Return a plan as a Mermaid flowchart: topics outside, subtopologies as boxes of steps."""
    view = view_of(plan)
    ids: dict[str, str] = {}
    lines = ["flowchart LR"]
    for number, topic in enumerate(t for t in view.topics if t.role != "changelog"):
        ids[topic.name] = f"t{number}"
        lines.append(f"  t{number}[({_quoted(topic.name)})]")
    for sub in view.subtopologies:
        lines.append(f"  subgraph s{sub.id}[{_quoted(f'subtopology {sub.id}')}]")
        for number, step in enumerate(sub.steps):
            node_id = f"s{sub.id}n{number}"
            ids[_step_key(sub, step)] = node_id
            label = f"{step.name}<br/>{step.state}" if step.state else step.name
            shape = ("[[", "]]") if step.state else ("[", "]")
            lines.append(f"    {node_id}{shape[0]}{_quoted(label)}{shape[1]}")
        lines.append("  end")
    for sub in view.subtopologies:
        for step in sub.steps:
            lines += _arrows(sub, step, ids)
    return "\n".join(lines)


def _step_key(sub: SubtopologyView, step: StepView) -> str:
    # A repartition is in two subtopologies: written in one, read in the other, or both in one.
    return f"{sub.id}/{'in' if not step.inputs else 'step'}/{step.name}"


def _arrows(sub: SubtopologyView, step: StepView, ids: Mapping[str, str]) -> list[str]:
    own = ids[_step_key(sub, step)]
    lines: list[str] = []
    for each in step.inputs:
        name, _, port = each.partition(" (")
        # What comes out of a repartition comes out of its reading side.
        source = ids.get(f"{sub.id}/in/{name}") or ids[f"{sub.id}/step/{name}"]
        label = f"|{_quoted(port.removesuffix(')'))}|" if port else ""
        lines.append(f"  {source} -->{label} {own}")
    if step.topic is not None:
        topic = ids[step.topic]
        lines.append(f"  {own} --> {topic}" if step.inputs else f"  {topic} --> {own}")
    return lines


def _quoted(label: str) -> str:
    return '"' + label.replace('"', "#quot;") + '"'


FORMATS: dict[str, Callable[[Plan], str]] = {
    "text": text_of,
    "json": json_of,
    "mermaid": mermaid_of,
}
"""How to print a plan, by ``--format``."""
