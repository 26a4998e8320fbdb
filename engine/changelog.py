"""The changelog of a task: deltas and commit records, as written and as read back.

The last record of every epoch is its *commit record*: where the task stands. It is the authority
on restart; the group's offsets are for lag tools only.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from riverrun.state import Delta, StateError, decode_delta, encode_delta

from .errors import CorruptBatchError, StateMismatchError

if TYPE_CHECKING:
    from .batch import RawRecords

FORMAT_VERSION = 1

DELTA_KEY = b"d"
COMMIT_KEY = b"c"

_PIECE_HEAD = struct.Struct("<QQI")  # generation, epoch, index of the piece


class InputPosition(msgspec.Struct, frozen=True, array_like=True):
    """Where a task stands in one input partition.

    Attributes:
        topic: Input topic.
        partition: Input partition.
        offset: Next offset to read.
        max_event_time_ms: Latest event time seen, None before the first record.
        watermark_ms: Watermark; ``NO_WATERMARK`` before the first record.
        idle: Whether it was idle.
    """

    topic: str
    partition: int
    offset: int
    max_event_time_ms: int | None
    watermark_ms: int
    idle: bool


class UpstreamMark(msgspec.Struct, frozen=True, array_like=True):
    """Watermark of one task upstream of a repartition input."""

    step: str
    upstream: int
    watermark_ms: int
    idle: bool


class SnapshotRef(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot that is complete in storage, and where the changelog goes on from it."""

    id: str
    epoch: int
    changelog_offset: int


class CommitRecord(msgspec.Struct, frozen=True):
    """Where a task stands at the end of an epoch.

    Attributes:
        job: Name of the job.
        lineage: Made once, at the very first start: tells this history from that of a job of the
            same name whose topics were deleted.
        subtopology: Of the task.
        partition: Of the task.
        generation: Grows with each start of the task, and no two starts have the same: in a
            changelog without transactions it tells whose records count.
        epoch: Number of the epoch, growing by one.
        pieces: Number of delta records before this one.
        positions: Where it stands in its inputs.
        upstream: Watermarks of upstream tasks.
        layout: What each state table holds.
        input_partitions: Number of partitions of each input topic.
        snapshot: The newest complete snapshot.
        created_ms: Wall clock when it was written.
        previous_generation: Generation of the epoch before, which this one goes on from.
        merged: Watermark of each step with several inputs. It may be ahead of what follows from
            the watermarks of its inputs: one of them was idle, and woke up.
        origin: Changelog offset at which the state began, empty: above 0 after a fresh start that
            was allowed although earlier work was there.
        version: Format of this record.
    """

    job: str
    lineage: str
    subtopology: str
    partition: int
    generation: int
    epoch: int
    pieces: int
    positions: tuple[InputPosition, ...]
    upstream: tuple[UpstreamMark, ...]
    layout: dict[str, str]
    input_partitions: dict[str, int]
    snapshot: SnapshotRef | None
    created_ms: int
    previous_generation: int = 0
    merged: dict[str, int] = {}
    origin: int = 0
    version: int = FORMAT_VERSION


class StoreMeta(msgspec.Struct, frozen=True):
    """What the local store remembers with its newest epoch.

    Attributes:
        commit: The commit record of that epoch.
        changelog_offset: Where the changelog goes on after it.
    """

    commit: CommitRecord
    changelog_offset: int


class ReplayedEpoch(NamedTuple):
    """One committed epoch, read back."""

    delta: Delta
    commit: CommitRecord
    next_offset: int


def encode_commit(commit: CommitRecord) -> bytes:
    """Return a commit record as the value of a changelog record."""
    return msgspec.msgpack.encode(commit)


def decode_commit(data: bytes) -> CommitRecord:
    """Return the commit record in the value of a changelog record.

    Raises:
        CorruptBatchError: If it cannot be read.
        StateMismatchError: If a newer riverrun wrote it.
    """
    try:
        commit = msgspec.msgpack.decode(data, type=CommitRecord)
    except msgspec.DecodeError as error:
        raise CorruptBatchError(f"a commit record in the changelog is damaged: {error}") from error
    if commit.version > FORMAT_VERSION:
        raise StateMismatchError(
            f"the changelog of job {commit.job!r} was written by a newer riverrun (format "
            f"{commit.version}, this one reads {FORMAT_VERSION}): upgrade this worker"
        )
    return commit


def encode_epoch(delta: Delta, generation: int, epoch: int) -> list[bytes]:
    """Return a delta as values of changelog records."""
    return [
        _PIECE_HEAD.pack(generation, epoch, index) + piece
        for index, piece in enumerate(encode_delta(delta))
    ]


