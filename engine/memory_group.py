"""Membership of a group in a log in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .errors import FencedError
from .membership import GroupState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .log import Assignment, TopicPartition
    from .membership import Membership
    from .memory_log import MemoryLog

EXPIRY_CHECK_S = 0.05
"""How often a waiting member looks whether the clock has ended the session of a dead one."""


class MemoryGroupMember:
    """A ``GroupMember`` of a ``MemoryLog``.

    Rounds go forward while any member of the group calls ``next_assignment``: it takes the steps
    of every member whose log is open, in the order of joining.
    """

    def __init__(self, log: MemoryLog, group: str, membership: Membership) -> None:
        self.log = log
        self._storage = log.storage
        self._group = group
        self._membership = membership
        self._error: Exception | None = None

    @property
    def member_id(self) -> str:
        """Who we are in the group; empty before the first join."""
        return self._membership.member_id

    async def next_assignment(self, timeout_ms: int) -> Assignment | None:
        """Return the newest assignment not returned yet, None if none comes within the time.

        Raises:
            FencedError: A member with the same instance id has replaced this one.
            LogUnavailableError: The log is closed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        await asyncio.sleep(0)
        while True:
            self.log.check_open()
            self._settle()
            if self._error is not None:
                raise self._error
            assignment = self._membership.take_assignment()
            if assignment is not None:
                return assignment
            if self._membership.is_replaced:
                raise FencedError(
                    f"another member of group {self._group!r} has joined with the same instance id"
                )
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                return None
            live = len(self._storage.live[self._group])
            has_silent = len(self._storage.groups[self._group].members) > live
            await self._storage.changed.wait(
                min(remaining_s, EXPIRY_CHECK_S) if has_silent else remaining_s
            )

    def request_rebalance(self) -> None:
        """Ask for a new round, because this member's info has changed."""
        self._membership.request_rebalance()
        self._storage.changed.notify()

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group how far we are."""
        self.log.check_open()
        for key, offset in offsets.items():
            self._storage.group_offsets[self._group, key] = offset

    async def leave(self) -> None:
        """Leave at once."""
        state = self._storage.groups.get(self._group)
        live = self._storage.live[self._group]
        if self in live:
            live.remove(self)
            if state is not None:
                self._membership.leave(state)
        self._membership.on_left()
        self._storage.changed.notify()

    def _settle(self) -> None:
        state = self._storage.groups.setdefault(self._group, GroupState())
        live = self._storage.live[self._group]
        # First all are alive, then somebody may look for the dead: the clock may have jumped.
        for member in live:
            member.beat(state)
        has_changed = True
        while has_changed:
            changes = [member.step(state) for member in live]
            has_changed = any(changes)
            if has_changed:
                self._storage.changed.notify()

    def beat(self, state: GroupState) -> None:
        """Show that the member is alive, if it is one."""
        known = state.members.get(self._membership.member_id)
        if known is not None:
            known.heartbeat_ms = self.log.clock.now_ms()

    def step(self, state: GroupState) -> bool:
        """Take the member's next step; return whether it changed the group."""
        if self._error is not None:
            return False
        self._membership.observe(state)
        try:
            return self._membership.step(state, self.log.clock.now_ms())
        except Exception as error:
            # The user's assignor or info: it is this member's trouble, whoever made it step.
            self._error = error
            return False
        finally:
            self._membership.observe(state)
