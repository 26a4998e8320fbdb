"""Accumulators in Python: how each aggregate folds records, and how it is kept as bytes.

Used where the data plane's window table does not go: a user's own aggregates, ``reduce`` and
sessions. For the built-in aggregates it gives the same results as the window table.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec
import polars as pl

from .aggregates import Aggregate, AnyAggregate, BuiltIn, is_built_in, sums_to_float
from .values import ValueFormat, tagged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Fold:
    """How one aggregate takes in values.

    Attributes:
        initial: Returns the accumulator of no records.
        add: Returns the accumulator with one value more: ``add(accumulator, value, time_ms)``.
        merge: Returns the accumulator of two; the left one's records are earlier.
        result: Returns what is emitted.
        stored_as: Type of accumulators, for reading them back.
        to_stored: Returns an accumulator as what comes back by its type; None if it does itself.
    """

    initial: Callable[[], Any]
    add: Callable[[Any, Any, int], Any]
    merge: Callable[[Any, Any], Any]
    result: Callable[[Any], Any]
    stored_as: Any
    to_stored: Callable[[Any], Any] | None = None


def fold_of(name: str, aggregate: AnyAggregate, input_type: pl.DataType | None) -> Fold:
    """Return how an aggregate takes in values; a user's own gets whole rows as values.

    Args:
        name: Its name, for messages.
        aggregate: Its specification.
        input_type: Type of the aggregated column, None if unknown.
    """
    if isinstance(aggregate, Aggregate):
        own: Aggregate[Any, Any, Any] = aggregate
        return Fold(
            own.initial, lambda acc, row, _: own.add(acc, row), own.merge, own.result, _hint(own)
        )
    if aggregate.kind == "sum":
        return _sum(name, input_type)
    return _built_in_fold(aggregate, _stored_type(input_type))


def _built_in_fold(aggregate: BuiltIn, value_type: Any) -> Fold:
    match aggregate.kind:
        case "count":
            return Fold(lambda: 0, lambda acc, _v, _t: acc + 1, _plus, _same, int)
        case "count_values":
            return Fold(lambda: 0, lambda acc, v, _t: acc + (v is not None), _plus, _same, int)
        case "mean":
            return Fold(
                lambda: (0.0, 0),
                lambda acc, v, _t: acc if v is None else (acc[0] + v, acc[1] + 1),
                lambda a, b: (a[0] + b[0], a[1] + b[1]),
                lambda acc: acc[0] / acc[1] if acc[1] else None,
                tuple[float, int],
            )
        case "min":
            return _selection(_smaller, value_type)
        case "max":
            return _selection(_larger, value_type)
        case "first":
            return _by_time(lambda old, new: new < old, value_type)
        case _:
            assert aggregate.kind == "last"
            return _by_time(lambda old, new: new >= old, value_type)


def _sum(name: str, input_type: pl.DataType | None) -> Fold:
    zero = 0.0 if input_type is not None and sums_to_float(input_type) else 0

    def plus(a: Any, b: Any) -> Any:
        total = a + b
        if isinstance(total, int) and not _INT64_MIN <= total <= _INT64_MAX:
            # As in the window table, so that a window can become a session.
            raise OverflowError(
                f"aggregate {name!r}: the sum does not fit in 64 bits; sum floats instead"
            )
        return total

    return Fold(
        lambda: zero,
        lambda acc, v, _t: acc if v is None else plus(acc, v),
        plus,
        _same,
        int | float,
    )


def _plus(a: Any, b: Any) -> Any:
    return a + b


def _same(accumulator: Any) -> Any:
    return accumulator


# Not a number is left out unless there is no other, as in the window table.
def _smaller(a: Any, b: Any) -> Any:
    return b if b < a or a != a else a


def _larger(a: Any, b: Any) -> Any:
    return b if b > a or a != a else a


def _selection(choose: Callable[[Any, Any], Any], value_type: Any) -> Fold:
    def merge(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return b if a is None else a
        return choose(a, b)

    to_stored = tagged if value_type is Any else None
    return Fold(lambda: None, lambda acc, v, _t: merge(acc, v), merge, _same, value_type, to_stored)


def _by_time(replaces: Callable[[int, int], bool], value_type: Any) -> Fold:
    # The accumulator is (time, value), None before the first value.
    def merge(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return b if a is None else a
        return b if replaces(a[0], b[0]) else a

    def add(acc: Any, value: Any, time_ms: int) -> Any:
        return acc if value is None else merge(acc, (time_ms, value))

    def to_stored(acc: Any) -> Any:
        return None if acc is None else (acc[0], tagged(acc[1]))

    return Fold(
        lambda: None,
        add,
        merge,
        lambda acc: None if acc is None else acc[1],
        tuple[int, value_type] | None,
        to_stored if value_type is Any else None,
    )


def _stored_type(dtype: pl.DataType | None) -> Any:
    # MessagePack has neither dates nor durations: they come back only if asked for.
    if dtype == pl.Duration:
        return dt.timedelta | None
    if dtype == pl.Time:
        return dt.time | None
    if dtype is not None and dtype.is_decimal():
        return Decimal | None
    if dtype == pl.Date:
        return dt.date | None
    if isinstance(dtype, pl.Datetime):
        return dt.datetime | None
    if dtype == pl.Binary:
        return bytes | None
    return Any


def _hint(aggregate: Aggregate[Any, Any, Any]) -> Any:
    try:
        hint = get_type_hints(type(aggregate).initial).get("return", Any)
    except Exception:
        # Names that exist for type checkers only; what MessagePack gives is then what it is.
        return Any
    return Any if isinstance(hint, msgspec.Raw) or not _is_concrete(hint) else hint


def _is_concrete(hint: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(hint)
    except TypeError:
        return False
    return hint is not None


class Folds:
    """Several named aggregates, folded together.

    Args:
        aggregates: Aggregate by name.
        input_types: Type of the aggregated column by name, where known.
    """

    def __init__(
        self, aggregates: Mapping[str, AnyAggregate], input_types: Mapping[str, pl.DataType]
    ) -> None:
        self.names = list(aggregates)
        self._own = {name for name, a in aggregates.items() if not is_built_in(a)}
        self._folds = [fold_of(name, a, input_types.get(name)) for name, a in aggregates.items()]
        self._to_stored = [
            (index, fold.to_stored) for index, fold in enumerate(self._folds) if fold.to_stored
        ]
        self._format = ValueFormat(
            tuple[tuple(fold.stored_as for fold in self._folds)]  # type: ignore[misc]
        )

    def inputs(self, rows: Sequence[Any] | None, columns: pl.DataFrame) -> list[tuple[Any, ...]]:
        """Return, record by record, the value for each aggregate.

        Args:
            rows: The records as Python objects; needed if any aggregate is a user's own.
            columns: Input columns by aggregate name.
        """
        count = columns.height if rows is None else len(rows)
        parts: list[Sequence[Any]] = []
        for name in self.names:
            if name in self._own:
                assert rows is not None
                parts.append(rows)
            elif name in columns.columns:
                parts.append(columns.get_column(name).to_list())
            else:
                parts.append([None] * count)
        return list(zip(*parts, strict=True))

    @property
    def needs_rows(self) -> bool:
        """Whether any aggregate is a user's own."""
        return bool(self._own)

    def initial(self) -> list[Any]:
        """Return the accumulators of no records."""
        return [fold.initial() for fold in self._folds]

    def add(self, accumulators: Sequence[Any], values: tuple[Any, ...], time_ms: int) -> list[Any]:
        """Return accumulators with one record more."""
        return [
            fold.add(acc, value, time_ms)
            for fold, acc, value in zip(self._folds, accumulators, values, strict=True)
        ]

    def merge(self, left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
        """Return the accumulators of two."""
        return [fold.merge(a, b) for fold, a, b in zip(self._folds, left, right, strict=True)]

    def result(self, accumulators: Sequence[Any]) -> dict[str, Any]:
        """Return what is emitted, by name."""
        return {
            name: fold.result(acc)
            for name, fold, acc in zip(self.names, self._folds, accumulators, strict=True)
        }

    def encode(self, accumulators: Sequence[Any]) -> bytes:
        """Return accumulators as bytes.

        Raises:
            TypeError: If one would not come back as what it is.
            OverflowError: If an integer has more than 64 bits.
        """
        kept = list(accumulators)
        for index, to_stored in self._to_stored:
            kept[index] = to_stored(kept[index])
        # Of the built-in ones it is known.
        return self._format.encode_exact(kept) if self._own else self._format.encode(kept)

    def decode(self, data: bytes) -> list[Any]:
        """Return the accumulators that ``encode`` wrote."""
        return list(self._format.decode(data))


class Reduction:
    """The accumulator of ``reduce``: a value, none before the first record. Takes Folds' seat.

    Args:
        function: Combines two values.
        value_format: How values are kept.
    """

    names: tuple[str, ...] = ()
    needs_rows = True

    def __init__(self, function: Callable[[Any, Any], Any], value_format: ValueFormat) -> None:
        self._function = function
        self._format = value_format

    def inputs(self, rows: Sequence[Any] | None, columns: pl.DataFrame) -> Sequence[Any]:
        """Return the rows."""
        del columns
        assert rows is not None
        return rows

    def initial(self) -> list[Any]:
        """Return the accumulator of no records."""
        return []

    def add(self, accumulators: Sequence[Any], values: Any, time_ms: int) -> list[Any]:
        """Return the accumulator with one record more."""
        del time_ms
        combined = self._function(accumulators[0], values) if accumulators else values
        # What cannot be kept is told here, where the record that brought it is known.
        self._format.check_exact(combined)
        return [combined]

    def merge(self, left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
        """Return the accumulator of two."""
        if not left or not right:
            return list(left or right)
        return [self._function(left[0], right[0])]

    def result(self, accumulators: Sequence[Any]) -> Any:
        """Return the value."""
        return accumulators[0]

    def encode(self, accumulators: Sequence[Any]) -> bytes:
        """Return the accumulator as bytes.

        Raises:
            TypeError: If it would not come back as what it is.
            OverflowError: If an integer has more than 64 bits.
        """
        return self._format.encode_exact(accumulators[0])

    def decode(self, data: bytes) -> list[Any]:
        """Return the accumulator that ``encode`` wrote."""
        return [self._format.decode(data)]
