"""Batches: what moves through a chain, as columns or as rows, converted only where needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Any

import polars as pl

from . import inferred
from .labels import KEY as KEY
from .labels import POSITION as POSITION
from .labels import RESERVED, KeyLabel, Label
from .labels import TIME as TIME
from .labels import key_series as key_series
from .labels import keys_to_list as keys_to_list
from .schema import Schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .byte_columns import ByteColumn


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

    Immutable. Values are columns, rows (Python objects), or both once converted; a column is made
    of rows when it is asked for, so that fields nobody reads cost nothing. Adjacent operators hand
    the same batch on; a conversion is done once and kept.

    Args:
        schema: Columns and row type; None for rows of unknown form.
        times: Event time of each record.
        columns: Value columns at hand, by name; all of them if there are no rows.
        rows: Values as Python objects.
        keys: Key of each record; None for a stream without keys.
        positions: Index in ``origin`` of each record; None if unknown.
        origin: The source records it came from, None behind a window or a repartition.
    """

    __slots__ = (
        "_columns", "_is_columnar", "_keys", "_mask", "_positions", "_rows", "_times", "_whole",
        "origin", "schema",
    )  # fmt: skip

    def __init__(
        self,
        schema: Schema | None,
        times: Label,
        *,
        columns: Mapping[str, pl.Series] | None = None,
        rows: list[Any] | None = None,
        keys: KeyLabel | None = None,
        positions: Label | None = None,
        origin: RawRecords | None = None,
    ) -> None:
        self.schema = schema
        self.origin = origin
        self._times = times
        self._keys = keys
        self._positions = positions
        self._rows = rows
        self._columns: dict[str, pl.Series] = dict(columns or {})
        self._is_columnar = rows is None
        # What it is a part of, and which part: values are taken out of it when they are needed.
        self._whole: Batch | None = None
        self._mask: pl.Series | None = None

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
        return Batch(
            schema,
            Label(TIME, times),
            rows=rows,
            keys=None if keys is None else KeyLabel(keys),
            positions=None if positions is None else Label(POSITION, positions),
            origin=origin,
        )

    @staticmethod
    def of_frame(
        frame: pl.DataFrame, *, schema: Schema | None = None, origin: RawRecords | None = None
    ) -> Batch:
        """Return a batch of columns; ``frame`` has the column ``TIME``, and maybe ``KEY``."""
        columns = {column.name: column for column in frame.get_columns()}
        times, keys = columns.pop(TIME), columns.pop(KEY, None)
        positions = columns.pop(POSITION, None)
        if schema is None:
            schema = Schema(None, {name: column.dtype for name, column in columns.items()})
        return Batch(
            schema,
            Label(TIME, column=times),
            columns=columns,
            keys=None if keys is None else KeyLabel(column=keys),
            positions=None if positions is None else Label(POSITION, column=positions),
            origin=origin,
        )

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._times)

    @property
    def is_columnar(self) -> bool:
        """Whether all columns are at hand without a conversion."""
        return self._is_columnar

    @property
    def has_rows(self) -> bool:
        """Whether rows are at hand without a conversion."""
        return self._rows is not None or (self._whole is not None and self._whole.has_rows)

    @property
    def has_keys(self) -> bool:
        """Whether the records have keys."""
        return self._keys is not None

    # --- values ------------------------------------------------------------------------------

    def rows(self) -> list[Any]:
        """Return the values as Python objects of the schema's record type."""
        if self._rows is None:
            if self._whole is not None and self._whole.has_rows:
                assert self._mask is not None
                self._rows = list(compress(self._whole.rows(), self._mask.to_list()))
            else:
                frame = self.values_frame()
                self._rows = (self.schema or frame_schema(frame)).to_rows(frame)
        return self._rows

    def column(self, name: str) -> pl.Series | None:
        """Return one value column, None if there is none of that name.

        Raises:
            TypeError: If a value does not fit the column.
        """
        found = self._columns.get(name)
        if found is None and not self._is_columnar:
            found = self._made_of_rows(name)
            if found is not None:
                self._columns[name] = found
        elif found is None and self._whole is not None:
            found = self._whole.column(name)
            if found is not None:
                assert self._mask is not None
                found = self._columns[name] = found.filter(self._mask)
        return found

    def _made_of_rows(self, name: str) -> pl.Series | None:
        rows = self.rows()
        schema = self.schema or rows_schema(rows)
        if schema is not None:
            return schema.to_column(rows, name) if name in schema.columns else None
        if not any(name in row for row in rows):
            return None
        return inferred.to_column(name, [row.get(name) for row in rows])

    def columns(self, names: Iterable[str]) -> pl.DataFrame:
        """Return some value columns, those of them that there are.

        Raises:
            TypeError: If the rows do not fit one set of columns.
        """
        found = [column for name in names if (column := self.column(name)) is not None]
        return pl.DataFrame(found)

    def values_frame(self) -> pl.DataFrame:
        """Return all value columns.

        Raises:
            TypeError: If the rows do not fit one set of columns.
        """
        return self.columns(self.column_names())

    def frame(self) -> pl.DataFrame:
        """Return value columns together with ``TIME`` and, where known, ``KEY``, ``POSITION``.

        Raises:
            TypeError: If the rows do not fit one set of columns.
        """
        labels = [self._times, self._keys, self._positions]
        columns = [label.column() for label in labels if label is not None]
        return pl.DataFrame([*self.values_frame().get_columns(), *columns])

    def column_names(self) -> list[str]:
        """Return the names of all value columns; whatever is not a column yet is converted.

        Rows without a schema stay what the batch is made of: the columns that were found for them
        hold in this batch only.

        Raises:
            TypeError: If the rows do not fit one set of columns.
        """
        if self._is_columnar and self._whole is None:
            return list(self._columns)
        if self._is_columnar and self._whole is not None:
            names = self._whole.column_names()
        elif self.schema is None:
            frame = rows_to_frame(self.rows())
            self._columns = {column.name: column for column in frame.get_columns()}
            return frame.columns
        else:
            names = list(self.schema.columns)
        for name in names:
            self.column(name)
        self._is_columnar = True
        return names

    # --- labels ------------------------------------------------------------------------------

    def times(self) -> list[int]:
        """Return the event times, milliseconds since the Unix epoch."""
        return self._times.values()

    def time_column(self) -> pl.Series:
        """Return the event times as the column ``TIME``, Int64."""
        return self._times.column()

    def max_time(self) -> int:
        """Return the latest event time."""
        latest = self._times.column().max()
        assert isinstance(latest, int)
        return latest

    def min_time(self) -> int:
        """Return the earliest event time."""
        earliest = self._times.column().min()
        assert isinstance(earliest, int)
        return earliest

    def keys(self) -> list[Any]:
        """Return the keys; all None for a stream without keys."""
        return [None] * len(self) if self._keys is None else self._keys.values()

    def key_column(self) -> pl.Series:
        """Return the keys as the column ``KEY``; all null for a stream without keys."""
        if self._keys is None:
            return pl.Series(KEY, [None] * len(self))
        return self._keys.column()

    def wire_keys(self) -> ByteColumn:
        """Return the keys as the bytes that topics carry."""
        return [None] * len(self) if self._keys is None else self._keys.wire()

    def positions(self) -> list[int] | None:
        """Return the index of each record in ``origin``, None if unknown."""
        return None if self._positions is None else self._positions.values()

    # --- derived batches ---------------------------------------------------------------------

    def take(self, indices: list[int]) -> Batch:
        """Return the records at ``indices``, in that order, in every form at hand.

        Rows are kept where there are rows: those without a schema may each have other fields,
        which columns would fill with nulls.
        """
        if self._is_columnar:
            self.column_names()
        rows = self.rows() if self.has_rows else None
        taken = Batch(
            self.schema,
            self._times.take(indices),
            columns={name: column.gather(indices) for name, column in self._columns.items()},
            rows=None if rows is None else [rows[i] for i in indices],
            keys=None if self._keys is None else self._keys.take(indices),
            positions=None if self._positions is None else self._positions.take(indices),
            origin=self.origin,
        )
        taken._is_columnar = self._is_columnar
        return taken

    def where(self, mask: pl.Series) -> Batch:
        """Return the records that a Boolean column without nulls marks.

        Values stay where they are until they are asked for.
        """
        kept = Batch(
            self.schema,
            self._times.where(mask),
            keys=None if self._keys is None else self._keys.where(mask),
            positions=None if self._positions is None else self._positions.where(mask),
            origin=self.origin,
        )
        kept._whole, kept._mask = self, mask
        kept._is_columnar = self._is_columnar
        if not self._is_columnar:
            kept._columns = {name: each.filter(mask) for name, each in self._columns.items()}
        return kept

    def with_frame(self, frame: pl.DataFrame, schema: Schema | None = None) -> Batch:
        """Return a batch of other columns; the reserved columns must be in ``frame``."""
        return Batch.of_frame(frame, schema=schema, origin=self.origin)

    def with_columns(self, values: pl.DataFrame, schema: Schema | None = None) -> Batch:
        """Return a batch with other value columns for the same records."""
        assert values.height == len(self)
        columns = {column.name: column for column in values.get_columns()}
        return Batch(
            schema or frame_schema(values),
            self._times,
            columns=columns,
            keys=self._keys,
            positions=self._positions,
            origin=self.origin,
        )

    def with_values(self, rows: list[Any], schema: Schema | None = None) -> Batch:
        """Return a batch with other values for the same records."""
        assert len(rows) == len(self)
        return Batch(
            schema,
            self._times,
            rows=rows,
            keys=self._keys,
            positions=self._positions,
            origin=self.origin,
        )

    def with_expanded(
        self, rows: list[Any], parents: list[int], schema: Schema | None = None
    ) -> Batch:
        """Return a batch of other values, each with time, key and position of a parent record."""
        return Batch(
            schema,
            self._times.take(parents),
            rows=rows,
            keys=None if self._keys is None else self._keys.take(parents),
            positions=None if self._positions is None else self._positions.take(parents),
            origin=self.origin,
        )

    def with_keys(self, keys: list[Any] | pl.Series) -> Batch:
        """Return the same records under other keys."""
        assert len(keys) == len(self)
        label = KeyLabel(keys) if isinstance(keys, list) else KeyLabel(column=keys.alias(KEY))
        keyed = Batch(
            self.schema,
            self._times,
            rows=self._rows,
            keys=label,
            positions=self._positions,
            origin=self.origin,
        )
        # One and the same: what either converts, both have.
        keyed._columns = self._columns
        keyed._is_columnar = self._is_columnar
        keyed._whole, keyed._mask = self._whole, self._mask
        return keyed


def frame_schema(frame: pl.DataFrame) -> Schema:
    """Return the schema of a frame's value columns, with dicts for rows."""
    return Schema(
        None, {name: dtype for name, dtype in frame.schema.items() if name not in RESERVED}
    )


_class_schema = lru_cache(maxsize=64)(Schema.of)


def rows_schema(rows: list[Any]) -> Schema | None:
    """Return the schema of the class that rows without a schema are of, None for dicts.

    Raises:
        TypeError: If they are not dicts or records of one type.
    """
    kinds = set(map(type, rows))
    if all(issubclass(kind, dict) for kind in kinds):
        return None
    try:
        (kind,) = kinds
        return _class_schema(kind)
    except Exception as error:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(
            f"rows of type {names} have no columns; return dicts or records of a "
            "declared type, or use a Python function in place of an expression"
        ) from error


def rows_to_frame(rows: list[Any]) -> pl.DataFrame:
    """Return rows without a schema as columns, by what they turn out to be.

    Raises:
        TypeError: If they are not dicts of the same fields or records of one type.
    """
    schema = rows_schema(rows)
    return inferred.rows_to_frame(rows) if schema is None else schema.to_frame(rows)
