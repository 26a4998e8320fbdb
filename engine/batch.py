"""Batches: what moves through a chain, as columns or as rows, converted only where needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from .schema import Schema

if TYPE_CHECKING:
    from collections.abc import Sequence

TIME = "__time"
"""Column with the event time, Int64, milliseconds since the Unix epoch."""
KEY = "__key"
"""Column with the key; absent as long as a stream has no key."""
POSITION = "__position"
"""Column with the index of the record in its origin, UInt32."""

_RESERVED = (TIME, KEY, POSITION)


@dataclass(frozen=True, slots=True)
class RawRecords:
    """Decoded record batches of one partition: columns of bytes, nothing interpreted.

    Attributes:
        topic: Where they are from.
        partition: Where they are from.
        offsets: Offset of each record.
        timestamps_ms: Timestamp of each record as the log has it; -1 where it has none.
        keys: Key of each record.
        values: Value of each record; None is a tombstone.
        headers: Headers of each record; None if no record has any.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Sequence[tuple[str, bytes | None]]] | None = None

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.offsets)

    def coordinates(self, index: int) -> str:
        """Return where a record is, for messages: ``topic orders, partition 3, offset 42``."""
        return f"topic {self.topic}, partition {self.partition}, offset {self.offsets[index]}"


class Batch:
    """Records that move together: values with event times, keys and positions in their origin.

    Immutable. It holds columns (a Polars frame), rows (Python objects), or both once converted.
    Adjacent operators hand the same batch on; a conversion is done once and kept.

    Args:
        schema: Columns and row type; None for rows of unknown form.
        origin: The source records it came from, None behind a window or a repartition.
    """

    __slots__ = ("_frame", "_keys", "_positions", "_rows", "_times", "origin", "schema")

    def __init__(
        self,
        schema: Schema | None,
        *,
        frame: pl.DataFrame | None = None,
        rows: list[Any] | None = None,
        times: list[int] | None = None,
        keys: list[Any] | None = None,
        positions: list[int] | None = None,
        origin: RawRecords | None = None,
    ) -> None:
        self.schema = schema
        self.origin = origin
        self._frame = frame
        self._rows = rows
        self._times = times
        self._keys = keys
        self._positions = positions

    @staticmethod
    def of_rows(
        rows: list[Any],
        times: list[int],
        *,
        keys: list[Any] | None = None,
        positions: list[int] | None = None,
        schema: Schema | None = None,
        origin: RawRecords | None = None,
    ) -> Batch:
        """Return a batch of Python objects.

        Args:
            rows: The values.
            times: Event time of each, milliseconds since the Unix epoch.
            keys: Key of each; None for a stream without keys.
            positions: Index in ``origin`` of each; None if unknown.
            schema: Schema of the rows, None if they have none.
            origin: The source records they came from.
        """
        return Batch(schema, rows=rows, times=times, keys=keys, positions=positions, origin=origin)

    @staticmethod
    def of_frame(
        frame: pl.DataFrame, *, schema: Schema | None = None, origin: RawRecords | None = None
    ) -> Batch:
        """Return a batch of columns; ``frame`` has the column ``TIME``, and maybe ``KEY``."""
        return Batch(schema or frame_schema(frame), frame=frame, origin=origin)

    def __len__(self) -> int:
        """Return the number of records."""
        if self._rows is not None:
            return len(self._rows)
        assert self._frame is not None
        return self._frame.height

    @property
    def is_columnar(self) -> bool:
        """Whether columns are at hand without a conversion."""
        return self._frame is not None

    @property
    def has_rows(self) -> bool:
        """Whether rows are at hand without a conversion."""
        return self._rows is not None

    @property
    def has_keys(self) -> bool:
        """Whether the records have keys."""
        if self._frame is not None:
            return KEY in self._frame.columns
        return self._keys is not None

    # --- the two forms -----------------------------------------------------------------------

    def frame(self) -> pl.DataFrame:
        """Return value columns together with ``TIME`` and, where known, ``KEY``, ``POSITION``.

        Raises:
            TypeError: If the rows do not fit one set of columns.
        """
        if self._frame is None:
            assert self._rows is not None
            assert self._times is not None
            values = rows_to_frame(self._rows, self.schema)
            extra = [pl.Series(TIME, self._times, dtype=pl.Int64)]
            if self._keys is not None:
                extra.append(key_series(self._keys))
            if self._positions is not None:
                extra.append(pl.Series(POSITION, self._positions, dtype=pl.UInt32))
            self._frame = values.with_columns(extra) if values.width else pl.DataFrame(extra)
            if self.schema is None:
                self.schema = frame_schema(self._frame)
        return self._frame

    def values_frame(self) -> pl.DataFrame:
        """Return the value columns alone."""
        frame = self.frame()
        return frame.drop([name for name in _RESERVED if name in frame.columns])

    def rows(self) -> list[Any]:
        """Return the values as Python objects of the schema's record type."""
        if self._rows is None:
            assert self._frame is not None
            schema = self.schema or frame_schema(self._frame)
            self._rows = schema.to_rows(self._frame)
        return self._rows

    def times(self) -> list[int]:
        """Return the event times, milliseconds since the Unix epoch."""
        if self._times is None:
            assert self._frame is not None
            self._times = self._frame.get_column(TIME).to_list()
        return self._times

    def keys(self) -> list[Any]:
        """Return the keys; all None for a stream without keys."""
        if self._keys is None:
            if self._frame is not None and KEY in self._frame.columns:
                self._keys = keys_to_list(self._frame.get_column(KEY))
            else:
                return [None] * len(self)
        return self._keys

    def positions(self) -> list[int] | None:
        """Return the index of each record in ``origin``, None if unknown."""
        if self._positions is None and self._frame is not None and POSITION in self._frame.columns:
            self._positions = self._frame.get_column(POSITION).to_list()
        return self._positions

    # --- derived batches ---------------------------------------------------------------------

    def take(self, indices: list[int]) -> Batch:
        """Return the records at ``indices``, in that order, in every form at hand.

        Rows are kept where there are rows: those without a schema may each have other fields,
        which columns would fill with nulls.
        """
        if self._frame is not None:
            kept = None if self._rows is None else [self._rows[i] for i in indices]
            return Batch(self.schema, frame=self._frame[indices], rows=kept, origin=self.origin)
        rows, times, keys, positions = self._rows, self._times, self._keys, self._positions
        assert rows is not None
        assert times is not None
        return Batch(
            self.schema,
            rows=[rows[i] for i in indices],
            times=[times[i] for i in indices],
            keys=None if keys is None else [keys[i] for i in indices],
            positions=None if positions is None else [positions[i] for i in indices],
            origin=self.origin,
        )

    def with_frame(self, frame: pl.DataFrame, schema: Schema | None = None) -> Batch:
        """Return a batch of other columns; the reserved columns must be in ``frame``."""
        return Batch(schema or frame_schema(frame), frame=frame, origin=self.origin)

    def with_values(self, rows: list[Any], schema: Schema | None = None) -> Batch:
        """Return a batch with other values for the same records."""
        assert len(rows) == len(self)
        return Batch(
            schema,
            rows=rows,
            times=self.times(),
            keys=self.keys() if self.has_keys else None,
            positions=self.positions(),
            origin=self.origin,
        )

    def with_expanded(
        self, rows: list[Any], parents: list[int], schema: Schema | None = None
    ) -> Batch:
        """Return a batch of other values, each with time, key and position of a parent record."""
        times, positions = self.times(), self.positions()
        keys = self.keys() if self.has_keys else None
        return Batch(
            schema,
            rows=rows,
            times=[times[i] for i in parents],
            keys=None if keys is None else [keys[i] for i in parents],
            positions=None if positions is None else [positions[i] for i in parents],
            origin=self.origin,
        )

    def with_keys(self, keys: list[Any]) -> Batch:
        """Return the same records under other keys."""
        assert len(keys) == len(self)
        if self._rows is None:
            assert self._frame is not None
            return Batch(
                self.schema, frame=self._frame.with_columns(key_series(keys)), origin=self.origin
            )
        return Batch(
            self.schema,
            rows=self._rows,
            times=self.times(),
            keys=keys,
            positions=self.positions(),
            origin=self.origin,
        )


