"""Reading from an embedded log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from riverrun.engine.errors import LogUnavailableError

from .database import BusyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from riverrun.engine.log import Chunk, TopicPartition

    from .storage_thread import StorageThread

RETRY_S = 0.05
"""Pause after a read that another process's lock kept from happening."""


class LocalLogReader:
    """A ``LogReader`` of a ``LocalLog``."""

    def __init__(self, thread: StorageThread, positions: Mapping[TopicPartition, int]) -> None:
        self._thread = thread
        self._positions = dict(positions)
        self._trouble: str | None = None
        self._is_closed = False
        # Where the next read begins, so that partitions at the end of the list get their turn
        # when a read is full.
        self._turn = 0

    async def poll(
        self, timeout_ms: int, exclude: frozenset[TopicPartition] = frozenset()
    ) -> list[Chunk]:
        """Return the chunks that are ready, waiting up to ``timeout_ms`` for the first.

        Raises:
            OffsetOutOfRangeError: The position is not in the partition any more.
            TopicMissingError: The topic does not exist.
            CorruptBatchError: The file is damaged.
            LogUnavailableError: The log or the reader is closed, or the file cannot be read.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        while True:
            if self._is_closed:
                raise LogUnavailableError("the reader is closed")
            number = self._thread.change_number
            chunks = await self._read(exclude)
            if chunks or not await self._wait_more(exclude, number, deadline):
                return chunks

    async def _read(self, exclude: frozenset[TopicPartition]) -> list[Chunk]:
        wanted = {key: offset for key, offset in self._in_turn() if key not in exclude}
        if not wanted:
            return []
        try:
            chunks, ends = await self._thread.run(lambda: self._thread.storage.read(wanted))
        except BusyError as error:
            self._trouble = str(error)
            await asyncio.sleep(RETRY_S)
            return []
        self._trouble = None
        self._thread.on_ends(ends)
        for chunk in chunks:
            self._positions[chunk.partition] = chunk.next_offset
        return chunks

    def _in_turn(self) -> list[tuple[TopicPartition, int]]:
        items = list(self._positions.items())
        self._turn = (self._turn + 1) % max(1, len(items))
        return items[self._turn :] + items[: self._turn]

    async def _wait_more(
        self, exclude: frozenset[TopicPartition], number: int, deadline: float
    ) -> bool:
        """Wait until there may be something to read; False if not before the deadline."""
        loop = asyncio.get_running_loop()
        while True:
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                return False
            if self._trouble is not None:
                return True
            if not await self._thread.wait_change(number, remaining_s):
                return False
            number = self._thread.change_number
            if self._is_closed or self._thread.is_closed:
                return True
            ends = self._thread.ends
            if any(
                ends.get(key, offset) > offset
                for key, offset in self._positions.items()
                if key not in exclude
            ):
                return True

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next chunk of ``partition`` starts from."""
        return self._positions[partition]

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the end of the partition as last seen, None if not known yet."""
        return self._thread.ends.get(partition)

    def trouble(self) -> str | None:
        """Return what is being retried at the moment, None if all is well."""
        return self._trouble

    async def close(self) -> None:
        """Stop reading."""
        self._is_closed = True
        self._thread.on_change({})
