"""The seats of the data plane: the four hot steps, each behind one small interface.

The reference implementation is Python over well-kept libraries (``engine.reference``) and is the
specification; a native kernel takes the same seats without a change above them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from riverrun.state import Delta, StateReader

    from .batch import RawRecords
    from .codec import DecodedValues
    from .log import Chunk, EncodedBatch
    from .schema import Schema


class RecordBatchCodec(Protocol):
    """Kafka record batches (format v2) to columns of bytes and back."""

    def decode(self, chunk: Chunk) -> RawRecords:
        """Decode all record batches of a chunk; control and aborted batches are left out.

        Raises:
            CorruptBatchError: A CRC does not match, or a batch cannot be parsed.
        """
        ...

    def encode(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Sequence[tuple[str, bytes | None]]] | None,
        max_batch_bytes: int,
    ) -> list[EncodedBatch]:
        """Encode records in order as lz4 batches of at most ``max_batch_bytes`` each.

        Raises:
            BatchTooLargeError: If one record alone is larger.
        """
        ...


class JsonProjector(Protocol):
    """JSON documents to rows or columns of a declared schema."""

    def project(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Decode documents; bad ones are isolated with position and reason."""
        ...


class WindowTable(Protocol):
    """Keyed window aggregates: one accumulator per (window start, key).

    A write-back cache over the task's store: ``drain_delta`` tells what the epoch changed.
    """

    def update(self, frame: pl.DataFrame, window_starts: pl.Series) -> None:
        """Add a batch: ``frame`` has ``KEY``, ``TIME`` and the value columns."""
        ...

    def fire(self, window_starts_below: int, limit: int) -> pl.DataFrame | None:
        """Take out finished rows, oldest window first.

        Returns:
            At most about ``limit`` rows of windows whose start is below the bound, with ``KEY``,
            ``window_start`` and one column per aggregate; None when there are no more. The rows
            are removed from the table.
        """
        ...

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        ...


class Plane(Protocol):
    """A set of implementations that fit together."""

    @property
    def name(self) -> str:
        """``reference`` or ``kernel``, told at start-up and in metrics."""
        ...

    @property
    def record_batches(self) -> RecordBatchCodec:
        """Decode and encode of record batches."""
        ...

    def json_projector(self, schema: Schema) -> JsonProjector:
        """Return a projector for one schema."""
        ...

    def window_table(
        self, aggregates: Mapping[str, Any], prefix: bytes, reader: StateReader
    ) -> WindowTable:
        """Return a table for the named aggregates, keeping its rows below ``prefix``."""
        ...
