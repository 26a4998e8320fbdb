"""Membership of a group in an embedded log."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from riverrun.engine.errors import FencedError, LogError, LogUnavailableError
from riverrun.engine.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from riverrun.engine.clock import Clock
    from riverrun.engine.log import Assignment, TopicPartition
    from riverrun.engine.membership import GroupState, Membership

    from .storage_thread import StorageThread

logger = logging.getLogger(__name__)

TICK_S = 0.05
"""How often a member looks at its group: bounds how long a rebalance takes, costs one read."""

STORE_ATTEMPTS_MAX = 20
"""How often a step is tried again at once, because another member was faster."""


class LocalGroupMember:
    """A ``GroupMember`` of a ``LocalLog``; a task of its own keeps the membership alive."""

    def __init__(
        self, thread: StorageThread, clock: Clock, group: str, membership: Membership
    ) -> None:
        self._thread = thread
        self._clock = clock
        self._group = group
        self._membership = membership
        self._is_rebalance_wanted = False
        self._error: Exception | None = None
        self._changed = Wakeup()
        self._hurry = Wakeup()
        self._task = asyncio.create_task(self._live())

    @property
    def member_id(self) -> str:
        """Who we are in the group; empty before the first join."""
        return self._membership.member_id

    async def _live(self) -> None:
        while True:
            try:
                await self._tick()
            except LogError as error:
                if self._thread.is_closed:
                    return
                # Others drop us if it lasts, and then we join again.
                logger.warning("group %s: cannot keep the membership: %s", self._group, error)
            except Exception as error:
                # The user's assignor or info: told to whoever asks for the assignment.
                self._error = error
                self._changed.notify()
                return
            self._changed.notify()
            await self._hurry.wait(TICK_S)

    async def _tick(self) -> None:
        if self._is_rebalance_wanted:
            self._is_rebalance_wanted = False
            self._membership.request_rebalance()
        await self._update(lambda state: self._membership.step(state, self._clock.now_ms()))

    async def _update(self, step: Callable[[GroupState], bool]) -> None:
        """Load the group, let ``step`` change it and store it, until nobody was faster."""
        storage = self._thread.storage
        for _ in range(STORE_ATTEMPTS_MAX):
            version, state = await self._thread.run(lambda: storage.load_group(self._group))
            self._membership.observe(state)
            if not step(state):
                return
            if await self._store(state, version):
                self._membership.observe(state)
                return

    async def _store(self, state: GroupState, version: int) -> bool:
        storage = self._thread.storage
        return await self._thread.run(lambda: storage.store_group(self._group, state, version))

    async def next_assignment(self, timeout_ms: int) -> Assignment | None:
        """Return the newest assignment not returned yet, None if none comes within the time.

        Raises:
            FencedError: A member with the same instance id has replaced this one.
            LogUnavailableError: The log is closed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        while True:
            assignment = self._membership.take_assignment()
            if assignment is not None:
                return assignment
            if self._error is not None:
                raise self._error
            if self._membership.is_replaced:
                raise FencedError(
                    f"another member of group {self._group!r} has joined with the same instance id"
                )
            if self._thread.is_closed:
                raise LogUnavailableError("the log is closed")
            if not await self._changed.wait(deadline - loop.time()):
                return None

    def request_rebalance(self) -> None:
        """Ask for a new round, because this member's info has changed."""
        # Not told to the membership here: a step that is on its way may have asked for the info
        # already.
        self._is_rebalance_wanted = True
        self._hurry.notify()

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group how far we are.

        Raises:
            LogUnavailableError: It could not be stored.
        """
        told = dict(offsets)
        try:
            await self._thread.run(
                lambda: self._thread.storage.commit_group_offsets(self._group, told)
            )
        except LogError as error:
            raise LogUnavailableError(str(error)) from error

    async def leave(self) -> None:
        """Leave at once, so that others take over without waiting for the session to expire."""
        await self.close()
        with suppress(LogError):
            # What cannot be told is found out when the session expires.
            await self._update(self._membership.leave)
        self._membership.on_left()

    async def close(self) -> None:
        """Stop showing that we are alive, without leaving."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._changed.notify()
