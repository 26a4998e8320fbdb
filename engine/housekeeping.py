"""Letting go of records that nobody can need any more, now and then, after a commit.

- A repartition topic is read by one task only: what is below its committed position is done with.
- A task without tables needs its last commit record and nothing before it.

The changelog of a task with tables is cut when a snapshot is committed; see ``snapshots``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .errors import LogError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .clock import Clock
    from .log import Log, TopicPartition

_log = logging.getLogger(__name__)

INTERVAL_MS = 30_000
"""How often a task lets go; each time costs a request to a broker."""


class Housekeeping:
    """Deletes the records that one task has done with.

    Args:
        log: Where they are.
        clock: Time.
        changelog: The task's changelog partition, if it keeps no tables; None if it does.
    """

    def __init__(self, log: Log, clock: Clock, changelog: TopicPartition | None) -> None:
        self._log = log
        self._clock = clock
        self._changelog = changelog
        self._last_ms = clock.monotonic_ms()
        self._done: dict[TopicPartition, int] = {}

    async def after_commit(
        self, repartitions: Mapping[TopicPartition, int], changelog_offset: int
    ) -> None:
        """Take in what is committed; delete what was committed an interval ago.

        That late, so that whoever looks at a commit record finds what it speaks of.

        Args:
            repartitions: Committed position of each repartition input.
            changelog_offset: Where the changelog goes on after the commit record.
        """
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._last_ms < INTERVAL_MS:
            return
        self._last_ms = now_ms
        before, self._done = self._done, dict(repartitions)
        if self._changelog is not None:
            self._done[self._changelog] = changelog_offset - 1
        if not before:
            return
        try:
            await self._log.delete_records(before)
        except LogError as error:
            # It is for disk space alone; the next round tries again with newer positions.
            _log.warning("could not let go of records that are done with: %s", error)
