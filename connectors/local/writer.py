"""Writing to an embedded log.

A transaction is kept in memory until it commits, and is then written in one SQLite transaction:
nobody ever sees a part of it, and there is nothing to clean up after a crash.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from riverrun.engine.batch_header import check_batch
from riverrun.engine.errors import (
    CorruptBatchError,
    FencedError,
    LogError,
    OutcomeUnknownError,
    WriteError,
)
from riverrun.engine.log import TopicPartition

from .storage import WRITE_TIMEOUT_MS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from riverrun.engine.log import EncodedBatch

    from .storage_thread import StorageThread

    Batches = Sequence[tuple[TopicPartition, EncodedBatch]]
    WriteBatches = Callable[[tuple[int, int], Batches, int], Awaitable[dict[TopicPartition, int]]]


class _Writer:
    """What both kinds of writer have in common: an owner, and no life after an error."""

    def __init__(self, writer_id: str, owner: tuple[int, int], write: WriteBatches) -> None:
        self._id = writer_id
        self._owner = owner
        self._write = write
        self._failure: LogError | None = None
        self._pending_bytes = 0

    @property
    def owner(self) -> tuple[int, int]:
        """``(number of the writer id, epoch)``."""
        return self._owner

    def pending_bytes(self) -> int:
        """Return the size of what is appended and not acknowledged yet."""
        return self._pending_bytes

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: LogError) -> LogError:
        """Remember and return the error that ends this writer, in the port's terms."""
        if not isinstance(error, FencedError | WriteError | OutcomeUnknownError):
            error = WriteError(f"writer {self._id!r} cannot write: {error}")
        self._failure = error
        return error

    def _fail_cancelled(self) -> None:
        self._failure = OutcomeUnknownError(
            f"a write of writer {self._id!r} was cancelled on its way: it may have happened"
        )

    def _check_batches(self, batches: Batches) -> None:
        for key, batch in batches:
            try:
                check_batch(batch)
            except CorruptBatchError as error:
                raise self._fail(WriteError(f"cannot write to {key}: {error}")) from error


class TransactionalWriter(_Writer):
    """A transactional ``LogWriter`` of a ``LocalLog``."""

    def __init__(
        self,
        writer_id: str,
        owner: tuple[int, int],
        write: WriteBatches,
        thread: StorageThread,
    ) -> None:
        super().__init__(writer_id, owner, write)
        self._thread = thread
        self._staged: list[tuple[TopicPartition, EncodedBatch]] = []
        # Partitions written since the last flush or commit.
        self._unflushed: set[TopicPartition] = set()

    def append(self, topic: str, partition: int, batch: EncodedBatch) -> None:
        """Stage ``batch`` for the commit."""
        if self._failure is None:
            key = TopicPartition(topic, partition)
            self._staged.append((key, batch))
            self._unflushed.add(key)
            self._pending_bytes += len(batch.payload)

    async def flush(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Check everything staged, so that errors show before the commit. Writes nothing.

        Returns:
            As the port says; the offsets hold unless another writer commits to the same partition
            before this transaction does.

        Raises:
            FencedError: Another owner has opened a writer with this id.
            WriteError: A batch was refused, or the writer is done for.
        """
        del timeout_ms
        self._check_alive()
        staged = list(self._staged)
        self._check_batches(staged)
        try:
            ends = await self._thread.run(lambda: self._thread.storage.check(self._owner, staged))
        except LogError as error:
            raise self._fail(error) from error
        flushed = {key: ends[key] for key in self._unflushed if key in ends}
        self._unflushed.clear()
        self._pending_bytes = 0
        return flushed

    async def commit(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Write everything since the last commit, all or nothing.

        It survives the death of this process once this returns.

        Raises:
            FencedError: Another owner has opened a writer with this id; nothing is visible.
            WriteError: Refused, or locked for all the time allowed; nothing is visible.
            OutcomeUnknownError: The disk failed in the middle, or an earlier commit was cancelled.
        """
        self._check_alive()
        self._check_batches(self._staged)
        try:
            ends = await self._write(self._owner, self._staged, timeout_ms)
        except LogError as error:
            raise self._fail(error) from error
        except asyncio.CancelledError:
            self._fail_cancelled()
            raise
        self._drop()
        return ends

    async def abort(self, timeout_ms: int) -> None:
        """Drop everything since the last commit."""
        del timeout_ms
        self._drop()

    async def close(self) -> None:
        """Release it without committing."""
        self._drop()
        if self._failure is None:
            self._failure = WriteError(f"writer {self._id!r} is closed")

    def _drop(self) -> None:
        # New lists: the thread may still be at work on the old one after a cancellation.
        self._staged = []
        self._unflushed = set()
        self._pending_bytes = 0


class PlainWriter(_Writer):
    """A ``LogWriter`` of a ``LocalLog`` without transactions.

    Batches are written as soon as those before them are: many small ones share a transaction of
    SQLite when they come fast.
    """

    def __init__(self, writer_id: str, owner: tuple[int, int], write: WriteBatches) -> None:
        super().__init__(writer_id, owner, write)
        self._queue: list[tuple[TopicPartition, EncodedBatch]] = []
        self._sender: asyncio.Task[None] | None = None
        self._flushed: dict[TopicPartition, int] = {}

    def append(self, topic: str, partition: int, batch: EncodedBatch) -> None:
        """Write ``batch`` soon; ``flush`` tells what became of it."""
        if self._failure is not None:
            return
        self._queue.append((TopicPartition(topic, partition), batch))
        self._pending_bytes += len(batch.payload)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._queue and self._failure is None:
            batches, self._queue = self._queue, []
            try:
                self._check_batches(batches)
                ends = await self._write(self._owner, batches, WRITE_TIMEOUT_MS)
            except LogError as error:
                self._fail(error)
            else:
                self._flushed.update(ends)
                self._pending_bytes -= sum(len(batch.payload) for _, batch in batches)

    async def flush(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Wait until everything appended is written.

        Raises:
            FencedError: Another owner has opened a writer with this id.
            WriteError: A batch was refused, or the deadline passed.
        """
        if self._sender is not None and not self._sender.done():
            await asyncio.wait({self._sender}, timeout=timeout_ms / 1000)
            if not self._sender.done() and self._failure is None:
                self._fail(
                    WriteError(f"writer {self._id!r} could not write within {timeout_ms} ms")
                )
        self._check_alive()
        flushed, self._flushed = self._flushed, {}
        return flushed

    async def commit(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Do the same as ``flush``."""
        return await self.flush(timeout_ms)

    async def abort(self, timeout_ms: int) -> None:
        """Drop what is not written yet."""
        del timeout_ms
        self._pending_bytes -= sum(len(batch.payload) for _, batch in self._queue)
        self._queue = []

    async def close(self) -> None:
        """Release it; what is not written yet is dropped."""
        await self.abort(0)
        if self._failure is None:
            self._failure = WriteError(f"writer {self._id!r} is closed")
        if self._sender is not None and not self._sender.done():
            self._sender.cancel()
            with suppress(asyncio.CancelledError):
                await self._sender
