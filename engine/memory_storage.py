"""What a log in memory stores: partitions, owners of writers and groups."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .batch_header import check_batch, with_base_offset
from .errors import (
    BatchTooLargeError,
    CorruptBatchError,
    FencedError,
    TopicMissingError,
    WriteError,
)
from .log import FOREVER_MS, TopicPartition
from .wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .log import EncodedBatch, TopicInfo
    from .membership import GroupState
    from .memory_group import MemoryGroupMember


@dataclass(slots=True)
class StoredBatch:
    """One record batch with its place in the partition."""

    base_offset: int
    next_offset: int
    max_timestamp_ms: int
    payload: bytes


@dataclass(slots=True)
class StoredPartition:
    """One partition: whole batches, of which the first may begin before ``start``."""

    start: int = 0
    end: int = 0
    batches: list[StoredBatch] = field(default_factory=list[StoredBatch])

    def append(self, batch: EncodedBatch) -> None:
        """Add a batch at the end."""
        payload = with_base_offset(batch.payload, self.end)
        next_offset = self.end + batch.record_count
        self.batches.append(StoredBatch(self.end, next_offset, batch.max_timestamp_ms, payload))
        self.end = next_offset

    def delete_before(self, offset: int) -> None:
        """Delete the records below ``offset``; the start never goes back."""
        self.start = max(self.start, offset)
        del self.batches[: self.first_after(self.start)]

    def first_after(self, offset: int) -> int:
        """Return the index of the first batch with records from ``offset`` on."""
        return bisect.bisect_right(self.batches, offset, key=lambda batch: batch.next_offset)

    def expire(self, before_ms: int) -> None:
        """Delete from the start what is older than ``before_ms``, up to the first that is not."""
        kept = (batch.base_offset for batch in self.batches if batch.max_timestamp_ms >= before_ms)
        self.delete_before(next(kept, self.end))


class MemoryStorage:
    """What is stored: outlives the ``MemoryLog`` objects that work on it."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicInfo] = {}
        self.partitions: dict[TopicPartition, StoredPartition] = {}
        self.changed = Wakeup()
        self.groups: dict[str, GroupState] = {}
        # {group: the memberships whose process is alive}
        self.live: dict[str, list[MemoryGroupMember]] = {}
        self.group_offsets: dict[tuple[str, TopicPartition], int] = {}
        self.member_numbers = itertools.count(1)
        # {writer id: (its number, newest epoch)}
        self._writers: dict[str, tuple[int, int]] = {}

    def partition(self, key: TopicPartition) -> StoredPartition:
        """Return one partition.

        Raises:
            TopicMissingError: There is none.
        """
        found = self.partitions.get(key)
        if found is None:
            raise TopicMissingError(f"{key} does not exist; create the topic first")
        return found

    def next_owner(self, writer_id: str) -> tuple[int, int]:
        """Return the owner that fences every earlier one of ``writer_id``."""
        number, epoch = self._writers.get(writer_id, (len(self._writers), -1))
        self._writers[writer_id] = (number, epoch + 1)
        return self._writers[writer_id]

    def check_owner(self, writer_id: str, owner: tuple[int, int]) -> None:
        """Raise ``FencedError`` unless ``owner`` is the newest of ``writer_id``."""
        newest = self._writers[writer_id]
        if newest != owner:
            raise FencedError(
                f"writer {writer_id!r} of epoch {owner[1]} was fenced by epoch {newest[1]}"
            )

    def check_write(self, key: TopicPartition, batch: EncodedBatch) -> None:
        """Raise ``WriteError`` unless ``batch`` may be written to ``key``."""
        topic = self.topics.get(key.topic)
        if topic is None or key not in self.partitions:
            raise WriteError(f"cannot write to {key}: it does not exist; create the topic first")
        if len(batch.payload) > topic.max_batch_bytes:
            raise BatchTooLargeError(
                f"batch of {len(batch.payload)} bytes for {key} is larger than the topic's"
                f" max.message.bytes of {topic.max_batch_bytes}"
            )
        try:
            check_batch(batch)
        except CorruptBatchError as error:
            raise WriteError(f"cannot write to {key}: {error}") from error

    def write(self, batches: Sequence[tuple[TopicPartition, EncodedBatch]], now_ms: int) -> None:
        """Make batches, all checked before, visible at once; and drop what is too old by now."""
        for key, batch in batches:
            self.partitions[key].append(batch)
        for key in {key for key, _ in batches}:
            retention_ms = self.topics[key.topic].retention_ms
            if retention_ms is not None and retention_ms != FOREVER_MS:
                self.partitions[key].expire(now_ms - retention_ms)
        self.changed.notify()
