"""The embedded log: a ``Log`` in one local directory, for several processes, without a server.

Delivery   exactly once: a commit is one SQLite transaction, over all topics
Position   offsets without gaps; the caller keeps them
Rebalance  groups with sessions, by state that the members share in the same file
Needs      a local file system (not NFS); SQLite comes with Python
"""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from riverrun.engine.clock import Clock, SystemClock
from riverrun.engine.errors import LogError, LogUnavailableError
from riverrun.engine.membership import Membership

from .group import LocalGroupMember
from .reader import LocalLogReader
from .storage_thread import StorageThread
from .writer import PlainWriter, TransactionalWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from riverrun.engine.log import (
        Assignor,
        EncodedBatch,
        OffsetRange,
        TopicInfo,
        TopicPartition,
        TopicSpec,
    )

logger = logging.getLogger(__name__)

RETENTION_CHECK_MS = 30_000
"""How often, at most, a process that commits looks for records past their retention."""


class LocalLog:
    """A ``Log`` in one directory; see the module, and ``database`` for what is durable when.

    One object is one process's connection. Any number of them, in any number of processes on the
    same machine, may work on one directory. Not to be used across ``os.fork``.

    Args:
        path: The directory; made if it does not exist.
        clock: Where the age of records and the silence of members come from. All processes must
            agree about the wall-clock time, as they do on one machine.

    Example:
        >>> log = LocalLog("data/log")
    """

    def __init__(self, path: str | Path, *, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._clock = SystemClock() if clock is None else clock
        self._thread = StorageThread(self._path)
        self._members: list[LocalGroupMember] = []
        self._next_expiry_ms = 0

    async def start(self, timeout_ms: int) -> None:
        """Open the directory, and create what is missing.

        Raises:
            LogUnavailableError: It cannot be written, is locked, or is not a log directory.
        """
        await self._thread.run(lambda: self._thread.storage.open(timeout_ms))

    async def close(self) -> None:
        """Release everything. Members that did not leave are silent from now on. Never raises."""
        for member in self._members:
            await member.close()
        await self._thread.close()

    async def describe_topic(self, name: str) -> TopicInfo | None:
        """Return the topic as it is now, None if there is none."""
        return await self._thread.run(lambda: self._thread.storage.describe_topic(name))

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that are missing, all or none; leave those that exist alone.

        Raises:
            PartitionCountError: A topic exists with another number of partitions.
            ConfigError: A spec makes no sense.
        """
        wanted = list(specs)
        await self._thread.run(lambda: self._thread.storage.create_topics(wanted))

    async def offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetRange]:
        """Return the committed range of each partition.

        Raises:
            TopicMissingError: A topic or partition does not exist.
        """
        keys = list(partitions)
        return await self._thread.run(lambda: self._thread.storage.offsets(keys))

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offset of each partition.

        The space is used again by later records; the file does not shrink.

        Raises:
            OffsetOutOfRangeError: An offset is beyond the end of its partition.
            TopicMissingError: A topic or partition does not exist.
        """
        wanted = dict(before)
        await self._thread.run(lambda: self._thread.storage.delete_records(wanted))

    async def open_reader(self, positions: Mapping[TopicPartition, int]) -> LocalLogReader:
        """Return a reader at the given positions."""
        return LocalLogReader(self._thread, positions)

    async def open_writer(
        self, writer_id: str, *, transactional: bool, timeout_ms: int
    ) -> TransactionalWriter | PlainWriter:
        """Return a writer, having fenced every earlier one with the same id.

        Raises:
            LogUnavailableError: The write lock was not to be had, or the disk is full.
        """
        storage = self._thread.storage
        try:
            owner = await self._thread.run(lambda: storage.open_owner(writer_id, timeout_ms))
        except LogError as error:
            raise LogUnavailableError(f"cannot open writer {writer_id!r}: {error}") from error
        if transactional:
            return TransactionalWriter(writer_id, owner, self._write, self._thread)
        return PlainWriter(writer_id, owner, self._write)

    async def _write(
        self,
        owner: tuple[int, int],
        batches: Sequence[tuple[TopicPartition, EncodedBatch]],
        timeout_ms: int,
    ) -> dict[TopicPartition, int]:
        """Write batches, all or none, and wake the readers in this process."""
        ends = await self._thread.run(lambda: self._write_blocking(owner, batches, timeout_ms))
        self._thread.on_change(ends)
        return ends

    def _write_blocking(
        self,
        owner: tuple[int, int],
        batches: Sequence[tuple[TopicPartition, EncodedBatch]],
        timeout_ms: int,
    ) -> dict[TopicPartition, int]:
        ends = self._thread.storage.write(owner, batches, timeout_ms)
        now_ms = self._clock.now_ms()
        if now_ms >= self._next_expiry_ms:
            self._next_expiry_ms = now_ms + RETENTION_CHECK_MS
            try:
                self._thread.storage.expire(now_ms)
            except LogError as error:
                # What was asked for is written; this is tried again later, by us or another.
                logger.warning("cannot delete old records of the log at %s: %s", self._path, error)
        return ends

    async def join_group(
        self,
        group: str,
        topics: Sequence[str],
        info: Callable[[], bytes],
        assignor: Assignor,
        *,
        instance_id: str | None,
        session_timeout_ms: int,
    ) -> LocalGroupMember:
        """Become a member of ``group``; the assignor alone decides about ``topics``."""
        del topics
        if self._thread.is_closed:
            raise LogUnavailableError(f"the log at {self._path} is closed")
        membership = Membership(
            f"{instance_id or group}-{uuid.uuid4()}",
            info,
            assignor,
            instance_id=instance_id,
            session_timeout_ms=session_timeout_ms,
        )
        member = LocalGroupMember(self._thread, self._clock, group, membership)
        self._members.append(member)
        return member

    async def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the offsets told by ``commit_offsets``, for those partitions that have one."""
        told = await self._thread.run(lambda: self._thread.storage.group_offsets(group))
        return {key: told[key] for key in partitions if key in told}
