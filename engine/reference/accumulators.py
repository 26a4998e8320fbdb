"""What a window table keeps per aggregate: arrays, one place per (slice, key).

A part is a tuple of arrays of one length: the accumulators of some rows. Parts of a batch, of the
table, of the store and of several slices are all merged by the same ``merge``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import polars as pl

from riverrun.engine.batch import TIME

from .column_types import (
    FLOAT,
    INT,
    NO_TYPE,
    is_number,
    normalize,
    objects,
    tag_of,
    to_array,
    to_series,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from riverrun.engine.plane import AggregateKind

    Array = NDArray[Any]
    Part = tuple[Array, ...]

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


class Accumulator(Protocol):
    """One kind of aggregate. Stateless, but for its name."""

    name: str

    def fields(self, tag: str) -> Sequence[Any]:
        """Return the data type of each array of a part, for values of a type."""
        ...

    def input(self, frame: pl.DataFrame) -> pl.Series | None:
        """Return the normalized input column, None if it reads none."""
        ...

    def tag(self, column: pl.Series | None) -> str:
        """Return the tag of the type of values that an input column brings."""
        ...

    def expressions(self, column: pl.Series | None) -> list[pl.Expr]:
        """Return what to compute of each group of a batch."""
        ...

    def part(self, grouped: pl.DataFrame, tag: str) -> Part:
        """Return the part that the computed expressions are."""
        ...

    def merge(self, older: Part, newer: Part) -> Part:
        """Return the accumulators of the records of both."""
        ...

    def result(self, part: Part, tag: str) -> pl.Series:
        """Return what the accumulators come to."""
        ...


def accumulator_of(name: str, kind: AggregateKind) -> Accumulator:
    """Return the accumulator for a kind of aggregate."""
    match kind:
        case "count":
            return _Count(name, of_values=False)
        case "count_values":
            return _Count(name, of_values=True)
        case "sum":
            return _Sum(name)
        case "mean":
            return _Mean(name)
        case "min" | "max":
            return _Extreme(name, is_min=kind == "min")
        case "first" | "last":
            return _ByTime(name, is_first=kind == "first")


class _OfColumn:
    def __init__(self, name: str) -> None:
        self.name = name

    def input(self, frame: pl.DataFrame) -> pl.Series | None:
        return normalize(frame.get_column(self.name))

    def tag(self, column: pl.Series | None) -> str:
        assert column is not None
        return tag_of(column.dtype)

    def _temporary(self, index: int) -> str:
        # Not the name of a column that another expression of the same query reads.
        return f"{self.name}\0{index}"

    def _computed(self, grouped: pl.DataFrame, index: int) -> pl.Series:
        return grouped.get_column(self._temporary(index))


class _Count(_OfColumn):
    """Arrays: count."""

    def __init__(self, name: str, *, of_values: bool) -> None:
        super().__init__(name)
        self._of_values = of_values

    def fields(self, tag: str) -> Sequence[Any]:
        del tag
        return (np.int64,)

    def input(self, frame: pl.DataFrame) -> pl.Series | None:
        return super().input(frame) if self._of_values else None

    def tag(self, column: pl.Series | None) -> str:
        # What is counted may change its type as it likes.
        del column
        return NO_TYPE

    def expressions(self, column: pl.Series | None) -> list[pl.Expr]:
        counted = pl.len() if column is None else pl.col(self.name).count()
        return [counted.cast(pl.Int64).alias(self._temporary(0))]

    def part(self, grouped: pl.DataFrame, tag: str) -> Part:
        return (to_array(self._computed(grouped, 0), INT),)

    def merge(self, older: Part, newer: Part) -> Part:
        return (older[0] + newer[0],)

    def result(self, part: Part, tag: str) -> pl.Series:
        return pl.Series(self.name, part[0].astype(np.int64))


class _Sum(_OfColumn):
    """Arrays: sum, int or float."""

    def fields(self, tag: str) -> Sequence[Any]:
        return (np.float64 if tag == FLOAT else np.int64,)

    def expressions(self, column: pl.Series | None) -> list[pl.Expr]:
        assert column is not None
        values = pl.col(self.name)
        if column.dtype == pl.Int64 and self._may_overflow(column):
            # Polars wraps around silently, so sum where there is room, and check afterwards.
            values = values.cast(pl.Int128)
        elif column.dtype == pl.Null:
            values = values.cast(pl.Int64)
        return [values.sum().alias(self._temporary(0))]

    def _may_overflow(self, column: pl.Series) -> bool:
        low, high = cast("int | None", column.min()), cast("int | None", column.max())
        if low is None or high is None:
            return False
        return max(high, -low) * len(column) > _INT64_MAX

    def part(self, grouped: pl.DataFrame, tag: str) -> Part:
        sums = self._computed(grouped, 0)
        if sums.dtype == pl.Int128:
            low, high = cast("int", sums.min()), cast("int", sums.max())
            if low < _INT64_MIN or high > _INT64_MAX:
                raise self._overflow()
            sums = sums.cast(pl.Int64)
        return (to_array(sums, FLOAT if sums.dtype == pl.Float64 else INT),)

    def merge(self, older: Part, newer: Part) -> Part:
        (a,), (b,) = older, newer
        with np.errstate(over="ignore", invalid="ignore"):
            total = a + b
        # Two numbers of one sign whose sum has the other.
        if total.dtype == np.int64 and (((a ^ total) & (b ^ total)) < 0).any():
            raise self._overflow()
        return (total,)

    def result(self, part: Part, tag: str) -> pl.Series:
        return pl.Series(self.name, part[0].astype(np.float64 if tag == FLOAT else np.int64))

    def _overflow(self) -> OverflowError:
        return OverflowError(
            f"aggregate {self.name!r}: the sum does not fit in 64 bits; sum floats instead"
        )


class _Mean(_OfColumn):
    """Arrays: sum, count."""

    def fields(self, tag: str) -> Sequence[Any]:
        del tag
        return (np.float64, np.int64)

    def expressions(self, column: pl.Series | None) -> list[pl.Expr]:
        values = pl.col(self.name).cast(pl.Float64)
        return [
            values.sum().alias(self._temporary(0)),
            values.count().cast(pl.Int64).alias(self._temporary(1)),
        ]

    def part(self, grouped: pl.DataFrame, tag: str) -> Part:
        sums, counts = self._computed(grouped, 0), self._computed(grouped, 1)
        return (to_array(sums, FLOAT), to_array(counts, INT))

    def merge(self, older: Part, newer: Part) -> Part:
        with np.errstate(over="ignore", invalid="ignore"):
            return (older[0] + newer[0], older[1] + newer[1])

    def result(self, part: Part, tag: str) -> pl.Series:
        sums, counts = part
        with np.errstate(divide="ignore", invalid="ignore"):
            means = sums / counts
        return to_series(self.name, means, counts > 0, FLOAT)


class _Extreme(_OfColumn):
    """Arrays: whether there is a value, value."""

    def __init__(self, name: str, *, is_min: bool) -> None:
        super().__init__(name)
        self._is_min = is_min

    def fields(self, tag: str) -> Sequence[Any]:
        return (np.bool_, _value_type(tag))

    def expressions(self, column: pl.Series | None) -> list[pl.Expr]:
        values = pl.col(self.name)
        return [(values.min() if self._is_min else values.max()).alias(self._temporary(0))]

    def part(self, grouped: pl.DataFrame, tag: str) -> Part:
        values = self._computed(grouped, 0)
        return (values.is_not_null().to_numpy(writable=True), to_array(values, tag))

    def merge(self, older: Part, newer: Part) -> Part:
        (has_a, a), (has_b, b) = older, newer
        if object in (a.dtype, b.dtype):
            chosen = self._choose_objects(older, newer)
        else:
            # Not minimum and maximum: like Polars, they leave NaN out unless there is no other.
            choose = np.fmin if self._is_min else np.fmax
            chosen = np.where(has_a & has_b, choose(a, b), np.where(has_b, b, a))
        return (has_a | has_b, chosen)

    def _choose_objects(self, older: Part, newer: Part) -> Array:
        choose = min if self._is_min else max
        return objects(
            [
                choose(a, b) if has_a and has_b else (b if has_b else a)
                for has_a, a, has_b, b in zip(
                    *(array.tolist() for array in (*older, *newer)), strict=True
                )
            ]
        )

    def result(self, part: Part, tag: str) -> pl.Series:
        has_value, values = part
        return to_series(self.name, values, has_value, tag)


class _ByTime(_OfColumn):
    """Arrays: whether there is a value, its event time, value."""

    def __init__(self, name: str, *, is_first: bool) -> None:
        super().__init__(name)
        self._is_first = is_first

    def fields(self, tag: str) -> Sequence[Any]:
        return (np.bool_, np.int64, _value_type(tag))

    def expressions(self, column: pl.Series | None) -> list[pl.Expr]:
        # The table has sorted the batch by time, and groups keep the order of their records.
        has_value = pl.col(self.name).is_not_null()
        chosen = [pl.col(TIME).filter(has_value), pl.col(self.name).filter(has_value)]
        return [
            (values.first() if self._is_first else values.last()).alias(self._temporary(index))
            for index, values in enumerate(chosen)
        ]

    def part(self, grouped: pl.DataFrame, tag: str) -> Part:
        times, values = self._computed(grouped, 0), self._computed(grouped, 1)
        has_value = times.is_not_null().to_numpy(writable=True)
        return (has_value, to_array(times, INT), to_array(values, tag))

    def merge(self, older: Part, newer: Part) -> Part:
        (has_a, time_a, a), (has_b, time_b, b) = older, newer
        # Of equal times the one that came first is first, and the one that came last is last.
        is_newer_better = time_b < time_a if self._is_first else time_b >= time_a
        takes_newer = has_b & (~has_a | is_newer_better)
        return (
            has_a | has_b,
            np.where(takes_newer, time_b, time_a),
            np.where(takes_newer, b, a),
        )

    def result(self, part: Part, tag: str) -> pl.Series:
        has_value, _, values = part
        return to_series(self.name, values, has_value, tag)


def _value_type(tag: str) -> Any:
    if tag == FLOAT:
        return np.float64
    return np.int64 if is_number(tag) else object


def empty_array(size: int, field: Any) -> Array:
    """Return an array for accumulators of no records."""
    return np.full(size, None, dtype=object) if field is object else np.zeros(size, dtype=field)
