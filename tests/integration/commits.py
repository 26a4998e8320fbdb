"""The commit records of a job, read from its changelogs while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from riverrun.engine.changelog import COMMIT_KEY, CommitRecord, decode_commit
from riverrun.engine.log import TopicPartition

from .topologies import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from .workers import Task

POLL_MS = 200
CLOSE_DEADLINE_S = 10


class CommitWatch:
    """Follows the committed records of some changelogs in the background.

    It has to: what a snapshot covers is deleted from them.
    """

    def __init__(self, broker: str, changelogs: Sequence[str]) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=broker,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        self._partitions = [
            KafkaPartition(topic, each) for topic in changelogs for each in range(PARTITIONS)
        ]
        # {(subtopology, partition): its commit records in order}
        self.history: dict[Task, list[CommitRecord]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> CommitWatch:
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._consumer.stop()

    async def _follow(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    if record.key == COMMIT_KEY:
                        commit = decode_commit(record.value)
                        self.history[commit.subtopology, commit.partition].append(commit)

    @property
    def seen(self) -> int:
        """Number of commit records."""
        return sum(map(len, self.history.values()))

    def latest(self) -> list[CommitRecord]:
        """Return the last commit record of each task that has one."""
        self._check()
        return [commits[-1] for commits in self.history.values()]

    def positions(self) -> dict[TopicPartition, int]:
        """Return how far each input is processed and committed."""
        return {
            TopicPartition(each.topic, each.partition): each.offset
            for commit in self.latest()
            for each in commit.positions
        }

    def generations(self) -> dict[Task, int]:
        """Return a number for each task that grows whenever it is started."""
        return {task: commits[-1].generation for task, commits in self.history.items()}

    def starts(self) -> dict[Task, set[int]]:
        """Return for each task the generations that have committed."""
        return {task: {each.generation for each in found} for task, found in self.history.items()}

    def out_of_order(self) -> list[str]:
        """Return where an epoch does not follow the one before, or an input position goes back."""
        self._check()
        found: list[str] = []
        for (subtopology, partition), commits in self.history.items():
            name = f"{subtopology}-{partition}"
            if commits[0].epoch != 1:
                found.append(f"{name} begins with epoch {commits[0].epoch}")
            for before, after in pairwise(commits):
                if after.epoch != before.epoch + 1 or after.generation < before.generation:
                    found.append(f"{name}: epoch {after.epoch} follows {before.epoch}")
                old = {(each.topic, each.partition): each.offset for each in before.positions}
                found += [
                    f"{name}: {each.topic}/{each.partition} goes back to {each.offset}"
                    for each in after.positions
                    if each.offset < old.get((each.topic, each.partition), 0)
                ]
        return found

    def _check(self) -> None:
        if self._task is not None and self._task.done():
            self._task.result()
