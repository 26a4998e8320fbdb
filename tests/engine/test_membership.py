"""Group membership as steps over plain data."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.engine.log import TopicPartition
from riverrun.engine.membership import GroupState, Membership

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

KEYS = [TopicPartition("t", partition) for partition in range(4)]
SESSION_MS = 1_000


def share(infos: Mapping[str, bytes]) -> Mapping[str, Sequence[TopicPartition]]:
    members = sorted(infos)
    return {member: KEYS[index :: len(members)] for index, member in enumerate(members)}


def membership(name: str, info: Callable[[], bytes] = lambda: b"") -> Membership:
    return Membership(name, info, share, instance_id=None, session_timeout_ms=SESSION_MS)


def step(state: GroupState, member: Membership, now_ms: int = 0) -> bool:
    member.observe(state)
    changed = member.step(state, now_ms)
    member.observe(state)
    return changed


def test_a_round_waits_until_every_member_has_told_about_itself() -> None:
    state, one, two = GroupState(), membership("one"), membership("two")
    step(state, one)
    assert one.take_assignment() == (1, frozenset(KEYS))

    step(state, two)
    assert two.take_assignment() is None
    step(state, one)
    step(state, two)

    assert one.take_assignment() == (2, frozenset({KEYS[0], KEYS[2]}))
    assert two.take_assignment() == (2, frozenset({KEYS[1], KEYS[3]}))
    assert not step(state, one)
    assert not step(state, two)


def test_a_step_that_was_not_stored_leaves_no_trace() -> None:
    stored, one = GroupState(), membership("one")

    one.observe(stored)
    one.step(GroupState(), 0)

    assert one.member_id == ""
    assert one.take_assignment() is None
    assert step(stored, one)
    assert one.take_assignment() == (1, frozenset(KEYS))


def test_a_request_is_kept_until_a_step_was_stored() -> None:
    about = [b"old"]
    stored, one = GroupState(), membership("one", lambda: about[0])
    step(stored, one)
    about[0] = b"new"
    one.request_rebalance()
    lost = copy.deepcopy(stored)
    assert one.step(lost, 0)

    assert step(stored, one)

    assert stored.members["one"].info == b"new"
    assert stored.generation == 2
    assert not step(stored, one)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["step", "step", "step", "leave", "request", "crash"]),
            st.integers(0, 3),
            st.integers(0, 400),
        ),
        max_size=60,
    )
)
def test_no_two_living_members_share_a_partition_in_one_generation(
    actions: list[tuple[str, int, int]],
) -> None:
    state, now_ms, serial = GroupState(), 0, 0
    members = {slot: membership(f"m{slot}") for slot in range(4)}
    given_out: dict[int, list[TopicPartition]] = {}
    for action, slot, passed_ms in actions:
        now_ms += passed_ms
        member = members[slot]
        if action == "step":
            step(state, member, now_ms)
            assignment = member.take_assignment()
            if assignment is not None:
                given_out.setdefault(assignment.generation, []).extend(assignment.partitions)
        elif action == "request":
            member.request_rebalance()
        else:
            if action == "leave":
                member.leave(state)
            serial += 1
            members[slot] = membership(f"m{slot}-{serial}")
    for partitions in given_out.values():
        assert len(partitions) == len(set(partitions))

    # Once they all keep looking, they agree and everything is shared out.
    now_ms += SESSION_MS + 1
    for _ in range(4):
        for member in members.values():
            step(state, member, now_ms)
    held = sorted(key for share_ in state.assignments.values() for key in share_)
    assert held == sorted(KEYS)
    assert len(state.members) == 4
