"""What several verbs check in their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

import polars as pl

from riverrun.engine.errors import TopologyError

from .aggregates import Aggregate, BuiltIn
from .expressions import is_one_of, plain_column
from .results import WINDOW_END, WINDOW_START

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY_TYPES = (pl.String, pl.Boolean, pl.Binary)

NEEDS_KEY = ("window", "aggregate", "reduce", "process")
"""The verbs that only a stream with keys has."""


def check_partitions(partitions: Any, what: str) -> None:
    """Check a number of partitions.

    Raises:
        TopologyError: If it is neither None nor a positive integer.
    """
    if partitions is None:
        return
    if not isinstance(partitions, int) or isinstance(partitions, bool):
        raise TopologyError(f"{what}: partitions={partitions!r} is not a whole number, like 4")
    if partitions < 1:
        raise TopologyError(f"{what}: partitions={partitions} is below 1")


def check_key_type(dtype: pl.DataType | None, what: str, step: str) -> None:
    """Check that a column can be a key.

    Raises:
        TopologyError: If equal values of it may have different bytes, or none.
    """
    if dtype is not None and (dtype.is_integer() or is_one_of(dtype, *_KEY_TYPES)):
        return
    kind = "a type without column form" if dtype is None else str(dtype)
    raise TopologyError(
        f"step {step!r}: {what} is {kind}, which has no exact bytes to partition by; keys are "
        "text, integers, booleans or bytes"
    )


def check_own_aggregates(aggregates: Mapping[str, Any], step: str) -> None:
    """Check that aggregates of the user's do something.

    Raises:
        TopologyError: If one is of the base class itself, or a method is missing.
    """
    for name, aggregate in aggregates.items():
        if not isinstance(aggregate, Aggregate):
            continue
        own = cast("type[Any]", type(cast("Any", aggregate)))
        missing = [
            method
            for method in ("initial", "add", "result")
            if getattr(own, method) is getattr(Aggregate, method)
        ]
        if missing:
            raise TopologyError(
                f"step {step!r}: {name}={own.__name__}() does not define {', '.join(missing)}; "
                "write a subclass of Aggregate that does"
            )


def check_window_fields(key_names: tuple[str, ...], step: str) -> None:
    """Check that the key's fields can stand beside the bounds of a window in its results.

    Raises:
        TopologyError: If they are called the same.
    """
    for name in key_names:
        if name in (WINDOW_START, WINDOW_END):
            raise TopologyError(
                f"step {step!r}: results would have two columns {name!r}, the key and a bound of "
                f"the new window; rename the field before key_by, like "
                f".map(pl.col({name!r}).alias('earlier_{name.removeprefix('window_')}'), ...)"
                f".key_by('earlier_{name.removeprefix('window_')}')"
            )


def as_expressions(step: str, positional: tuple[Any, ...], named: dict[str, Any]) -> list[pl.Expr]:
    """Return the expressions of a verb, with their names.

    Raises:
        TopologyError: If one is no expression, or there is none.
    """
    if not positional and not named:
        raise TopologyError(f"step {step!r} takes a function of the value, or Polars expressions")
    for value in (*positional, *named.values()):
        if not isinstance(value, pl.Expr):
            raise TopologyError(
                f"step {step!r}: {value!r} is not a Polars expression; give one function, or "
                "expressions only, like pl.col('user')"
            )
    return [*positional, *(expression.alias(column) for column, expression in named.items())]


def kept_fields(
    fields: tuple[str, ...] | None, expressions: list[pl.Expr]
) -> tuple[str, ...] | None:
    """Return ``fields`` if all of them pass through the expressions as they are."""
    if fields is None:
        return None
    kept = {column for e in expressions if (column := plain_column(e)) is not None}
    if any(e.meta.eq(pl.all()) for e in expressions):
        # An alias of that name would be a second column of that name, which was refused.
        return fields
    return fields if kept.issuperset(fields) else None


def if_column(value: Any, parameter: str) -> str:
    """Return how to have a column that is called like a parameter, if that may be meant."""
    if isinstance(value, (Aggregate, *get_args(BuiltIn))):
        return (
            f"; {parameter}= is a parameter of this verb. Call the aggregate something else, and "
            f"rename it in a map behind it: pl.col('other').alias({parameter!r})"
        )
    if isinstance(value, pl.Expr):
        return f"; a column called {parameter!r} is written expression.alias({parameter!r})"
    return ""
