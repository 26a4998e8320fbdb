"""What is checked before a task goes on from a commit record. Pure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .errors import PositionLostError, StateMismatchError
from .graph import RepartitionNode, SourceNode
from .restore import FreshStart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .changelog import CommitRecord
    from .config import TaskSettings
    from .log import OffsetRange, TopicPartition
    from .plan import Subtopology

_log = logging.getLogger(__name__)


def check_fits(
    commit: CommitRecord,
    sub: Subtopology,
    layout: Mapping[str, str],
    input_partitions: Mapping[str, int],
    settings: TaskSettings,
) -> None:
    """Refuse state that does not belong to the topology as it is now.

    Args:
        commit: The last commit record.
        sub: The subtopology as it is now.
        layout: What its tables hold.
        input_partitions: Partitions of its input topics.
        settings: What the user allows.

    Raises:
        StateMismatchError: Saying what changed and how to go on.
    """
    before = commit.input_partitions
    if before and not before.keys() & input_partitions.keys() and not settings.allow_state_drop:
        raise StateMismatchError(
            f"part {sub.id} of job {commit.job!r} has read {sorted(before)}, and would now read "
            f"{sorted(input_partitions)} from the start: parts are numbered in the order of their "
            "sources, so add new ones at the end. If it is meant, start a job of another name, or "
            "begin anew with --allow-state-drop"
        )
    for topic, count in commit.input_partitions.items():
        now = input_partitions.get(topic, count)
        if sub.keyed and now != count:
            raise StateMismatchError(
                f"topic {topic!r} had {count} partitions and now has {now}: keys have moved "
                f"between the tasks of step(s) {[s.name for s in sub.steps]}, away from their "
                "state. Go back to the old number, or start a job of another name"
            )
    for table, was in commit.layout.items():
        if table not in layout and not settings.allow_state_drop:
            raise StateMismatchError(
                f"state {table!r} of job {commit.job!r} has no step any more. Bring the step "
                "back under its old name, or drop its state with --allow-state-drop"
            )
        if layout.get(table, was) != was:
            raise StateMismatchError(
                f"state {table!r} of job {commit.job!r} was kept by {was}, and is now kept by "
                f"{layout[table]}: the old state does not fit. Give the step another name, to "
                "start it afresh, or start a job of another name"
            )


def may_start_fresh(sub: Subtopology, settings: TaskSettings) -> FreshStart:
    """Return whether a task may start from nothing where committed work is lost."""
    if any(isinstance(node, RepartitionNode) for node in (*sub.inputs, *sub.steps)):
        return FreshStart.IMPOSSIBLE
    return FreshStart.ALLOWED if settings.allow_fresh_start else FreshStart.REFUSED


def start_positions(
    spans: Mapping[TopicPartition, OffsetRange],
    committed: Mapping[TopicPartition, int],
    sub: Subtopology,
    settings: TaskSettings,
    *,
    first_start: bool,
) -> dict[TopicPartition, int]:
    """Return where to read each input from; refuse where the log lost what comes next.

    Args:
        spans: What the log has of each input.
        committed: Positions from the commit record.
        sub: The subtopology, whose sources may begin at the latest record.
        settings: Where to begin, and what the user allows.
        first_start: Whether the task never ran before.

    Raises:
        PositionLostError: If a committed position is not in the log any more.
    """
    sources = {node.topic for node in sub.inputs if isinstance(node, SourceNode)}
    positions: dict[TopicPartition, int] = {}
    for where, (start, end) in spans.items():
        position = committed.get(where)
        if position is None:
            latest = first_start and settings.start == "latest" and where.topic in sources
            positions[where] = end if latest else start
        elif start <= position <= end:
            positions[where] = position
        else:
            problem = _lost(where, position, start, end)
            if not settings.allow_lost_records:
                raise PositionLostError(
                    f"{problem}. Go on with what is there by --allow-lost-records, and give the "
                    "topic a longer retention"
                )
            _log.warning("%s; going on at %d as told", problem, start)
            positions[where] = start
    return positions


def _lost(where: TopicPartition, position: int, start: int, end: int) -> str:
    if position < start:
        return (
            f"offset {position} of {where} is committed, and the topic now begins at {start}: "
            f"{start - position} offsets were deleted before they were read"
        )
    return (
        f"offset {position} of {where} is committed, and the topic now ends at {end}: it was "
        "deleted and made again, or an unclean election lost records"
    )
