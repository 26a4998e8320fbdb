"""Topics, batches, owners and groups of an embedded log, as blocking calls for one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from riverrun.engine.batch_header import with_base_offset
from riverrun.engine.errors import (
    BatchTooLargeError,
    FencedError,
    OffsetOutOfRangeError,
    TopicMissingError,
    WriteError,
)
from riverrun.engine.log import Chunk, OffsetRange, TopicInfo, TopicPartition
from riverrun.engine.membership import GroupState
from riverrun.engine.topic_rules import check_same_partitions, resolve_topic

from .database import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from riverrun.engine.log import EncodedBatch, TopicSpec

CHUNK_BYTES_MAX = 1 << 20
"""What one read returns of one partition, at least one batch: bounds the work between barriers."""

READ_BYTES_MAX = 16 << 20
"""What one read returns of all partitions: bounds memory and the time that others wait."""

EXPIRE_BATCHES_MAX = 1_000
"""What one look at the retention deletes of one partition: bounds the time of the write lock."""

WRITE_TIMEOUT_MS = 10_000
"""How long calls without a deadline of their own wait for the write lock."""


class LocalStorage:
    """What is stored in one directory. All methods block, and belong to one thread."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        # Topics are never deleted, so what is known of them stays true.
        self._partition_ids: dict[TopicPartition, int] = {}
        self._max_batch_bytes: dict[str, int] = {}
        self._seen_version: int | None = None

    def open(self, timeout_ms: int) -> None:
        """Open or create it; see ``Database.open``."""
        self._database.open(timeout_ms)

    def close(self) -> None:
        """Close it."""
        self._database.close()

    # --- topics ----------------------------------------------------------------------------------

    def describe_topic(self, name: str) -> TopicInfo | None:
        """Return the topic, None if there is none."""
        with self._database.reading() as connection:
            return _topic(connection, name)

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that are missing, all or none."""
        wanted = [resolve_topic(spec) for spec in specs]
        with self._database.writing(WRITE_TIMEOUT_MS) as connection:
            for topic in wanted:
                existing = _topic(connection, topic.name)
                if existing is not None:
                    check_same_partitions(existing, topic)
                    continue
                connection.execute(
                    "INSERT INTO topics (name, partitions, retention_ms, max_batch_bytes)"
                    " VALUES (?, ?, ?, ?)",
                    (topic.name, topic.partitions, topic.retention_ms, topic.max_batch_bytes),
                )
                connection.executemany(
                    "INSERT INTO partitions (topic, partition) VALUES (?, ?)",
                    [(topic.name, partition) for partition in range(topic.partitions)],
                )

    def _partition_id(self, key: TopicPartition) -> int:
        known = self._partition_ids.get(key)
        if known is not None:
            return known
        row = self._database.connection.execute(
            "SELECT partitions.id, max_batch_bytes FROM partitions JOIN topics ON name = topic"
            " WHERE topic = ? AND partition = ?",
            key,
        ).fetchone()
        if row is None:
            raise TopicMissingError(f"{key} does not exist; create the topic first")
        self._partition_ids[key], self._max_batch_bytes[key.topic] = row
        return self._partition_ids[key]

    def _range(self, key: TopicPartition) -> OffsetRange:
        row = self._database.connection.execute(
            "SELECT start_offset, end_offset FROM partitions WHERE id = ?",
            (self._partition_id(key),),
        ).fetchone()
        return OffsetRange(*row)

    def offsets(self, keys: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """Return the range of each partition, all of one moment."""
        with self._database.reading():
            return {key: self._range(key) for key in keys}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offsets, all or none."""
        with self._database.writing(WRITE_TIMEOUT_MS):
            for key, offset in before.items():
                start, end = self._range(key)
                if offset > end:
                    raise OffsetOutOfRangeError(
                        f"cannot delete the records of {key} before {offset}: it ends at {end}"
                    )
                if offset > start:
                    self._delete_before(self._partition_id(key), offset)

    def _delete_before(self, partition_id: int, offset: int) -> None:
        execute = self._database.connection.execute
        execute("UPDATE partitions SET start_offset = ? WHERE id = ?", (offset, partition_id))
        execute(
            "DELETE FROM batches WHERE partition_id = ? AND next_offset <= ?",
            (partition_id, offset),
        )

    def expire(self, now_ms: int) -> None:
        """Delete from the start of each partition what is past its topic's retention."""
        with self._database.writing(0) as connection:
            partitions = connection.execute(
                "SELECT id, start_offset, retention_ms FROM partitions JOIN topics ON name = topic"
                " WHERE retention_ms >= 0"
            ).fetchall()
            for partition_id, start, retention_ms in partitions:
                offset = start
                for next_offset, max_timestamp_ms in connection.execute(
                    "SELECT next_offset, max_timestamp_ms FROM batches"
                    " WHERE partition_id = ? AND next_offset > ? ORDER BY next_offset LIMIT ?",
                    (partition_id, start, EXPIRE_BATCHES_MAX),
                ):
                    if max_timestamp_ms >= now_ms - retention_ms:
                        break
                    offset = next_offset
                if offset > start:
                    self._delete_before(partition_id, offset)

    # --- reading ---------------------------------------------------------------------------------

    def changed_ends(self) -> dict[TopicPartition, int] | None:
        """Return where all partitions end, None if no other process committed since last asked."""
        connection = self._database.connection
        ((version,),) = connection.execute("PRAGMA data_version").fetchall()
        if version == self._seen_version:
            return None
        with self._database.reading():
            rows = connection.execute("SELECT topic, partition, end_offset FROM partitions")
            ends = {TopicPartition(topic, partition): end for topic, partition, end in rows}
        self._seen_version = version
        return ends

    def read(
        self, positions: Mapping[TopicPartition, int]
    ) -> tuple[list[Chunk], dict[TopicPartition, int]]:
        """Return a chunk of each partition that has something, and where the partitions end."""
        chunks: list[Chunk] = []
        ends: dict[TopicPartition, int] = {}
        size = 0
        with self._database.reading():
            for key, position in positions.items():
                start, end = self._range(key)
                ends[key] = end
                if not start <= position <= end:
                    raise OffsetOutOfRangeError(
                        f"offset {position} of {key} is not in the log, which holds"
                        f" {start} to {end}"
                    )
                if position < end and size < READ_BYTES_MAX:
                    chunks.append(self._read_chunk(key, position))
                    size += len(chunks[-1].payload)
        return chunks, ends

    def _read_chunk(self, key: TopicPartition, position: int) -> Chunk:
        payloads: list[bytes] = []
        size, reached = 0, position
        rows = self._database.connection.execute(
            "SELECT next_offset, payload FROM batches"
            " WHERE partition_id = ? AND next_offset > ? ORDER BY next_offset",
            (self._partition_id(key), position),
        )
        for next_offset, payload in rows:
            if payloads and size + len(payload) > CHUNK_BYTES_MAX:
                break
            payloads.append(payload)
            size += len(payload)
            reached = next_offset
        rows.close()
        return Chunk(key, position, reached, b"".join(payloads))

    # --- writing ---------------------------------------------------------------------------------

    def open_owner(self, writer_id: str, timeout_ms: int) -> tuple[int, int]:
        """Return a new owner of ``writer_id``; every earlier one is fenced from now on."""
        with self._database.writing(timeout_ms) as connection:
            connection.execute(
                "INSERT INTO writers (writer_id, epoch) VALUES (?, 0)"
                " ON CONFLICT (writer_id) DO UPDATE SET epoch = epoch + 1",
                (writer_id,),
            )
            row = connection.execute(
                "SELECT id, epoch FROM writers WHERE writer_id = ?", (writer_id,)
            ).fetchone()
        return (row[0], row[1])

    def _check_owner(self, owner: tuple[int, int]) -> None:
        writer_id, epoch = self._database.connection.execute(
            "SELECT writer_id, epoch FROM writers WHERE id = ?", (owner[0],)
        ).fetchone()
        if epoch != owner[1]:
            raise FencedError(
                f"writer {writer_id!r} of epoch {owner[1]} was fenced by epoch {epoch}"
            )

    def _end_for(self, key: TopicPartition) -> int:
        try:
            return self._range(key).end
        except TopicMissingError as error:
            raise WriteError(f"cannot write: {error}") from error

    def _check_size(self, key: TopicPartition, batch: EncodedBatch) -> None:
        limit = self._max_batch_bytes[key.topic]
        if len(batch.payload) > limit:
            raise BatchTooLargeError(
                f"batch of {len(batch.payload)} bytes for {key} is larger than the topic's"
                f" max.message.bytes of {limit}"
            )

    def check(
        self, owner: tuple[int, int], batches: Sequence[tuple[TopicPartition, EncodedBatch]]
    ) -> dict[TopicPartition, int]:
        """Return where partitions would end if ``batches`` were written now.

        Raises:
            FencedError: There is a later owner.
            WriteError: One of them would be refused.
        """
        ends: dict[TopicPartition, int] = {}
        with self._database.reading():
            self._check_owner(owner)
            for key, batch in batches:
                end = ends[key] if key in ends else self._end_for(key)
                self._check_size(key, batch)
                ends[key] = end + batch.record_count
        return ends

    def write(
        self,
        owner: tuple[int, int],
        batches: Sequence[tuple[TopicPartition, EncodedBatch]],
        timeout_ms: int,
    ) -> dict[TopicPartition, int]:
        """Write ``batches``, all or none, and return where their partitions end.

        Raises:
            FencedError: There is a later owner.
            WriteError: Refused.
            OutcomeUnknownError: See ``Database.writing``.
        """
        if not batches:
            return self.check(owner, batches)
        ends: dict[TopicPartition, int] = {}
        rows: list[tuple[int, int, int, int, bytes]] = []
        with self._database.writing(timeout_ms) as connection:
            # Inside the transaction: nobody can become owner between the check and the commit.
            self._check_owner(owner)
            for key, batch in batches:
                base = ends[key] if key in ends else self._end_for(key)
                self._check_size(key, batch)
                ends[key] = base + batch.record_count
                payload = with_base_offset(batch.payload, base)
                rows.append(
                    (self._partition_id(key), base, ends[key], batch.max_timestamp_ms, payload)
                )
            connection.executemany(
                "INSERT INTO batches (partition_id, base_offset, next_offset, max_timestamp_ms,"
                " payload) VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            connection.executemany(
                "UPDATE partitions SET end_offset = ? WHERE id = ?",
                [(end, self._partition_id(key)) for key, end in ends.items()],
            )
        return ends

    # --- groups ----------------------------------------------------------------------------------

    def load_group(self, name: str) -> tuple[int, GroupState]:
        """Return the version and the state of a group; version 0 if it does not exist."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT version, state FROM groups WHERE name = ?", (name,)
            ).fetchone()
        if row is None:
            return 0, GroupState()
        return row[0], msgspec.msgpack.decode(row[1], type=GroupState)

    def store_group(self, name: str, state: GroupState, version: int) -> bool:
        """Store the state if the group still has ``version``; return whether it had."""
        encoded = msgspec.msgpack.encode(state)
        with self._database.writing(WRITE_TIMEOUT_MS) as connection:
            if version == 0:
                cursor = connection.execute(
                    "INSERT INTO groups (name, version, state) VALUES (?, 1, ?)"
                    " ON CONFLICT DO NOTHING",
                    (name, encoded),
                )
            else:
                cursor = connection.execute(
                    "UPDATE groups SET version = version + 1, state = ?"
                    " WHERE name = ? AND version = ?",
                    (encoded, name, version),
                )
            return cursor.rowcount == 1

    def commit_group_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember how far a group is."""
        with self._database.writing(WRITE_TIMEOUT_MS) as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO group_offsets (group_name, topic, partition, next_offset)"
                " VALUES (?, ?, ?, ?)",
                [(group, *key, offset) for key, offset in offsets.items()],
            )

    def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        """Return how far a group is."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT topic, partition, next_offset FROM group_offsets WHERE group_name = ?",
                (group,),
            )
            return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}


def _topic(connection: sqlite3.Connection, name: str) -> TopicInfo | None:
    row = connection.execute(
        "SELECT name, partitions, retention_ms, max_batch_bytes FROM topics WHERE name = ?",
        (name,),
    ).fetchone()
    return None if row is None else TopicInfo(*row)
