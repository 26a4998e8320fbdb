"""Columns to JSON documents, by the kernel."""

from __future__ import annotations

import math
from typing import Any, cast

import polars as pl

from riverrun._kernel import write_documents
from riverrun.engine.codec import EncodeError
from riverrun.engine.reference.json_writer import not_finite

ROWS_MIN = 64
"""Below, handing over the columns costs more than writing the rows one by one."""


class KernelJsonWriter:
    """Writes one object per row, with the values that msgspec would write.

    Numbers and texts may be spelled otherwise, and are read as the same.

    Args:
        rows_min: Frames of fewer rows are left to the codec, which writes row by row.

    Example:
        >>> frame = pl.DataFrame({"user": ["ada"], "amount": [2.5]})
        >>> documents = KernelJsonWriter(rows_min=1).write(frame)
        >>> documents.to_list() if documents is not None else None
        [b'{"user":"ada","amount":2.5}']
    """

    def __init__(self, rows_min: int = ROWS_MIN) -> None:
        self._rows_min = rows_min

    def write(self, frame: pl.DataFrame) -> pl.Series | None:
        """Return one document per row, None if rows are to be written one by one.

        Raises:
            EncodeError: Naming the first row with NaN or an infinite number.
        """
        if not frame.width or frame.height < self._rows_min:
            return None
        if not all(dtype == pl.Null or _is_known(dtype) for dtype in frame.dtypes):
            return None
        # Names are told by themselves, whatever is in them.
        columns = [
            # Polars gives nulls of no type in a form that Arrow does not know.
            column.alias("") if column.dtype != pl.Null else column.alias("").cast(pl.Boolean)
            for column in frame.get_columns()
        ]
        documents, index = write_documents(frame.columns, columns)
        if index is not None:
            (number,) = _not_finite_numbers(frame.row(index))[:1]
            raise EncodeError(index, not_finite(number))
        return None if documents is None else pl.Series("", documents)


_KNOWN = (
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Binary, pl.Date),
)


def _is_known(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _is_known(cast("pl.DataType", dtype.inner))
    if isinstance(dtype, pl.Struct):
        # Arrow's names end at the first NUL.
        return all(
            "\0" not in field.name and _is_known(cast("pl.DataType", field.dtype))
            for field in dtype.fields
        )
    if isinstance(dtype, pl.Datetime):
        return dtype.time_unit != "ns" and dtype.time_zone in (None, "UTC")
    return isinstance(dtype, _KNOWN)


def _not_finite_numbers(value: Any) -> list[float]:
    """Return the numbers in a value that have no JSON form, in order."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [value]
    inner = cast("dict[Any, Any]", value).values() if isinstance(value, dict) else value
    if isinstance(value, (dict, list, tuple)):
        return [each for part in cast("list[Any]", inner) for each in _not_finite_numbers(part)]
    return []
