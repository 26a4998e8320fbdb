"""Group membership as plain data and pure steps, for the logs that have no coordinator.

A group is one ``GroupState``, stored wherever the log stores things. Each member reads it, takes
a ``Membership.step`` and stores the result if nobody changed the state meanwhile (compare and
swap); there is no coordinator that could be down. A change of members starts a round:

1. Whoever changes the members raises ``round``.
2. Each member joins the round with fresh information about itself.
3. When all have joined, the leader (the member that joined first) shares the partitions out and
   raises ``generation``. Each member then finds its assignment in the state.

A member that keeps silent for its session timeout is dropped by whichever member notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .log import Assignment, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from .log import Assignor

HEARTBEATS_PER_SESSION = 5
"""A member must miss this many heartbeats in a row to be taken for dead."""


class MemberState(msgspec.Struct):
    """One member, as its group knows it."""

    member_id: str
    instance_id: str | None
    info: bytes
    session_timeout_ms: int
    heartbeat_ms: int
    joined_round: int


class GroupState(msgspec.Struct):
    """One group: who is in it, and who has what."""

    round: int = 0
    assigned_round: int = 0
    generation: int = 0
    # In the order of joining: the first is the leader.
    members: dict[str, MemberState] = msgspec.field(default_factory=dict[str, MemberState])
    # {member id: [(topic, partition)]}
    assignments: dict[str, list[tuple[str, int]]] = msgspec.field(
        default_factory=dict[str, list[tuple[str, int]]]
    )

    def remove(self, member_id: str) -> None:
        """Take a member out, which starts a round."""
        del self.members[member_id]
        self.assignments.pop(member_id, None)
        self.round += 1

    def expire(self, now_ms: int) -> bool:
        """Take out the members that have been silent too long; return whether there were any."""
        silent = [
            member.member_id
            for member in self.members.values()
            if now_ms - member.heartbeat_ms > member.session_timeout_ms
        ]
        for member_id in silent:
            self.remove(member_id)
        return bool(silent)

    def is_ready(self) -> bool:
        """Return whether a round is open and every member has joined it."""
        return self.assigned_round < self.round and all(
            member.joined_round == self.round for member in self.members.values()
        )

    def assign(self, assignor: Assignor) -> None:
        """Share the partitions out and close the round.

        Raises:
            ValueError: The assignor gave something to nobody's member id.
        """
        shares = assignor({member.member_id: member.info for member in self.members.values()})
        strangers = shares.keys() - self.members.keys()
        if strangers:
            raise ValueError(f"the assignor gave partitions to unknown members {sorted(strangers)}")
        self.assignments = {
            member_id: [(topic, partition) for topic, partition in shares.get(member_id, ())]
            for member_id in self.members
        }
        self.assigned_round = self.round
        self.generation += 1


class Membership:
    """One member's part: what it does at each look at the group's state.

    The owner calls ``observe`` with each state that was loaded or stored, and ``step`` to get the
    next state to store. ``step`` does not touch this object, so that a state which could not be
    stored leaves no trace.
    """

    def __init__(
        self,
        member_id: str,
        info: Callable[[], bytes],
        assignor: Assignor,
        *,
        instance_id: str | None,
        session_timeout_ms: int,
    ) -> None:
        self._id = member_id
        self._info = info
        self._assignor = assignor
        self._instance_id = instance_id
        self._session_timeout_ms = session_timeout_ms
        self._is_member = False
        self._is_replaced = False
        self._has_left = False
        self._loss: Assignment | None = None
        self._newest: Assignment | None = None
        self._seen_generation = 0
        # The first round that may satisfy request_rebalance; None if nothing is asked.
        self._asked_round: int | None = None
        self._seen_round = 0

    @property
    def member_id(self) -> str:
        """Who we are in the group; empty before the first join."""
        return self._id if self._is_member or self._seen_round else ""

    @property
    def is_replaced(self) -> bool:
        """Whether another member has joined with the same instance id: this one is done for."""
        return self._is_replaced

    @property
    def heartbeat_interval_ms(self) -> int:
        """How often the member must show that it is alive."""
        return max(1, self._session_timeout_ms // HEARTBEATS_PER_SESSION)

    def request_rebalance(self) -> None:
        """Ask for a new round at the next step."""
        self._asked_round = self._seen_round + 1

    def step(self, state: GroupState, now_ms: int) -> bool:
        """Do in ``state`` what is this member's turn to do; return whether it changed."""
        if self._is_replaced or self._has_left:
            return False
        member = state.members.get(self._id)
        if member is None:
            member = self._join(state, now_ms)
        has_changed = member.joined_round == 0
        if now_ms - member.heartbeat_ms >= self.heartbeat_interval_ms:
            member.heartbeat_ms = now_ms
            has_changed = True
        has_changed |= state.expire(now_ms)
        if self._asked_round is not None and member.joined_round < self._asked_round:
            state.round = max(state.round, member.joined_round + 1)
        if member.joined_round < state.round:
            member.info = self._info()
            member.joined_round = state.round
            has_changed = True
        if state.is_ready() and next(iter(state.members)) == self._id:
            state.assign(self._assignor)
            has_changed = True
        return has_changed

    def _join(self, state: GroupState, now_ms: int) -> MemberState:
        former = [
            other.member_id
            for other in state.members.values()
            if self._instance_id is not None and other.instance_id == self._instance_id
        ]
        for member_id in former:
            state.remove(member_id)
        state.round += 1
        member = MemberState(
            member_id=self._id,
            instance_id=self._instance_id,
            info=b"",
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_ms=now_ms,
            joined_round=0,
        )
        state.members[self._id] = member
        return member

    def observe(self, state: GroupState) -> None:
        """Take notice of a state that is stored."""
        if self._has_left:
            return
        member = state.members.get(self._id)
        if member is None:
            if self._is_member:
                self._loss = Assignment(self._seen_generation, frozenset())
                self._newest = None
                self._is_replaced = self._instance_id is not None and any(
                    other.instance_id == self._instance_id for other in state.members.values()
                )
            self._is_member = False
            return
        self._is_member = True
        self._seen_round = member.joined_round
        if self._asked_round is not None and member.joined_round >= self._asked_round:
            self._asked_round = None
        if state.generation > self._seen_generation and self._id in state.assignments:
            self._seen_generation = state.generation
            partitions = (TopicPartition(*pair) for pair in state.assignments[self._id])
            self._newest = Assignment(state.generation, frozenset(partitions))

    def leave(self, state: GroupState) -> bool:
        """Take this member out of ``state``; return whether it changed."""
        if self._id not in state.members:
            return False
        state.remove(self._id)
        return True

    def on_left(self) -> None:
        """Stop taking part, whether or not the state could be stored."""
        self._has_left = True
        self._newest = None

    def take_assignment(self) -> Assignment | None:
        """Return what has not been returned yet: the loss of membership first."""
        if self._loss is not None:
            loss, self._loss = self._loss, None
            return loss
        newest, self._newest = self._newest, None
        return newest
