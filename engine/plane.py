"""The seats of the data plane: the four hot steps, each behind one small interface.

The reference implementation is Python over well-kept libraries (``engine.reference``) and is the
specification; a native kernel takes the same seats without a change above them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from riverrun.state import Delta, StateReader

    from .batch import RawRecords
    from .byte_columns import ByteColumn, Integers
    from .codec import DecodedValues
    from .log import Chunk, EncodedBatch
    from .schema import Schema


WINDOW = "__window"
"""Column of results of a window table: start of the window, Int64."""

AggregateKind = Literal["count", "count_values", "sum", "mean", "min", "max", "first", "last"]
"""What a window table can keep; ``WindowTable`` says what each means."""


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
        keys: ByteColumn,
        values: ByteColumn,
        timestamps_ms: Integers,
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


class JsonWriter(Protocol):
    """Columns to JSON documents."""

    def write(self, frame: pl.DataFrame) -> ByteColumn | None:
        """Return one object per row, None if there is a column that it cannot write.

        Times are ISO 8601, bytes are base64.

        Raises:
            EncodeError: Naming the first row with NaN or an infinite number.
        """
        ...


class Partitioning(Protocol):
    """Tells the partitions of keys, as Kafka's own producers do."""

    def partitions(self, keys: ByteColumn) -> Integers:
        """Return the partition of each key; those without a key go to one, then to the next."""
        ...


class WindowTable(Protocol):
    """Keyed window aggregates: one accumulator per (slice, key) and named aggregate.

    A slice is the part of event time ``[start, start + slice_ms)``; a tumbling window is one
    slice, a hopping window is several. The table does not know the slice length or the windows:
    it holds what it is given and merges the slices that it is asked for.

    It is a write-back cache over the task's store: reads see the task's own writes, and
    ``drain_delta`` tells what the epoch changed. Values are stored with their type, since reads
    after a restart may come before the first batch.

    By kind of aggregate: ``count`` counts records. All others skip records where their column is
    null: ``count_values`` counts, ``sum`` of nothing is 0, ``mean``, ``min``, ``max``, ``first``
    and ``last`` of nothing are null. ``first`` and ``last`` go by event time, and among equal
    times by order of arrival.
    """

    def update(self, frame: pl.DataFrame, slice_starts: pl.Series) -> None:
        """Add records; all or, if it raises, none of them.

        Args:
            frame: ``KEY`` (never null; text, Int64, Boolean, Binary, or a Struct for composite
                keys), ``TIME`` and, except for ``count``, one input column named like its
                aggregate. For ``sum`` it is Int64 or Float64, for ``mean`` Float64. From batch to
                batch a column may change between Int64, Float64 and Null: the wider type is taken.
            slice_starts: Int64, start of the slice of each record, milliseconds.
        """
        ...

    def read(
        self, windows: Sequence[int], size: int, keys: pl.Series | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield results of windows: of each, its slices merged by key.

        A plain read: nothing is removed. The frames are read to the end before the table is used
        otherwise. It costs by the rows of the slices, however many windows they are in.

        Args:
            windows: Their starts, in order. A window is all slices with
                ``start <= slice start < start + size``; it need not have any.
            size: Length of a window, milliseconds.
            keys: One for each of ``windows``: only this key of that window. A start is there once
                per key then, and each pair once. None for all keys, and each start is there once.

        Yields:
            ``WINDOW``, ``KEY`` in the form it was given (struct fields ``f0``, ``f1``, ...) and
            one column per aggregate, in the order of the definition. One row per window and key
            that has records, in order of windows; those of one window in the same order each
            time. Frames of at most about 100,000 rows, none of them empty.
        """
        ...

    def remove_below(self, start: int) -> None:
        """Drop all slices before ``start``, as one range delete."""
        ...

    def slices(self) -> Sequence[int]:
        """Return the starts of all slices held, in order; valid until the table is changed."""
        ...

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        ...


class SessionResults(NamedTuple):
    """Sessions as columns, keys being of one type.

    Attributes:
        frame: ``KEY`` and one column per aggregate, in the order of the definition.
        starts: Int64, time of the first record of each, milliseconds.
        ends: Int64, the end of each, milliseconds.
    """

    frame: pl.DataFrame
    starts: pl.Series
    ends: pl.Series


class SessionRows(NamedTuple):
    """What a session table changed lately, for whoever goes on without it.

    Attributes:
        rows: State key of a record key, and its row; None for none.
        timers: Time, state key of a record key, and whether that timer is set or removed.
    """

    rows: Sequence[tuple[bytes, bytes | None]]
    timers: Sequence[tuple[int, bytes, bool]]


class OutOfScopeError(Exception):
    """A session table cannot be certain of this and has not begun with it: go on without it."""


class SessionTable(Protocol):
    """Keyed sessions: spans of activity that end with a silence, and aggregates of each.

    It keeps the same rows and timers as the operator does without it. The operator decides what
    results mean; aggregates are those of ``WindowTable``.
    """

    def add(
        self,
        keys: pl.Series | Sequence[Any],
        times: pl.Series,
        inputs: pl.DataFrame,
        watermark_ms: int,
        *,
        tells_changed: bool,
    ) -> tuple[Sequence[int], Iterator[SessionResults]]:
        """Add records; return the indices of late ones, and the sessions that changed.

        Args:
            keys: A column of keys, or a list of them where they are of several types.
            times: Event times, Int64.
            inputs: One column per aggregate that reads one, named like it.
            watermark_ms: How far event time has come.
            tells_changed: Whether changed sessions are wanted, in the order of their keys here.

        Raises:
            OutOfScopeError: Something is not certain to be right; nothing was added.
        """
        ...

    def end(self, watermark_ms: int) -> Iterator[SessionResults]:
        """Remove the sessions that have ended; yield them in order of their ends, then of keys.

        Raises:
            OutOfScopeError: A row in the store is not one of its own; nothing has ended.
        """
        ...

    def export(self) -> SessionRows:
        """Return what the last two epochs changed; the store has all else."""
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

    def json_writer(self) -> JsonWriter:
        """Return what writes columns as documents."""
        ...

    def partitioner(self, partitions: int) -> Partitioning:
        """Return what tells the partitions of keys in a topic of so many."""
        ...

    def window_table(
        self, aggregates: Mapping[str, AggregateKind], prefix: bytes, reader: StateReader
    ) -> WindowTable:
        """Return a table for the named aggregates, keeping its rows below ``prefix``.

        A user's own aggregates do not come here: the operator keeps those itself.
        """
        ...

    def session_table(
        self,
        aggregates: Mapping[str, AggregateKind],
        input_types: Mapping[str, pl.DataType],
        spans_ms: tuple[int, int],
        prefixes: tuple[bytes, bytes],
        reader: StateReader,
    ) -> SessionTable | None:
        """Return a table for sessions; None if the operator does as well without one.

        Args:
            aggregates: The aggregates by name.
            input_types: Declared type of what they read, by name, where there is one.
            spans_ms: The gap that ends a session, and the allowed lateness.
            prefixes: What the state keys of rows and of timers begin with.
            reader: The committed state.
        """
        ...
