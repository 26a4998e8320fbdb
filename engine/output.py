"""What an epoch writes: records collected by topic and partition, encoded in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from .byte_columns import concat
from .errors import BatchTooLargeError
from .log import TopicPartition
from .partitioner import Partitioner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .byte_columns import ByteColumn, Integers
    from .log import EncodedBatch
    from .plane import Partitioning, RecordBatchCodec

Headers = list[tuple[str, bytes | None]]

DEFAULT_MAX_BATCH_BYTES = 1_000_000
"""Just below Kafka's default ``max.message.bytes`` of 1 MiB."""


class Outgoing(NamedTuple):
    """One encoded batch and where it goes."""

    topic: str
    partition: int
    batch: EncodedBatch


@dataclass(slots=True)
class _Columns:
    """Records for one partition: a part per write, put together when they are encoded."""

    keys: list[ByteColumn] = field(default_factory=list["ByteColumn"])
    values: list[ByteColumn] = field(default_factory=list["ByteColumn"])
    times: list[Integers] = field(default_factory=list["Integers"])
    headers: list[Sequence[tuple[str, bytes | None]]] | None = None
    count: int = 0

    def extend(
        self,
        keys: ByteColumn,
        values: ByteColumn,
        times: Integers,
        headers: Sequence[Sequence[tuple[str, bytes | None]]] | None,
    ) -> None:
        if headers is not None or self.headers is not None:
            own = (
                list[Sequence[tuple[str, bytes | None]]]() if self.headers is None else self.headers
            )
            own.extend([()] * (self.count - len(own)))
            own.extend([()] * len(values) if headers is None else headers)
            self.headers = own
        self.keys.append(keys)
        self.values.append(values)
        self.times.append(times)
        self.count += len(values)


class OutputBuffer:
    """Collects records on the batch thread; the task drains it to the writer.

    Args:
        codec: Encodes record batches.
        partitions: Number of partitions by topic.
        max_batch_bytes: Largest batch by topic; others have ``DEFAULT_MAX_BATCH_BYTES``.
        now_ms: Wall clock, for records without a time of their own.
        partitioner: Makes what tells the partitions of keys, given their number.
    """

    def __init__(
        self,
        codec: RecordBatchCodec,
        partitions: Mapping[str, int],
        max_batch_bytes: Mapping[str, int],
        now_ms: Callable[[], int],
        partitioner: Callable[[int], Partitioning] = Partitioner,
    ) -> None:
        self._new_partitioner = partitioner
        self._codec = codec
        self._partitions = partitions
        self._max_batch_bytes = max_batch_bytes
        self._now_ms = now_ms
        self._partitioners: dict[str, Partitioning] = {}
        self._pending: dict[TopicPartition, _Columns] = {}

    def partition_count(self, topic: str) -> int:
        """Return the number of partitions of a topic."""
        return self._partitions[topic]

    def max_batch_bytes(self, topic: str) -> int:
        """Return the largest batch that a topic takes."""
        return self._max_batch_bytes.get(topic, DEFAULT_MAX_BATCH_BYTES)

    def now_ms(self) -> int:
        """Return the wall-clock time."""
        return self._now_ms()

    def partitioner(self, topic: str) -> Partitioning:
        """Return the partitioner of a topic, which keeps a cache of keys."""
        found = self._partitioners.get(topic)
        if found is None:
            found = self._new_partitioner(self._partitions[topic])
            self._partitioners[topic] = found
        return found

    def write(
        self,
        topic: str,
        keys: ByteColumn,
        values: ByteColumn,
        timestamps_ms: Integers,
        *,
        partitions: Sequence[int] | None = None,
        headers: Sequence[Sequence[tuple[str, bytes | None]]] | None = None,
    ) -> None:
        """Add records to ``topic``, partitioned by key unless ``partitions`` are given."""
        if self._partitions[topic] == 1:
            self._columns(topic, 0).extend(keys, values, timestamps_ms, headers)
            return
        targets = self.partitioner(topic).partitions(keys) if partitions is None else partitions
        if (
            headers is None
            and isinstance(keys, pl.Series)
            and isinstance(values, pl.Series)
            and isinstance(timestamps_ms, pl.Series)
        ):
            wanted = pl.Series(targets)
            for partition in wanted.unique().to_list():
                mask = wanted == partition
                parts = keys.filter(mask), values.filter(mask), timestamps_ms.filter(mask)
                self._columns(topic, partition).extend(*parts, None)
            return
        members: dict[int, list[int]] = {}
        for index, partition in enumerate(targets):
            members.setdefault(partition, []).append(index)
        for partition, indices in members.items():
            self._columns(topic, partition).extend(
                [keys[i] for i in indices],
                [values[i] for i in indices],
                [timestamps_ms[i] for i in indices],
                None if headers is None else [headers[i] for i in indices],
            )

    def _columns(self, topic: str, partition: int) -> _Columns:
        where = TopicPartition(topic, partition)
        found = self._pending.get(where)
        if found is None:
            found = self._pending[where] = _Columns()
        return found

    def fits(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None = None
    ) -> bool:
        """Return whether one record is not larger than its topic takes, compressed if need be."""
        limit = self.max_batch_bytes(topic)
        parts = [key, value, *(part for name, each in headers or () for part in (name, each))]
        if sum(len(part) + 10 for part in parts if part is not None) < limit - 1_000:
            return True
        try:
            self._codec.encode([key], [value], [0], None if headers is None else [headers], limit)
        except BatchTooLargeError:
            return False
        return True

    def drain(self) -> list[Outgoing]:
        """Return everything written since the last call, encoded.

        Raises:
            BatchTooLargeError: If one record alone is larger than its topic takes.
        """
        pending, self._pending = self._pending, {}
        return [
            Outgoing(where.topic, where.partition, batch)
            for where, columns in pending.items()
            for batch in self._codec.encode(
                concat(columns.keys),
                concat(columns.values),
                concat(columns.times),
                columns.headers,
                self.max_batch_bytes(where.topic),
            )
        ]
