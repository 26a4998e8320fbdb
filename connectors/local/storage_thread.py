"""The thread that owns the SQLite connection, and word of what changed in the log."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from riverrun.engine.errors import LogError, LogUnavailableError
from riverrun.engine.wakeup import Wakeup

from .storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from riverrun.engine.log import TopicPartition

T = TypeVar("T")

WATCH_MIN_S = 0.005
WATCH_MAX_S = 0.02
"""How often a waiting process looks for commits of others: often after one, then ever less."""


class StorageThread:
    """Runs the blocking calls of a ``LocalStorage`` in order, off the event loop.

    It also knows where the partitions end, as last seen, and wakes those who wait for more.
    Commits of this process are told at once. Those of other processes are found by looking at
    SQLite's ``data_version`` (a few microseconds), and only while somebody waits.
    """

    def __init__(self, path: Path) -> None:
        self.storage = LocalStorage(path)
        self.ends: dict[TopicPartition, int] = {}
        # Grows with each word of a change, so that none is missed between a read and a wait.
        self.change_number = 0
        self._changed = Wakeup()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="riverrun-local-log")
        self._watcher: asyncio.Task[None] | None = None
        self._path = path
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more work."""
        return self._is_closed

    async def run(self, call: Callable[[], T]) -> T:
        """Run one blocking call in the thread, after those that were asked for before.

        Cancelling does not stop a call that has begun.

        Raises:
            LogUnavailableError: It is closed.
        """
        if self._is_closed:
            raise LogUnavailableError(f"the log at {self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def on_ends(self, ends: Mapping[TopicPartition, int]) -> None:
        """Take notice of where partitions end, as seen by a read."""
        self.ends.update(ends)

    def on_change(self, ends: Mapping[TopicPartition, int]) -> None:
        """Take notice of a commit and wake those who wait."""
        self.ends.update(ends)
        self.change_number += 1
        self._changed.notify()

    async def wait_change(self, since_number: int, timeout_s: float) -> bool:
        """Return True once something changed after ``change_number`` was ``since_number``."""
        if self.change_number != since_number or self._is_closed:
            return True
        if timeout_s <= 0:
            return False
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        return await self._changed.wait(timeout_s)

    async def _watch(self) -> None:
        pause_s = WATCH_MIN_S
        while not self._is_closed:
            try:
                ends = await self.run(self.storage.changed_ends)
            except LogError:
                # Readers read by themselves from time to time, and tell what is wrong.
                ends = None
            if ends is not None:
                pause_s = WATCH_MIN_S
                self.on_change(ends)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, WATCH_MAX_S)
            if not self._changed.has_waiters():
                return

    async def close(self) -> None:
        """Let what has begun come to its end, then close the connection. Never raises."""
        if self._is_closed:
            return
        closing = asyncio.get_running_loop().run_in_executor(self._executor, self.storage.close)
        self._is_closed = True
        self._changed.notify()
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        with suppress(Exception):
            await closing
        self._executor.shutdown(wait=False)
