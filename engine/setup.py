"""Before tasks run: look at the topics, work out the sizes, make what is missing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .errors import StateMismatchError
from .graph import SinkNode, SourceNode
from .log import FOREVER_MS, TopicSpec
from .plan import Plan, ResolvedPlan, resolve

if TYPE_CHECKING:
    from .log import Log, TopicInfo

_log = logging.getLogger(__name__)

_WEEK_MS = 7 * 24 * 3_600_000


async def prepare_topics(log: Log, plan: Plan) -> tuple[ResolvedPlan, dict[str, int]]:
    """Return the resolved plan and the largest batch by topic; create topics that are missing.

    Raises:
        TopicMissingError: If a source topic does not exist and has no ``partitions=``.
        TopologyError: If inputs that must be co-partitioned are not.
        PartitionCountError: If an internal topic has another number of partitions than needed.
        LogError: If the log fails.
    """
    names = {plan.dead_letters} if plan.uses_dead_letters() else set[str]()
    sinks: dict[str, SinkNode] = {}
    for node in plan.graph.nodes.values():
        if isinstance(node, SinkNode):
            sinks[node.topic] = node
    names.update(sinks, plan.input_topics(), (plan.changelog(s.id) for s in plan.subtopologies))
    infos: dict[str, TopicInfo] = {}
    for name in sorted(names):
        info = await log.describe_topic(name)
        if info is not None:
            infos[name] = info
    resolved = resolve(plan, {name: info.partitions for name, info in infos.items()})
    _check_tasks(plan, resolved, infos)
    specs = [*resolved.internal_topics(), *_user_topics(plan, resolved, sinks)]
    await log.create_topics(specs)
    for name in names - infos.keys():
        info = await log.describe_topic(name)
        if info is not None:
            infos[name] = info
    for node in plan.graph.nodes.values():
        if isinstance(node, SinkNode | SourceNode) and node.topic in infos:
            _warn_of_retention(node, infos[node.topic])
    return resolved, {name: info.max_batch_bytes for name, info in infos.items()}


def _check_tasks(plan: Plan, resolved: ResolvedPlan, infos: dict[str, TopicInfo]) -> None:
    for sub in plan.subtopologies:
        changelog = infos.get(plan.changelog(sub.id))
        if changelog is not None and changelog.partitions != resolved.tasks[sub.id]:
            inputs = {t: resolved.partitions[t] for t in map(plan.topic_of, sub.inputs)}
            raise StateMismatchError(
                f"job {plan.job!r} has committed work for {changelog.partitions} partitions, but "
                f"its inputs now have {inputs}: keys have moved away from their state. Partitions "
                "cannot be added to the inputs of a running job; start a job of another name"
            )


def _user_topics(plan: Plan, resolved: ResolvedPlan, sinks: dict[str, SinkNode]) -> list[TopicSpec]:
    specs: list[TopicSpec] = []
    for topic, sink in sinks.items():
        keep = FOREVER_MS if sink.retention_ms is None else sink.retention_ms
        specs.append(TopicSpec(topic, resolved.partitions[topic], retention_ms=keep))
    for node in plan.graph.nodes.values():
        if isinstance(node, SourceNode) and node.partitions is not None:
            count = resolved.partitions[node.topic]
            specs.append(TopicSpec(node.topic, count, retention_ms=FOREVER_MS))
    return [spec for spec in specs if spec.name not in {s.name for s in resolved.internal_topics()}]


def _warn_of_retention(node: SinkNode | SourceNode, info: TopicInfo) -> None:
    if info.retention_ms is not None and 0 <= info.retention_ms <= _WEEK_MS:
        _log.info(
            "topic %s keeps records for %.1f days by their timestamp, which is the event time: "
            "older event times are deleted soon after they are written; retention.ms=-1 keeps them",
            node.topic,
            info.retention_ms / 86_400_000,
        )
