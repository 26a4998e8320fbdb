"""Sharing tasks out among workers. Pure.

Sticky: a worker keeps what it runs, up to its fair share; then tasks go where their state lies on
disk; the rest fills up whoever has least. Inputs of one task are always assigned together.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from .errors import StateMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .log import TopicPartition
    from .plan import ResolvedPlan, TaskId

_log = logging.getLogger(__name__)


class WorkerInfo(msgspec.Struct, frozen=True):
    """What a worker tells the group about itself.

    Attributes:
        worker: Its name, for logs.
        running: Tasks it runs, as ``subtopology-partition``.
        stored: Epoch of each task whose state lies on its disk.
    """

    worker: str = ""
    running: tuple[str, ...] = ()
    stored: dict[str, int] = {}

    def encode(self) -> bytes:
        """Return it as bytes for the group."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> WorkerInfo:
        """Return what a member told; a member that told nonsense counts as new."""
        try:
            return msgspec.json.decode(data, type=WorkerInfo)
        except msgspec.DecodeError:
            _log.warning("a group member told %r, which is not a worker's info", data[:80])
            return WorkerInfo()


def assign_tasks(
    tasks: Sequence[TaskId], members: Mapping[str, WorkerInfo]
) -> dict[str, list[TaskId]]:
    """Return the tasks of each member; member numbers differ by at most one.

    Example:
        >>> tasks = [TaskId("0", 0), TaskId("0", 1)]
        >>> assign_tasks(tasks, {"b": WorkerInfo(running=("0-1",)), "a": WorkerInfo()})
        {'a': [TaskId(subtopology='0', partition=0)], 'b': [TaskId(subtopology='0', partition=1)]}
    """
    shares: dict[str, list[TaskId]] = {member: [] for member in sorted(members)}
    if not shares:
        return shares
    floor, extra = divmod(len(tasks), len(shares))
    # Who runs most keeps one of the larger shares, so that fewest tasks move.
    by_load = sorted(shares, key=lambda m: (-len(members[m].running), m))
    quota = {member: floor + (place < extra) for place, member in enumerate(by_load)}
    left = list(tasks)

    def take(task: TaskId, member: str) -> bool:
        if len(shares[member]) >= quota[member]:
            return False
        shares[member].append(task)
        return True

    left = [t for t in left if not any(_runs(members[m], t) and take(t, m) for m in shares)]
    moved: list[TaskId] = []
    for task in left:
        holders = [m for m in shares if str(task) in members[m].stored]
        holders.sort(key=lambda m: (-members[m].stored[str(task)], m))
        if not any(take(task, member) for member in holders):
            moved.append(task)
    for task in moved:
        # Spread the tasks of one subtopology, since they cost about the same.
        member = min(
            (m for m in shares if len(shares[m]) < quota[m]),
            key=lambda m: (
                sum(t.subtopology == task.subtopology for t in shares[m]),
                len(shares[m]),
                m,
            ),
        )
        shares[member].append(task)
    return {member: sorted(share) for member, share in shares.items()}


def _runs(info: WorkerInfo, task: TaskId) -> bool:
    return str(task) in info.running


class TaskAssignor:
    """The assignor of one job: the group's bytes and partitions around ``assign_tasks``.

    Args:
        resolved: The plan with its sizes.
    """

    def __init__(self, resolved: ResolvedPlan) -> None:
        self._resolved = resolved

    def __call__(self, members: Mapping[str, bytes]) -> dict[str, list[TopicPartition]]:
        """Share out; called on the leader."""
        infos = {member: WorkerInfo.decode(data) for member, data in members.items()}
        shares = assign_tasks(self._resolved.task_ids(), infos)
        return {
            member: [where for task in share for where in self._resolved.inputs_of(task)]
            for member, share in shares.items()
        }

    def tasks_of(self, partitions: frozenset[TopicPartition]) -> list[TaskId]:
        """Return the tasks whose inputs are all among ``partitions``.

        Raises:
            StateMismatchError: If some are of no task: the leader of the group shared out the
                tasks of another topology.
        """
        tasks = [
            task
            for task in self._resolved.task_ids()
            if (inputs := self._resolved.inputs_of(task)) and partitions.issuperset(inputs)
        ]
        known = {where for task in tasks for where in self._resolved.inputs_of(task)}
        if partitions - known:
            job = self._resolved.plan.job
            strangers = ", ".join(map(str, sorted(partitions - known)))
            raise StateMismatchError(
                f"the group of job {job!r} gives this worker {strangers}, which its topology does "
                "not read: a worker with another topology is in the group. If that is another job, "
                "give one of them another name (names of jobs are unique on a cluster); if it is "
                "another version of this one, stop the old workers first"
            )
        return tasks
