"""Aggregates: what is computed of the records of a window or key.

All that name a field skip records where it is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import polars as pl

from riverrun.engine.errors import TopologyError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from riverrun.engine.plane import AggregateKind

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

Field = str | pl.Expr
"""A field name, or a Polars expression over the fields."""


class Aggregate(Generic[T, A, R]):
    """Base class of a user's own aggregates; ``T`` record, ``A`` accumulator, ``R`` result.

    Accumulators are kept as MessagePack between batches: use numbers, text, lists, dicts,
    dataclasses or Structs. Annotate what ``initial`` returns, so that they come back as that type
    (``set[str]``, a Struct, ...).

    Example:
        >>> class Longest(Aggregate[dict[str, str], str, int]):
        ...     def initial(self) -> str:
        ...         return ""
        ...
        ...     def add(self, accumulator: str, row: dict[str, str]) -> str:
        ...         return max(accumulator, row["word"], key=len)
        ...
        ...     def merge(self, left: str, right: str) -> str:
        ...         return max(left, right, key=len)
        ...
        ...     def result(self, accumulator: str) -> int:
        ...         return len(accumulator)
        >>> longest = Longest()
        >>> longest.result(longest.add(longest.initial(), {"word": "river"}))
        5
    """

    def initial(self) -> A:
        """Return the accumulator of no records."""
        raise NotImplementedError

    def add(self, accumulator: A, row: T) -> A:
        """Return the accumulator with one record more. May change and return the one it got."""
        raise NotImplementedError

    def merge(self, left: A, right: A) -> A:
        """Return the accumulator of the records of both, those of ``left`` being earlier.

        Needed for hopping and session windows.
        """
        raise NotImplementedError

    def result(self, accumulator: A) -> R:
        """Return what is emitted."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _OfField:
    """An aggregate that the data plane knows, over one field."""

    field: Field

    kind: ClassVar[AggregateKind]

    def __post_init__(self) -> None:
        """Reject what names no field."""
        if not isinstance(self.field, (str, pl.Expr)):
            raise TopologyError(
                f"{type(self).__name__}({self.field!r}): give a field name or a Polars expression"
            )

    @property
    def expression(self) -> pl.Expr | None:
        """What is aggregated."""
        return pl.col(self.field) if isinstance(self.field, str) else self.field


@dataclass(frozen=True, slots=True)
class Count:
    """Number of records; with a field, of those where it is not null. Int.

    Example:
        >>> Count().kind, Count("coupon").kind
        ('count', 'count_values')
    """

    field: Field | None = None

    def __post_init__(self) -> None:
        """Reject what names no field."""
        if self.field is not None and not isinstance(self.field, (str, pl.Expr)):
            raise TopologyError(f"Count({self.field!r}): give a field name, or nothing")

    @property
    def kind(self) -> AggregateKind:
        """What the data plane calls it."""
        return "count" if self.field is None else "count_values"

    @property
    def expression(self) -> pl.Expr | None:
        """What is counted, None for records."""
        return pl.col(self.field) if isinstance(self.field, str) else self.field


@dataclass(frozen=True, slots=True)
class Sum(_OfField):
    """Sum of a field; 0 if it is always null. Int for integers, else float."""

    kind: ClassVar[AggregateKind] = "sum"


@dataclass(frozen=True, slots=True)
class Mean(_OfField):
    """Mean of a field; null if it is always null. Float."""

    kind: ClassVar[AggregateKind] = "mean"


@dataclass(frozen=True, slots=True)
class Min(_OfField):
    """Smallest value of a field; null if it is always null."""

    kind: ClassVar[AggregateKind] = "min"


@dataclass(frozen=True, slots=True)
class Max(_OfField):
    """Largest value of a field; null if it is always null."""

    kind: ClassVar[AggregateKind] = "max"


@dataclass(frozen=True, slots=True)
class First(_OfField):
    """Value of a field in the record with the earliest event time; of equals the first to come."""

    kind: ClassVar[AggregateKind] = "first"


@dataclass(frozen=True, slots=True)
class Last(_OfField):
    """Value of a field in the record with the latest event time; of equals the last to come."""

    kind: ClassVar[AggregateKind] = "last"


BuiltIn = Count | Sum | Mean | Min | Max | First | Last
AnyAggregate = BuiltIn | Aggregate[Any, Any, Any]

NUMBERS_ONLY = ("sum", "mean")


def is_built_in(aggregate: AnyAggregate) -> TypeIs[BuiltIn]:
    """Return whether the data plane knows an aggregate."""
    return not isinstance(aggregate, Aggregate)


def sums_to_float(dtype: pl.DataType) -> bool:
    """Return whether the sum of a column is a float, else an integer."""
    return dtype.is_float() or dtype.is_decimal()


def result_type(aggregate: BuiltIn, input_type: pl.DataType | None) -> pl.DataType | None:
    """Return the column type of a result, None if unknown."""
    match aggregate.kind:
        case "count" | "count_values":
            return pl.Int64()
        case "mean":
            return pl.Float64()
        case "sum" if input_type is not None:
            return pl.Float64() if sums_to_float(input_type) else pl.Int64()
        case _:
            return input_type
