"""Sharing tasks out: each once, evenly, and as few moved as can be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.assignment import TaskAssignor, WorkerInfo, assign_tasks
from riverrun.engine.errors import StateMismatchError
from riverrun.engine.graph import Edge, Graph, RepartitionNode
from riverrun.engine.log import TopicPartition
from riverrun.engine.plan import TaskId, make_plan, resolve
from tests.simulation.topology import Rekey, operator, sink, source

Shares = dict[str, list[TaskId]]

TASKS = st.builds(
    lambda sizes: [TaskId(str(s), p) for s, size in enumerate(sizes) for p in range(size)],
    st.lists(st.integers(0, 6), min_size=1, max_size=3),
)
MEMBERS = st.sets(st.sampled_from("abcdefg"), min_size=1, max_size=6)


def running(shares: Shares) -> dict[str, WorkerInfo]:
    """What members tell that run what they were given."""
    return {
        member: WorkerInfo(running=tuple(str(task) for task in share))
        for member, share in shares.items()
    }


def first_shares(tasks: list[TaskId], members: set[str]) -> Shares:
    return assign_tasks(tasks, {member: WorkerInfo() for member in members})


def moved(before: Shares, after: Shares) -> int:
    owner = {task: member for member, share in before.items() for task in share}
    return sum(owner[task] != member for member, share in after.items() for task in share)


def check_fair(shares: Shares, tasks: list[TaskId]) -> None:
    assert sorted(task for share in shares.values() for task in share) == sorted(tasks)
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@given(TASKS, MEMBERS, st.data())
def test_each_task_is_given_once_and_evenly_whatever_members_tell(
    tasks: list[TaskId], members: set[str], data: st.DataObject
) -> None:
    names = st.sampled_from([*(str(task) for task in tasks), "9-9", "nonsense"])
    infos = {
        member: WorkerInfo(
            running=tuple(data.draw(st.lists(names, max_size=6))),
            stored=data.draw(st.dictionaries(names, st.integers(0, 9), max_size=6)),
        )
        for member in members
    }

    check_fair(assign_tasks(tasks, infos), tasks)


@given(TASKS, MEMBERS)
def test_nothing_moves_when_nothing_changes(tasks: list[TaskId], members: set[str]) -> None:
    before = first_shares(tasks, members)

    assert assign_tasks(tasks, running(before)) == before


@given(TASKS, MEMBERS)
def test_a_member_that_comes_takes_no_more_than_its_share(
    tasks: list[TaskId], members: set[str]
) -> None:
    before = first_shares(tasks, members)

    after = assign_tasks(tasks, {**running(before), "new": WorkerInfo()})

    check_fair(after, tasks)
    assert moved(before, after) == len(after["new"]) <= math.ceil(len(tasks) / (len(members) + 1))


@given(TASKS, MEMBERS)
def test_a_member_that_goes_moves_its_own_tasks_alone(
    tasks: list[TaskId], members: set[str]
) -> None:
    before = first_shares(tasks, {*members, "gone"})
    lost = before["gone"]

    after = assign_tasks(tasks, running({m: s for m, s in before.items() if m != "gone"}))

    check_fair(after, tasks)
    assert moved(before, after) == len(lost)


def test_a_task_goes_to_where_its_state_lies() -> None:
    tasks = [TaskId("0", 0), TaskId("0", 1)]
    infos = {"a": WorkerInfo(stored={"0-1": 5}), "b": WorkerInfo(stored={"0-1": 3, "0-0": 1})}

    assert assign_tasks(tasks, infos) == {"a": [TaskId("0", 1)], "b": [TaskId("0", 0)]}


def test_nobody_gets_nothing() -> None:
    assert assign_tasks([TaskId("0", 0)], {}) == {}


# --- the group's side ------------------------------------------------------------------------


def assignor() -> TaskAssignor:
    graph = Graph("job")
    for name in ("a", "b"):
        graph.add(source(name))
    graph.add(operator("rekey", Rekey(), "a", "b"))
    graph.add(RepartitionNode("by-key", Edge("rekey"), None))
    graph.add(sink("out", "by-key"))
    return TaskAssignor(resolve(make_plan(graph), {"a": 2, "b": 3}))


def test_all_inputs_of_a_task_go_together_also_where_one_has_more_partitions() -> None:
    share = assignor()

    given_out = share({"m": WorkerInfo().encode(), "n": WorkerInfo().encode()})

    both = [share.tasks_of(frozenset(partitions)) for partitions in given_out.values()]
    assert sorted(task for tasks in both for task in tasks) == [
        *(TaskId("0", n) for n in range(3)),
        *(TaskId("1", n) for n in range(3)),
    ]


def test_a_member_that_tells_nonsense_counts_as_new() -> None:
    given_out = assignor()({"m": b"\xff", "n": WorkerInfo().encode()})

    assert {len(partitions) > 0 for partitions in given_out.values()} == {True}


def test_partitions_that_make_up_no_task_were_shared_out_by_a_stranger() -> None:
    with pytest.raises(StateMismatchError, match="another topology is in the group"):
        assignor().tasks_of(frozenset([TopicPartition("a", 0)]))
