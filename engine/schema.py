"""Record schemas: what a class of records looks like as columns, and back."""

from __future__ import annotations

import dataclasses
import datetime as dt
import inspect
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec
import polars as pl

from .errors import TopologyError
from .models import from_plain, to_plain
from .shapes import is_plain

_SCALARS: dict[Any, pl.DataType] = {
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
    bool: pl.Boolean(),
    bytes: pl.Binary(),
    dt.datetime: pl.Datetime("us", "UTC"),
    dt.date: pl.Date(),
}

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NO_TIME = -(1 << 63)
"""What numpy has in place of null."""


class Record(msgspec.Struct):
    """Base class for the records of a topic: declare fields with types, as in a dataclass.

    Example:
        >>> class Order(Record):
        ...     user: str
        ...     amount: float
        >>> Order(user="ada", amount=2.5).amount
        2.5
    """


TimestampMs = Annotated[int, "milliseconds since the Unix epoch"]
"""A field with a time in milliseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a stream, and the class its rows are instances of.

    Attributes:
        record_type: Class of the rows; None for plain dicts.
        fields: Data type by column, None where a field has no column form (it is then only
            usable from Python functions).
    """

    record_type: type | None
    fields: Mapping[str, pl.DataType | None]

    @staticmethod
    def of(record_type: type) -> Schema:
        """Return the schema of a Record, dataclass, msgspec.Struct, TypedDict or pydantic model.

        Raises:
            TopologyError: If ``record_type`` is none of these.
        """
        if not _is_record_type(record_type):
            raise TopologyError(
                f"{record_type!r} is not a record type: use a riverrun.Record, dataclass, "
                "msgspec.Struct, TypedDict or pydantic model"
            )
        hints = get_type_hints(record_type, include_extras=True)
        names = _field_names(record_type, hints)
        return Schema(record_type, {name: column_type(hints[name]) for name in names})

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The fields that have a column form."""
        return {name: dtype for name, dtype in self.fields.items() if dtype is not None}

    @property
    def columns_are_whole(self) -> bool:
        """Whether columns say all that a document of a record says, under the same names."""
        return is_plain(self.record_type)

    def to_frame(self, rows: Sequence[Any]) -> pl.DataFrame:
        """Return rows as columns. A time without zone is taken as UTC.

        Raises:
            TypeError: If a value does not fit its declared type.
        """
        return pl.DataFrame([self.to_column(rows, name) for name in self.columns])

    def to_column(self, rows: Sequence[Any], name: str) -> pl.Series:
        """Return one field of rows as a column.

        Raises:
            TypeError: If a value does not fit its declared type.
        """
        dtype = self.columns[name]
        try:
            values = self.column_values(rows, name)
            if dtype.is_nested():
                values = msgspec.to_builtins(
                    values,
                    builtin_types=(dt.datetime, dt.date, bytes),
                    enc_hook=to_plain,
                )
            return pl.Series(name, values, dtype=dtype, strict=True)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            raise TypeError(f"a value of column {name!r} is not {dtype}: {error}") from error

    def column_values(self, rows: Sequence[Any], name: str) -> list[Any]:
        """Return one field of each row; None where a row has no such key."""
        if self._rows_are_mappings:
            return [row.get(name) for row in rows]
        return list(map(operator.attrgetter(name), rows))

    def to_rows(self, frame: pl.DataFrame) -> list[Any]:
        """Return columns as rows of the record type.

        Raises:
            TypeError: If the record type has fields that have no column form.
        """
        if self._rows_are_mappings:
            return _to_dicts(frame.select(list(self.fields)))
        make = cast("type[Any]", self.record_type)
        names = list(self.fields)
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise TypeError(f"no columns for {missing} of {make.__name__}")
        if hasattr(make, "model_fields"):
            return [from_plain(make, row) for row in frame.select(names).to_dicts()]
        if any(dtype is not None and dtype.is_nested() for dtype in self.fields.values()):
            return msgspec.convert(frame.select(names).to_dicts(), list[make])
        columns = [_to_list(frame.get_column(name)) for name in names]
        if columns and _takes_positions(make, names):
            return list(map(make, *columns))
        if not columns:
            return [make() for _ in range(frame.height)]
        return [
            make(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)
        ]

    @property
    def _rows_are_mappings(self) -> bool:
        return self.record_type is None or typing.is_typeddict(self.record_type)


def _to_list(column: pl.Series) -> list[Any]:
    if column.dtype != _SCALARS[dt.datetime]:
        return column.to_list()
    # Six times as quick as Polars makes them, and their zone is what it is in rows that were read.
    since_epoch = column.to_physical().fill_null(_NO_TIME).to_numpy().view("timedelta64[us]")
    return [None if each is None else _EPOCH + each for each in since_epoch.tolist()]


def _to_dicts(frame: pl.DataFrame) -> list[dict[str, Any]]:
    if _SCALARS[dt.datetime] not in frame.dtypes:
        return frame.to_dicts()
    names = frame.columns
    columns = map(_to_list, frame.get_columns())
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _takes_positions(make: type[Any], names: list[str]) -> bool:
    parameters = inspect.signature(make).parameters
    return list(parameters) == names and all(
        parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters.values()
    )


def column_type(hint: Any) -> pl.DataType | None:
    """Return the column type of a type annotation, None if it has none."""
    origin = get_origin(hint)
    if origin is Annotated:
        return column_type(get_args(hint)[0])
    if hint in _SCALARS:
        return _SCALARS[hint]
    if origin in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        return column_type(inner[0]) if len(inner) == 1 else None
    if origin in (list, tuple, Sequence) and get_args(hint):
        element = column_type(get_args(hint)[0])
        return pl.List(element) if element is not None else None
    if isinstance(hint, type) and _is_record_type(hint):
        nested = Schema.of(hint)
        if all(dtype is not None for dtype in nested.fields.values()):
            return pl.Struct(nested.columns)
    return None


def _is_record_type(candidate: Any) -> bool:
    if not isinstance(candidate, type):
        return False
    found = cast("type[Any]", candidate)
    return (
        issubclass(found, msgspec.Struct)
        or dataclasses.is_dataclass(found)
        or typing.is_typeddict(found)
        or hasattr(found, "model_fields")
    )


def _field_names(record_type: type[Any], hints: Mapping[str, Any]) -> list[str]:
    if issubclass(record_type, msgspec.Struct):
        return list(record_type.__struct_fields__)
    if dataclasses.is_dataclass(record_type):
        return [field.name for field in dataclasses.fields(record_type)]
    if hasattr(record_type, "model_fields"):
        return list(cast("Mapping[str, Any]", record_type.model_fields))  # pyright: ignore
    return list(hints)
