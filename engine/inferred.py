"""Columns of values without a declared type: what they turn out to be, never made to fit.

Which records share a batch is chance, so nothing about a value may depend on the others: values
that do not go together in one column are refused, and operators then take them one by one.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXACT_FLOAT_MAX = 1 << 53
"""All integers up to here are floats, too."""

_PLAIN: dict[type, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    bool: pl.Boolean(),
    bytes: pl.Binary(),
}
_LISTS = {list, tuple}
_ADVICE = "declare a record class, or use a Python function in place of the expression"


def to_column(name: str, values: Sequence[Any]) -> pl.Series:
    """Return values as a column.

    Integers among floats become floats where that is exact; nothing else becomes another kind.

    Raises:
        TypeError: If they are of several kinds, or have no column form.
    """
    dtype = _dtype(name, values)
    try:
        if dtype is None:
            return _unknown(name, values)
        return pl.Series(name, values, dtype=dtype, strict=dtype != pl.Float64)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise TypeError(f"the values of column {name!r} are no column: {error}") from error


def rows_to_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return dicts of the same fields as columns.

    Raises:
        TypeError: If their fields differ, or values of one do not go together.
    """
    if not rows:
        return pl.DataFrame()
    names = list(rows[0])
    if any(row.keys() != rows[0].keys() for row in rows):
        raise TypeError("the records have different fields; declare a record class for them")
    return pl.DataFrame([to_column(name, [row[name] for row in rows]) for name in names])


def _dtype(name: str, values: Sequence[Any]) -> pl.DataType | None:
    """Return the type of a column, None if only Polars can tell."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pl.Null()
    if len(kinds) == 1:
        (kind,) = kinds
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind is dict:
            return _struct(name, [value for value in values if value is not None])
    if kinds <= _LISTS:
        inner = _dtype(name, list(chain.from_iterable(v for v in values if v is not None)))
        return None if inner is None else pl.List(inner)
    if kinds == {int, float}:
        if all(-_EXACT_FLOAT_MAX <= v <= _EXACT_FLOAT_MAX for v in values if type(v) is int):
            return pl.Float64()
        raise TypeError(
            f"column {name!r} has integers that are not exact as floats, and floats; {_ADVICE}"
        )
    if len(kinds) > 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"column {name!r} has values of several kinds: {found}; {_ADVICE}")
    return None


def _struct(name: str, values: list[dict[Any, Any]]) -> pl.DataType | None:
    names = list(values[0])
    if any(list(value) != names for value in values) or not all(type(n) is str for n in names):
        raise TypeError(f"column {name!r} has objects of different fields; {_ADVICE}")
    fields: dict[str, pl.DataType] = {}
    for field in names:
        dtype = _dtype(f"{name}.{field}", [value[field] for value in values])
        if dtype is None:
            return None
        fields[field] = dtype
    return pl.Struct(fields)


def _unknown(name: str, values: Sequence[Any]) -> pl.Series:
    # Times, dates, decimals and the like, as functions of the user return them.
    column = pl.Series(name, values, strict=True)
    if cast("Any", column.dtype) == pl.Object:
        raise TypeError(f"column {name!r} has values without a column form; {_ADVICE}")
    return column
