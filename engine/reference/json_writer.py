"""Columns to JSON documents, by Polars."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import polars as pl

from riverrun.engine.codec import EncodeError

if TYPE_CHECKING:
    from riverrun.engine.byte_columns import ByteColumn

ROWS_MIN = 1000
"""Below, starting Polars on columns costs more than writing the rows one by one."""


class ReferenceJsonWriter:
    """Writes text, numbers and booleans of many rows; leaves all else to the codec's rows."""

    def write(self, frame: pl.DataFrame) -> ByteColumn | None:
        """Return one object per row, None if rows are to be written one by one.

        Raises:
            EncodeError: Naming the first row with NaN or an infinite number.
        """
        is_plain = all(
            dtype.is_integer() or dtype.is_float() or isinstance(dtype, (pl.String, pl.Boolean))
            for dtype in frame.dtypes
        )
        if not is_plain or frame.height < ROWS_MIN:
            return None
        for series in frame.get_columns():
            if series.dtype.is_float() and not series.is_finite().all():
                index = cast("int", (~series.is_finite()).fill_null(value=False).arg_max())
                raise EncodeError(index, not_finite(series[index]))
        documents = pl.struct(pl.all()).struct.json_encode().cast(pl.Binary)
        return frame.select(documents).to_series()


def not_finite(number: float) -> str:
    """Return why a number cannot be written."""
    return f"{number} has no JSON form; filter it out or replace it before the sink"
