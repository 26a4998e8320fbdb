"""A log in memory: one process, deterministic, no background tasks. For tests and simulation.

It keeps every promise of the log port that does not speak of the outside world: transactions
stage until they commit, a new owner fences the old one, groups rebalance. Nothing happens between
calls, and waiting goes by the event loop's time, so that a run repeats exactly.

Several ``MemoryLog`` objects over one ``MemoryStorage`` are several processes over one log.
Closing one of them without leaving its groups is what a crash looks like to the others.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from .errors import LogError, LogUnavailableError, OffsetOutOfRangeError, WriteError
from .log import Chunk, OffsetRange, TopicPartition
from .membership import Membership
from .memory_group import MemoryGroupMember
from .memory_storage import MemoryStorage, StoredPartition
from .topic_rules import check_same_partitions, resolve_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .clock import Clock
    from .log import Assignor, EncodedBatch, TopicInfo, TopicSpec

MAX_CHUNK_BYTES = 1 << 20
"""What one poll returns of one partition, at least one batch: bounds the work between barriers."""


class MemoryLog:
    """A ``Log`` in memory, see the module.

    Args:
        clock: Where the age of records and of silent members comes from.
        storage: What several logs share; by default a new, empty one.
        max_chunk_bytes: Size from which a chunk takes no further batch.
    """

    def __init__(
        self,
        clock: Clock,
        storage: MemoryStorage | None = None,
        *,
        max_chunk_bytes: int = MAX_CHUNK_BYTES,
    ) -> None:
        self.storage = MemoryStorage() if storage is None else storage
        self._clock = clock
        self._max_chunk_bytes = max_chunk_bytes
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the process that this object stands for is gone."""
        return self._is_closed

    @property
    def clock(self) -> Clock:
        """The clock that was injected."""
        return self._clock

    def check_open(self) -> None:
        """Raise ``LogUnavailableError`` if the log has been closed."""
        if self._is_closed:
            raise LogUnavailableError("the log is closed")

    async def start(self, timeout_ms: int) -> None:
        """Do nothing: there is nobody to connect to."""
        del timeout_ms
        self.check_open()

    async def close(self) -> None:
        """Cut everything opened here off; members that did not leave are silent from now on."""
        self._is_closed = True
        for members in self.storage.live.values():
            members[:] = [member for member in members if member.log is not self]
        self.storage.changed.notify()

    async def describe_topic(self, name: str) -> TopicInfo | None:
        """Return the topic as it is now, None if there is none."""
        self.check_open()
        return self.storage.topics.get(name)

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that are missing, all or none; leave those that exist alone.

        Raises:
            PartitionCountError: A topic exists with another number of partitions.
            ConfigError: A spec makes no sense.
        """
        self.check_open()
        wanted: dict[str, TopicInfo] = {}
        for spec in specs:
            topic = resolve_topic(spec)
            existing = self.storage.topics.get(topic.name) or wanted.setdefault(topic.name, topic)
            check_same_partitions(existing, topic)
        for topic in wanted.values():
            self.storage.topics[topic.name] = topic
            for partition in range(topic.partitions):
                self.storage.partitions[TopicPartition(topic.name, partition)] = StoredPartition()

    async def offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetRange]:
        """Return the committed range of each partition.

        Raises:
            TopicMissingError: A topic or partition does not exist.
        """
        self.check_open()
        found = {key: self.storage.partition(key) for key in partitions}
        return {key: OffsetRange(stored.start, stored.end) for key, stored in found.items()}

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offset of each partition.

        Raises:
            OffsetOutOfRangeError: An offset is beyond the end of its partition.
            TopicMissingError: A topic or partition does not exist.
        """
        self.check_open()
        for key, offset in before.items():
            end = self.storage.partition(key).end
            if offset > end:
                raise OffsetOutOfRangeError(
                    f"cannot delete the records of {key} before {offset}: it ends at {end}"
                )
        for key, offset in before.items():
            self.storage.partition(key).delete_before(offset)

    async def open_reader(self, positions: Mapping[TopicPartition, int]) -> MemoryLogReader:
        """Return a reader at the given positions."""
        self.check_open()
        return MemoryLogReader(self, positions, self._max_chunk_bytes)

    async def open_writer(
        self, writer_id: str, *, transactional: bool, timeout_ms: int
    ) -> MemoryLogWriter:
        """Return a writer, having fenced every earlier one with the same id."""
        del timeout_ms
        self.check_open()
        return MemoryLogWriter(self, writer_id, is_transactional=transactional)

    async def join_group(
        self,
        group: str,
        topics: Sequence[str],
        info: Callable[[], bytes],
        assignor: Assignor,
        *,
        instance_id: str | None,
        session_timeout_ms: int,
    ) -> MemoryGroupMember:
        """Become a member of ``group``; the assignor alone decides about ``topics``."""
        del topics
        self.check_open()
        membership = Membership(
            f"{group}-{next(self.storage.member_numbers):04}",
            info,
            assignor,
            instance_id=instance_id,
            session_timeout_ms=session_timeout_ms,
        )
        member = MemoryGroupMember(self, group, membership)
        self.storage.live.setdefault(group, []).append(member)
        self.storage.changed.notify()
        return member

    async def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the offsets told by ``commit_offsets``, for those partitions that have one."""
        self.check_open()
        told = self.storage.group_offsets
        return {key: told[group, key] for key in partitions if (group, key) in told}


class MemoryLogReader:
    """A ``LogReader`` of a ``MemoryLog``."""

    def __init__(
        self, log: MemoryLog, positions: Mapping[TopicPartition, int], max_chunk_bytes: int
    ) -> None:
        self._log = log
        self._storage = log.storage
        self._positions = dict(positions)
        self._max_chunk_bytes = max_chunk_bytes
        self._is_closed = False

    async def poll(
        self, timeout_ms: int, exclude: frozenset[TopicPartition] = frozenset()
    ) -> list[Chunk]:
        """Return the chunks that are ready, waiting up to ``timeout_ms`` for the first.

        Raises:
            OffsetOutOfRangeError: The position is not in the partition any more.
            TopicMissingError: The topic does not exist.
            LogUnavailableError: The log or the reader is closed.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        # Others get their turn even if there is always something to read.
        await asyncio.sleep(0)
        while True:
            self._log.check_open()
            if self._is_closed:
                raise LogUnavailableError("the reader is closed")
            chunks = self._read(exclude)
            if chunks or not await self._storage.changed.wait(deadline - loop.time()):
                return chunks

    def _read(self, exclude: frozenset[TopicPartition]) -> list[Chunk]:
        # All are read before any moves: an error in one must not lose a chunk of another.
        read = [
            self._read_partition(key, position)
            for key, position in self._positions.items()
            if key not in exclude
        ]
        chunks = [chunk for chunk in read if chunk is not None]
        for chunk in chunks:
            self._positions[chunk.partition] = chunk.next_offset
        return chunks

    def _read_partition(self, key: TopicPartition, position: int) -> Chunk | None:
        stored = self._storage.partition(key)
        if not stored.start <= position <= stored.end:
            raise OffsetOutOfRangeError(
                f"offset {position} of {key} is not in the log, which holds"
                f" {stored.start} to {stored.end}"
            )
        payloads: list[bytes] = []
        size, next_offset = 0, position
        for batch in itertools.islice(stored.batches, stored.first_after(position), None):
            if payloads and size + len(batch.payload) > self._max_chunk_bytes:
                break
            payloads.append(batch.payload)
            size += len(batch.payload)
            next_offset = batch.next_offset
        if not payloads:
            return None
        return Chunk(key, position, next_offset, b"".join(payloads))

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next chunk of ``partition`` starts from."""
        return self._positions[partition]

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the end of the partition as it is."""
        stored = self._storage.partitions.get(partition)
        return None if stored is None else stored.end

    def trouble(self) -> str | None:
        """Return None: nothing is ever retried."""
        return None

    async def close(self) -> None:
        """Stop reading."""
        self._is_closed = True
        self._storage.changed.notify()