_CHANCE_BITS = 16


def next_generation(seen: int, chance: int) -> int:
    """Return a generation above all ``seen``; ``chance`` tells apart two that start at once.

    Example:
        >>> next_generation(next_generation(0, 7), 5) > next_generation(0, 65_535)
        True
    """
    return (((seen >> _CHANCE_BITS) + 1) << _CHANCE_BITS) | (chance % (1 << _CHANCE_BITS))


class History:
    """Which commit records count, going forwards through a changelog.

    With transactions all do. Without them a former owner may still write while a new one starts:

    - Whoever writes a commit record claims the task: what lower generations write later is void.
    - A commit record counts if it goes on from the newest that counts. One that does not was
      written by an owner who had not seen the epochs before it, and who will notice.

    Args:
        newest: The commit record to go on from; None to begin with the first that comes.
    """

    def __init__(self, newest: CommitRecord | None = None) -> None:
        self.newest = newest
        self.generation = newest.generation if newest is not None else 0
        """The highest seen so far."""
        self.is_certain = newest is not None
        """Whether ``newest`` is known to count: given, or going on from another one."""

    def take(self, commit: CommitRecord) -> bool:
        """Take in the next commit record; return whether it counts."""
        if commit.generation < self.generation:
            return False
        self.generation = commit.generation
        if self.newest is not None:
            if _goes_on(self.newest, commit):
                self.is_certain = True
            elif self.is_certain or commit.epoch <= self.newest.epoch:
                # Not having seen what was before, the first may have been one that does not
                # count. The epoch of such a one is never beyond those that do.
                return False
        self.newest = commit
        return True


def _goes_on(before: CommitRecord, after: CommitRecord) -> bool:
    return (
        after.lineage == before.lineage
        and after.epoch == before.epoch + 1
        and after.previous_generation == before.generation
    )


class ChangelogReplay:
    """Puts epochs together from changelog records in offset order.

    Pieces without their commit record, and epochs that do not count, are left out: neither was
    ever committed.

    Args:
        base: The commit record of the state that the replay is for; None for none at all.
    """

    def __init__(self, base: CommitRecord | None = None) -> None:
        self._history = History(base)
        # Also without a base: then the replay begins with the first of all epochs.
        self._history.is_certain = True
        # {(generation, epoch): pieces}: owners without transactions may write in between.
        self._pieces: dict[tuple[int, int], list[bytes]] = {}

    def feed(self, records: RawRecords) -> list[ReplayedEpoch]:
        """Take in records; return the epochs that they complete.

        Raises:
            CorruptBatchError: If a record is not what the engine writes.
        """
        done: list[ReplayedEpoch] = []
        for offset, key, value in zip(records.offsets, records.keys, records.values, strict=True):
            if value is None or key not in (DELTA_KEY, COMMIT_KEY):
                raise CorruptBatchError(
                    f"topic {records.topic}, partition {records.partition}, offset {offset} is "
                    "no changelog record; only riverrun may write there"
                )
            if key == DELTA_KEY:
                self._feed_piece(value)
                continue
            commit = decode_commit(value)
            if not self._history.take(commit):
                continue
            done.append(ReplayedEpoch(self._complete(commit), commit, offset + 1))
        return done

    def _feed_piece(self, value: bytes) -> None:
        if len(value) < _PIECE_HEAD.size:
            raise CorruptBatchError("a delta record in the changelog is cut off")
        generation, epoch, index = _PIECE_HEAD.unpack_from(value)
        if generation < self._history.generation:
            return
        of = (generation, epoch)
        if index == 0 or of not in self._pieces:
            self._pieces[of] = []
        self._pieces[of].append(value[_PIECE_HEAD.size :])

    def _complete(self, commit: CommitRecord) -> Delta:
        pieces = self._pieces.get((commit.generation, commit.epoch), [])
        # What is left of others can only be of owners that are superseded by now, or start now.
        self._pieces = {of: each for of, each in self._pieces.items() if of[0] > commit.generation}
        if len(pieces) != commit.pieces:
            raise CorruptBatchError(
                f"epoch {commit.epoch} of task {commit.subtopology}-{commit.partition} has "
                f"{len(pieces)} of {commit.pieces} delta records in the changelog: records are "
                "missing; restore from a snapshot"
            )
        try:
            return decode_delta(pieces)
        except StateError as error:
            raise CorruptBatchError(f"a delta in the changelog is damaged: {error}") from error