def frame_schema(frame: pl.DataFrame) -> Schema:
    """Return the schema of a frame's value columns, with dicts for rows."""
    return Schema(
        None, {name: dtype for name, dtype in frame.schema.items() if name not in _RESERVED}
    )


def rows_to_frame(rows: list[Any], schema: Schema | None) -> pl.DataFrame:
    """Return Python objects as columns, by their schema or by what they turn out to be.

    Raises:
        TypeError: If they are not dicts or records of one type.
    """
    if schema is not None:
        return schema.to_frame(rows)
    if not rows:
        return pl.DataFrame()
    first: Any = rows[0]
    if isinstance(first, dict):
        return pl.DataFrame(rows, infer_schema_length=None)
    try:
        found = Schema.of(type(first))
    except Exception as error:
        raise TypeError(
            f"rows of type {type(first).__name__} have no columns; return dicts or records of a "
            "declared type, or use a Python function in place of an expression"
        ) from error
    return found.to_frame(rows)


def key_series(keys: list[Any]) -> pl.Series:
    """Return keys as a column; composite keys (tuples) become structs."""
    first = next((key for key in keys if key is not None), None)
    if isinstance(first, tuple):
        names = [f"f{i}" for i in range(len(first))]
        return pl.Series(
            KEY, [None if k is None else dict(zip(names, k, strict=True)) for k in keys]
        )
    return pl.Series(KEY, keys)


def keys_to_list(series: pl.Series) -> list[Any]:
    """Return a key column as Python keys; structs become tuples."""
    if isinstance(series.dtype, pl.Struct):
        return [None if key is None else tuple(key.values()) for key in series.to_list()]
    return series.to_list()