class MemoryLogWriter:
    """A ``LogWriter`` of a ``MemoryLog``."""

    def __init__(self, log: MemoryLog, writer_id: str, *, is_transactional: bool) -> None:
        self._log = log
        self._storage = log.storage
        self._id = writer_id
        self._is_transactional = is_transactional
        self._owner = log.storage.next_owner(writer_id)
        self._staged: list[tuple[TopicPartition, EncodedBatch]] = []
        self._pending_bytes = 0
        # Where the partitions written since the last flush or commit end.
        self._unflushed: dict[TopicPartition, int] = {}
        self._failure: LogError | None = None

    @property
    def owner(self) -> tuple[int, int]:
        """``(number of the writer id, epoch)``."""
        return self._owner

    def append(self, topic: str, partition: int, batch: EncodedBatch) -> None:
        """Stage ``batch``, or write it at once if not transactional; ``flush`` tells errors."""
        if self._failure is not None:
            return
        key = TopicPartition(topic, partition)
        if self._is_transactional:
            self._staged.append((key, batch))
            self._pending_bytes += len(batch.payload)
            self._unflushed[key] = -1
            return
        try:
            self._check_alive()
            self._storage.check_write(key, batch)
        except LogError as error:
            self._failure = error
            return
        self._storage.write([(key, batch)], self._log.clock.now_ms())
        self._unflushed[key] = self._storage.partition(key).end

    def pending_bytes(self) -> int:
        """Return the size of what is staged and not flushed yet."""
        return self._pending_bytes

    async def flush(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Check everything appended, so that errors show before the commit.

        Returns:
            As the port says; within a transaction the offsets hold unless another writer commits
            to the same partition in between.

        Raises:
            FencedError: Another owner has opened a writer with this id.
            WriteError: A batch was refused, or the writer is closed.
        """
        del timeout_ms
        self._check()
        self._pending_bytes = 0
        flushed, self._unflushed = self._unflushed, {}
        if self._is_transactional:
            ends = self._staged_ends()
            flushed = {key: ends[key] for key in flushed}
        return flushed

    async def commit(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Make everything since the last commit visible at once.

        Raises:
            FencedError: Another owner has opened a writer with this id; nothing is visible.
            WriteError: A batch was refused, or the writer is closed; nothing is visible.
        """
        if not self._is_transactional:
            return await self.flush(timeout_ms)
        self._check()
        ends = self._staged_ends()
        self._storage.write(self._staged, self._log.clock.now_ms())
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
        self._staged = []
        self._pending_bytes = 0
        self._unflushed = {}

    def _staged_ends(self) -> dict[TopicPartition, int]:
        ends: dict[TopicPartition, int] = {}
        for key, batch in self._staged:
            ends[key] = ends.get(key, self._storage.partition(key).end) + batch.record_count
        return ends

    def _check_alive(self) -> None:
        if self._log.is_closed:
            raise WriteError(f"writer {self._id!r} cannot write: the log is closed")
        self._storage.check_owner(self._id, self._owner)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._check_alive()
            for key, batch in self._staged:
                self._storage.check_write(key, batch)
        except LogError as error:
            self._failure = error
            raise
