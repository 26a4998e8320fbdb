"""The log port: topics, partitions, offsets, atomic commits and groups.

The engine talks to Kafka, to the embedded log and to the simulated log through these protocols
alone. One contract suite (``tests/contracts/log.py``) runs over every implementation.

What travels is the Kafka record batch (format v2), encoded and decoded by the data plane: the log
stores and delivers ``bytes`` and never looks at a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

FOREVER_MS = -1
"""Retention: records are never deleted for their age."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        """Return ``topic/partition``, as in error messages."""
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that should exist.

    Attributes:
        name: Topic name.
        partitions: Number of partitions, at least 1.
        retention_ms: Age at which records may be deleted; ``FOREVER_MS`` keeps them. None leaves
            it to the broker (7 days by default, by record timestamp: old event times vanish).
        replication: Copies of each partition; None leaves it to the broker.
        configs: Further topic settings by their Kafka names.
    """

    name: str
    partitions: int
    retention_ms: int | None = None
    replication: int | None = None
    configs: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic as it is.

    Attributes:
        name: Topic name.
        partitions: Number of partitions.
        retention_ms: ``FOREVER_MS``, an age in milliseconds, or None if unknown.
        max_batch_bytes: Largest record batch the log takes, after compression.
    """

    name: str
    partitions: int
    retention_ms: int | None
    max_batch_bytes: int


class OffsetRange(NamedTuple):
    """What a read_committed reader can see of a partition: ``[start, end)``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """One record batch (Kafka format v2, magic 2), ready for a writer.

    ``payload`` has base offset 0, no producer (id -1, epoch -1, sequence -1) and a valid CRC;
    a writer that is a producer patches those header fields and computes the CRC anew.

    Attributes:
        payload: The whole batch, header included.
        record_count: Number of records in it.
        max_timestamp_ms: Largest record timestamp in it.
    """

    payload: bytes
    record_count: int
    max_timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read returned for one partition: raw record batches, not decoded yet.

    Attributes:
        partition: Where it is from.
        offset: Position of the reader when it was read: records below it are to be skipped (a
            compressed batch may begin before the position).
        next_offset: Position of the reader after it.
        payload: Record batches, back to back. A partial batch at the end has been cut off.
        aborted: ``(producer_id, first_offset)`` of aborted transactions that touch the chunk, for
            the decoder to leave out; empty where the log has filtered already.
    """

    partition: TopicPartition
    offset: int
    next_offset: int
    payload: bytes
    aborted: Sequence[tuple[int, int]] = ()


class LogReader(Protocol):
    """Reads committed records of given partitions from given offsets, in offset order.

    It moves only forwards, and only by what ``poll`` returned. Troubles that pass (broker away,
    leader moved) are retried inside with back-off for as long as it takes, and told by
    ``trouble``; what cannot pass is raised by ``poll``.
    """

    async def poll(
        self, timeout_ms: int, exclude: frozenset[TopicPartition] = frozenset()
    ) -> list[Chunk]:
        """Return the chunks that are ready, waiting up to ``timeout_ms`` for the first.

        At most one chunk per partition and call. Partitions in ``exclude`` are left buffered.

        Raises:
            OffsetOutOfRangeError: The position is not in the partition any more.
            TopicMissingError: The topic is gone.
            CorruptBatchError: The log answers that stored data is corrupt.
            LogAuthorizationError: Access was refused.
        """
        ...

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that the next chunk of ``partition`` starts from."""
        ...

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the last stable offset as last seen, None if not known yet. Never waits."""
        ...

    def trouble(self) -> str | None:
        """Return what is being retried at the moment, for logs and health; None if all is well."""
        ...

    async def close(self) -> None:
        """Stop reading and drop what is buffered. Never raises."""
        ...


class LogWriter(Protocol):
    """One owner's way to write; opening another with the same id fences this one.

    Transactional: everything appended since the last commit becomes visible at ``commit``, all or
    nothing. Otherwise each batch is visible when acknowledged. After any error the writer is
    done for: close it and open a new one, which also settles what became of an open transaction.
    """

    @property
    def owner(self) -> tuple[int, int]:
        """``(producer id, epoch)``: what the log fences by; larger epoch, later owner."""
        ...

    def append(self, topic: str, partition: int, batch: EncodedBatch) -> None:
        """Send ``batch`` soon, in order with the other batches of its partition. Never waits."""
        ...

    def pending_bytes(self) -> int:
        """Return the size of what is appended and not acknowledged yet, for backpressure."""
        ...

    async def flush(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Wait until everything appended is acknowledged.

        Returns:
            For each partition written since the last flush or commit, the offset after its last
            record.

        Raises:
            FencedError: Another owner has opened a writer with this id.
            BatchTooLargeError: The log refused a batch for its size.
            WriteError: Any other refusal, or the deadline passed.
        """
        ...

    async def commit(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Flush, then make everything since the last commit visible at once.

        Returns:
            As ``flush``, for the whole transaction.

        Raises:
            FencedError: As in ``flush``; nothing of this transaction is or becomes visible.
            BatchTooLargeError: As in ``flush``; nothing of it is visible.
            WriteError: As in ``flush``; nothing of it is visible.
            OutcomeUnknownError: The commit was sent and no answer came: it may have happened. Open
                a new writer, then read back what was committed.
        """
        ...

    async def abort(self, timeout_ms: int) -> None:
        """Drop everything since the last commit. Best effort: a new owner does it as well."""
        ...

    async def close(self) -> None:
        """Release it without committing. Bounded in time; never raises."""
        ...


class Assignment(NamedTuple):
    """What a group gave one member.

    Attributes:
        generation: Grows with each rebalance.
        partitions: All partitions that are this member's from now on.
    """

    generation: int
    partitions: frozenset[TopicPartition]


Assignor = Callable[[Mapping[str, bytes]], Mapping[str, Sequence[TopicPartition]]]
"""Run on the leader: ``{member id: member's info}`` to ``{member id: its partitions}``."""


class GroupMember(Protocol):
    """Membership of a group that shares partitions out."""

    @property
    def member_id(self) -> str:
        """Who we are in the group; empty before the first join."""
        ...

    async def next_assignment(self, timeout_ms: int) -> Assignment | None:
        """Return the newest assignment not returned yet, None if none comes within the time.

        Heartbeats go on whether or not it is being called. An empty assignment is also returned
        when membership was lost; a new one follows when the group has been rejoined.
        """
        ...

    def request_rebalance(self) -> None:
        """Ask for a new round, because this member's info has changed."""
        ...

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group how far we are, for lag tools; it is not the authority on restart.

        Raises:
            LogUnavailableError: It could not be told within the client's deadline.
        """
        ...

    async def leave(self) -> None:
        """Leave at once, so that others take over without waiting for the session to expire."""
        ...


class Log(Protocol):
    """A durable, partitioned, replicated log, or something that behaves like one."""

    async def start(self, timeout_ms: int) -> None:
        """Connect.

        Raises:
            LogUnavailableError: Nobody answers at the address within the time.
        """
        ...

    async def close(self) -> None:
        """Release everything. Never raises."""
        ...

    async def describe_topic(self, name: str) -> TopicInfo | None:
        """Return the topic as it is now, None if there is none."""
        ...

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that are missing; leave those that exist alone.

        Raises:
            PartitionCountError: A topic exists with another number of partitions.
            LogAuthorizationError: Creation was refused.
        """
        ...

    async def offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetRange]:
        """Return the committed range of each partition.

        Raises:
            TopicMissingError: A topic or partition does not exist.
        """
        ...

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offset of each partition."""
        ...

    async def open_reader(self, positions: Mapping[TopicPartition, int]) -> LogReader:
        """Return a reader at the given positions."""
        ...

    async def open_writer(
        self, writer_id: str, *, transactional: bool, timeout_ms: int
    ) -> LogWriter:
        """Return a writer, having fenced every earlier one with the same id.

        When it returns, an open transaction of the earlier owner is aborted or committed for
        good, and the end offsets read from now on include what it committed.

        Raises:
            LogUnavailableError: It could not be opened within the time.
        """
        ...

    async def join_group(
        self,
        group: str,
        topics: Sequence[str],
        info: Callable[[], bytes],
        assignor: Assignor,
        *,
        instance_id: str | None,
        session_timeout_ms: int,
    ) -> GroupMember:
        """Become a member of ``group``; the first assignment comes through ``next_assignment``.

        Args:
            group: Group id.
            topics: Topics shared out in the group.
            info: Called at each join: what the assignor should know of this member.
            assignor: Shares out, on whichever member is the leader.
            instance_id: Stable name of this member over restarts: a restarted member replaces its
                former self at once instead of waiting for the session to expire.
            session_timeout_ms: How long a silent member is kept.
        """
        ...

    async def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the offsets told by ``commit_offsets``, for those partitions that have one."""
        ...
