"""Columns of bytes on their way out: lists, or Binary columns of Polars, which are not unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias, TypeVar, cast

import polars as pl

T = TypeVar("T")

ByteColumn: TypeAlias = Sequence[bytes | None] | pl.Series
"""Keys or values of records. A Series is Binary, and stays in one piece all the way."""

Integers: TypeAlias = Sequence[int] | pl.Series
"""Times or partitions of records. A Series is of integers without nulls."""


def as_list(column: ByteColumn) -> list[bytes | None]:
    """Return the values as a list.

    Example:
        >>> as_list(pl.Series([b"a", None]))
        [b'a', None]
    """
    return column.to_list() if isinstance(column, pl.Series) else list(column)


def gather(column: ByteColumn, indices: list[int]) -> ByteColumn:
    """Return the values at ``indices``, in that order."""
    if isinstance(column, pl.Series):
        return column.gather(indices)
    return [column[i] for i in indices]


def concat(columns: Sequence[Sequence[T] | pl.Series]) -> Sequence[T] | pl.Series:
    """Return columns of bytes or of integers behind each other: in one piece if all of them are.

    Example:
        >>> concat([[b"a"], [None, b"b"]])
        [b'a', None, b'b']
    """
    if len(columns) == 1:
        return columns[0]
    if all(isinstance(column, pl.Series) for column in columns):
        return pl.concat([pl.Series("", column) for column in columns], rechunk=True)
    return list(chain.from_iterable(columns))


def longest(column: ByteColumn) -> int:
    """Return the length of the longest value, 0 if there is none.

    Example:
        >>> longest([b"a", None, b"abc"])
        3
    """
    if isinstance(column, pl.Series):
        return cast("int | None", column.bin.size().max()) or 0
    try:
        return max(map(len, cast("Sequence[bytes]", column)), default=0)
    except TypeError:  # tombstones among them
        return max((len(value) for value in column if value is not None), default=0)
