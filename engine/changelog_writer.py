"""One owner's epochs: what each goes on from, and how it is written to the changelog."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from .changelog import (
    COMMIT_KEY,
    DELTA_KEY,
    encode_commit,
    encode_epoch,
    next_generation,
)
from .errors import FencedError

if TYPE_CHECKING:
    from riverrun.state import Delta

    from .changelog import CommitRecord
    from .log import EncodedBatch, TopicPartition
    from .plane import RecordBatchCodec
    from .restore import Restored


class ChangelogWriter:
    """Knows where the task's history stands, from its restore on.

    Args:
        partition: The changelog partition, for messages.
        restored: What was found there.
        fenced: Whether the log keeps other owners from writing; if not, they are noticed here.
    """

    def __init__(self, partition: TopicPartition, restored: Restored, *, fenced: bool) -> None:
        before = restored.commit or restored.given_up
        # No two starts may share a generation, not even two that know nothing of each other.
        self.generation = next_generation(restored.generation, uuid.uuid4().int)
        self.previous_generation = before.generation if before else 0
        self.epoch = before.epoch if before else 0
        self.lineage = before.lineage if before else uuid.uuid4().hex
        self.origin = restored.commit.origin if restored.commit else restored.changelog_offset
        self._partition = partition
        self._end = restored.changelog_offset
        self._fenced = fenced
        self._pieces: list[bytes] = []

    def add_delta(self, delta: Delta) -> int:
        """Take in the delta of the next epoch; return the number of records it takes."""
        self._pieces = encode_epoch(delta, self.generation, self.epoch + 1) if delta else []
        return len(self._pieces)

    def encode(
        self, commit: CommitRecord, codec: RecordBatchCodec, max_batch_bytes: int
    ) -> tuple[list[EncodedBatch], int]:
        """Return the delta and its commit record as batches, and the bytes of the delta."""
        pieces, self._pieces = self._pieces, []
        keys: list[bytes | None] = [*[DELTA_KEY] * len(pieces), COMMIT_KEY]
        values: list[bytes | None] = [*pieces, encode_commit(commit)]
        times = [commit.created_ms] * len(values)
        return codec.encode(keys, values, times, None, max_batch_bytes), sum(map(len, pieces))

    def on_committed(self, commit: CommitRecord, written_to: int) -> None:
        """Go on from ``commit``, whose last record is before offset ``written_to``.

        Raises:
            FencedError: Without a fence, the offsets tell that another owner writes too. Whose
                epochs count is decided by ``History``; who may be the wrong one ends here.
        """
        expected = self._end + commit.pieces + 1
        if not self._fenced and written_to != expected:
            raise FencedError(
                f"another worker writes to {self._partition} too: offset {written_to} was reached "
                f"instead of {expected}"
            )
        self._end = written_to
        self.epoch, self.previous_generation = commit.epoch, commit.generation
