"""Reading: one reader's view of the shared fetcher."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from riverrun.engine.log import Chunk, TopicPartition

from .client import Deadline
from .fetcher import BUFFER_BYTES_MAX, Cursor, Fetcher

if TYPE_CHECKING:
    from collections.abc import Mapping


class KafkaReader:
    """Reads committed records; see ``riverrun.engine.log.LogReader``.

    A partition that failed for good keeps raising from ``poll``, after its buffered records were
    taken; the other partitions' records stay buffered and are to be had with it in ``exclude``.
    """

    def __init__(self, fetcher: Fetcher, positions: Mapping[TopicPartition, int]) -> None:
        """Begin to fetch at ``positions``."""
        self._fetcher = fetcher
        self._ready = asyncio.Event()
        self._cursors = {
            partition: Cursor(TopicPartition(*partition), position, self._ready.set)
            for partition, position in positions.items()
        }
        fetcher.add(self._cursors.values())

    async def poll(
        self, timeout_ms: int, exclude: frozenset[TopicPartition] = frozenset()
    ) -> list[Chunk]:
        """Return the chunks that are ready, at most one per partition; see ``LogReader.poll``.

        Being cancelled loses nothing: chunks are taken and returned without a wait in between.
        """
        # A caller that always finds records ready must let the rest of the process run as well.
        await asyncio.sleep(0)
        deadline = Deadline(timeout_ms)
        while True:
            self._ready.clear()
            chunks = self._take(exclude)
            if chunks or deadline.passed():
                return chunks
            try:
                async with asyncio.timeout(deadline.left_ms() / 1000):
                    await self._ready.wait()
            except TimeoutError:
                continue  # to look once more

    def _take(self, exclude: frozenset[TopicPartition]) -> list[Chunk]:
        ready = [c for c in self._cursors.values() if c.partition not in exclude]
        for cursor in ready:
            if cursor.error is not None and not cursor.buffered:
                raise cursor.error
        chunks: list[Chunk] = []
        resumed = False
        for cursor in ready:
            resumed = resumed or cursor.buffered_bytes >= BUFFER_BYTES_MAX
            chunk = cursor.take()
            if chunk is not None:
                chunks.append(chunk)
        if resumed:
            self._fetcher.wake()
        return chunks

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next chunk of ``partition`` starts from."""
        return self._cursors[partition].position

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the last stable offset as last seen, None if not known yet."""
        return self._cursors[partition].end_offset

    def trouble(self) -> str | None:
        """Return what is being retried at the moment, None if all is well."""
        for cursor in self._cursors.values():
            if cursor.trouble is not None:
                return cursor.trouble
        return None

    async def close(self) -> None:
        """Stop reading and drop what is buffered. Never raises."""
        self._fetcher.remove(self._cursors.values())
        for cursor in self._cursors.values():
            cursor.buffered.clear()
