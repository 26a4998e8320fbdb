"""The types of aggregated columns: how a value is held in an array and told in stored state.

A tag names a type in stored rows. ``i`` and ``f`` are numbers; dates and times are numbers too, as
far as arrays go; everything else is held as Python objects.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

NO_TYPE = "-"
"""Nothing but nulls has been seen."""
INT = "i"
FLOAT = "f"
TEXT = "s"

_SIMPLE: dict[str, pl.DataType] = {
    NO_TYPE: pl.Null(),
    INT: pl.Int64(),
    FLOAT: pl.Float64(),
    "D": pl.Date(),
    "t": pl.Time(),
    TEXT: pl.String(),
    "b": pl.Boolean(),
    "x": pl.Binary(),
}
_TAGS = {dtype: tag for tag, dtype in _SIMPLE.items()}
_NUMBERS = (NO_TYPE, INT, FLOAT, "D", "t", "T", "U")


def normalize(column: pl.Series) -> pl.Series:
    """Return a column in one of the types that have a tag; narrow numbers become wide."""
    dtype = column.dtype
    if dtype.is_integer():
        return column.cast(pl.Int64)
    if dtype.is_float():
        return column.cast(pl.Float64)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    return column


def tag_of(dtype: pl.DataType) -> str:
    """Return the tag of a normalized column's type; ``o`` for types known only to Python."""
    if isinstance(dtype, pl.Datetime):
        return f"T:{dtype.time_unit}:{dtype.time_zone or ''}"
    if isinstance(dtype, pl.Duration):
        return f"U:{dtype.time_unit}"
    if isinstance(dtype, pl.Decimal):
        return f"d:{dtype.precision}:{dtype.scale}"
    return _TAGS.get(dtype, "o")


def dtype_of(tag: str) -> pl.DataType | None:
    """Return the type that a tag stands for, None if it is to be inferred."""
    if tag in _SIMPLE:
        return _SIMPLE[tag]
    kind, *details = tag.split(":")
    if kind == "T":
        unit, zone = details
        return pl.Datetime(cast("Any", unit), zone or None)
    if kind == "U":
        return pl.Duration(cast("Any", details[0]))
    if kind == "d":
        return pl.Decimal(int(details[0]), int(details[1]))
    return None


def widest(name: str, a: str, b: str) -> str:
    """Return the tag of the type that holds the values of both.

    Raises:
        TypeError: If there is none.
    """
    if a == b or b == NO_TYPE:
        return a
    if a == NO_TYPE:
        return b
    if {a, b} == {INT, FLOAT}:
        return FLOAT
    raise TypeError(
        f"aggregate {name!r} has seen values of type {dtype_of(a) or 'object'} and now gets "
        f"{dtype_of(b) or 'object'}"
    )


def is_number(tag: str) -> bool:
    """Whether values are held as numbers."""
    return tag.split(":")[0] in _NUMBERS


def to_array(column: pl.Series, tag: str) -> Array:
    """Return a normalized column as an array; what stands in place of nulls means nothing."""
    if tag == NO_TYPE:
        return np.zeros(len(column), np.int64)
    if is_number(tag):
        # What is not needed is not asked for: it goes through Polars' query engine, whose threads
        # a small batch would have to wait for.
        if not isinstance(column.dtype, (pl.Float64, pl.Int64)):
            column = column.to_physical().cast(pl.Int64)
        if column.null_count():
            column = column.fill_null(0)
        # Copied, since Polars hands out its own memory, read-only.
        return column.to_numpy(writable=True)
    return objects(column.to_list())


def to_series(name: str, values: Array, has_value: Array, tag: str) -> pl.Series:
    """Return an array as a column of the type that ``tag`` stands for."""
    dtype = dtype_of(tag)
    if tag == NO_TYPE:
        return pl.Series(name, [None] * len(values), dtype=pl.Null)
    if is_number(tag):
        column = pl.Series(name, values.astype(np.float64 if tag == FLOAT else np.int64))
        if not has_value.all():
            nulls = pl.Series(name, [None], dtype=column.dtype).new_from_index(0, len(column))
            column = column.zip_with(pl.Series(has_value), nulls)
        return column if dtype is None else column.cast(dtype)
    present = [
        value if has else None
        for value, has in zip(values.tolist(), has_value.tolist(), strict=True)
    ]
    return pl.Series(name, present, dtype=dtype)


def from_stored(values: Sequence[Any], tag: str) -> Array:
    """Return objects as they were before they were stored as MessagePack."""
    if tag.startswith("d:"):
        return objects([None if value is None else Decimal(value) for value in values])
    return objects(values)


def objects(values: Sequence[Any]) -> Array:
    """Return an array of Python objects; ``np.array`` would look into lists among them."""
    return np.fromiter(values, dtype=object, count=len(values))
