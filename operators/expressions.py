"""Polars expressions of users: checked when the topology is built, evaluated a batch at a time."""

from __future__ import annotations

import datetime as dt
import difflib
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from riverrun.engine.errors import TopologyError
from riverrun.engine.labels import RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Failures
    from riverrun.engine.schema import Schema

R = TypeVar("R")


# --- when the topology is built ------------------------------------------------------------------


def check_field(schema: Schema | None, field: str, step: str, use: str) -> pl.DataType | None:
    """Return the column type of a field, None if it is unknown.

    Args:
        schema: Schema of the stream, None if unknown.
        field: Name of the field.
        step: Name of the step, for the message.
        use: What the field is for: ``key_by``.

    Raises:
        TopologyError: If the stream has no such field.
    """
    if schema is None:
        return None
    if field not in schema.fields:
        raise TopologyError(f"step {step!r}: {use} names {_unknown(field, schema)}")
    return schema.fields[field]


def _unknown(field: str, schema: Schema) -> str:
    close = difflib.get_close_matches(field, list(schema.fields), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown field {field!r}: the stream has {', '.join(schema.fields)}{hint}"


def check_expressions(
    schema: Schema | None, expressions: Sequence[pl.Expr], step: str
) -> dict[str, pl.DataType] | None:
    """Return the columns that expressions give, None if the stream's schema is unknown.

    Args:
        schema: Schema of the stream.
        expressions: What a user wrote.
        step: Name of the step, for the message.

    Raises:
        TopologyError: If they use an unknown field or types that do not go together, give two
            columns of one name, or mix the records of a batch (like ``pl.col("x").sum()``).
    """
    if schema is None:
        return None
    for name in _roots(expressions):
        if name in schema.fields:
            if schema.fields[name] is None:
                raise TopologyError(
                    f"step {step!r}: field {name!r} has no column form; use a Python function in "
                    "place of the expression"
                )
        elif not (name.startswith("^") and name.endswith("$")):
            raise TopologyError(f"step {step!r}: the expression uses {_unknown(name, schema)}")
    try:
        found = pl.LazyFrame(schema=schema.columns).select(expressions).collect_schema()
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n", 1)[0]
        raise TopologyError(f"step {step!r}: the expression does not fit: {reason}") from error
    for name in RESERVED:
        if name in found:
            raise TopologyError(
                f"step {step!r}: the name {name!r} is the engine's own; call the column something "
                "else. Keys are set by key_by(...), event times by source(..., event_time=...)"
            )
    _check_by_record(schema, expressions, step)
    return dict(found)


def _roots(expressions: Sequence[pl.Expr]) -> list[str]:
    names = [name for expression in expressions for name in expression.meta.root_names()]
    return list(dict.fromkeys(names))


def _check_by_record(schema: Schema, expressions: Sequence[pl.Expr], step: str) -> None:
    """Find expressions whose result for a record depends on the other records of its batch.

    Which records share a batch is chance, so their results would change from run to run. Polars
    does not tell, so they are tried on a few made-up records: together, and one by one.
    """
    try:
        sample = pl.DataFrame([_sample(name, dtype) for name, dtype in schema.columns.items()])
    except Exception:
        return
    if all(_goes_by_record(expression, sample) for expression in expressions):
        return
    raise TopologyError(
        f"step {step!r}: the expression mixes records: what it gives for one depends on which "
        "others are in its batch, which is chance. Use key_by(...).window(...).aggregate(...) or "
        "aggregate(...) to combine records"
    )


def _goes_by_record(expression: pl.Expr, sample: pl.DataFrame) -> bool:
    try:
        together = sample.select(expression)
        alone = [sample[i : i + 1].select(expression) for i in range(sample.height)]
    except Exception:
        # The made-up values do not suit the expression; nothing can be said.
        return True
    if together.height == 1 and all(frame.equals(together) for frame in alone):
        return True  # A constant.
    return all(frame.height == 1 for frame in alone) and pl.concat(alone).equals(together)


def _sample(name: str, dtype: pl.DataType) -> pl.Series:
    a, b = _sample_pair(dtype)
    return pl.Series(name, [a, b, a, None, b], dtype=dtype)


def _sample_pair(dtype: pl.DataType) -> tuple[Any, Any]:
    pairs: dict[type[pl.DataType], tuple[Any, Any]] = {
        pl.String: ("a", "bb"),
        pl.Boolean: (True, False),
        pl.Binary: (b"a", b"bb"),
        pl.Date: (dt.date(2024, 1, 2), dt.date(2025, 3, 4)),
    }
    for kind, pair in pairs.items():
        if dtype == kind:
            return pair
    if isinstance(dtype, pl.Datetime):
        zone = dt.UTC if dtype.time_zone else None
        return dt.datetime(2024, 1, 2, tzinfo=zone), dt.datetime(2025, 3, 4, 5, tzinfo=zone)
    if isinstance(dtype, pl.List):
        inner = _sample_pair(dtype.inner)  # pyright: ignore[reportArgumentType]
        return [inner[0]], [inner[1], inner[0]]
    if isinstance(dtype, pl.Struct):
        fields = {field.name: _sample_pair(field.dtype) for field in dtype.fields}  # pyright: ignore[reportArgumentType]
        return (
            {name: pair[0] for name, pair in fields.items()},
            {name: pair[1] for name, pair in fields.items()},
        )
    return 1, 3


def check_predicate(schema: Schema | None, predicate: pl.Expr, step: str) -> None:
    """Check that an expression is a condition.

    Raises:
        TopologyError: If it is not one column of type Boolean, or does not fit the stream.
    """
    columns = check_expressions(schema, [predicate], step)
    if columns is None:
        return
    if len(columns) != 1 or next(iter(columns.values())) != pl.Boolean:
        kinds = ", ".join(str(dtype) for dtype in columns.values())
        raise TopologyError(
            f"step {step!r}: the condition gives {kinds}, not Boolean; compare it with something, "
            "like pl.col('amount') > 0"
        )


def is_one_of(dtype: pl.DataType, *kinds: type[pl.DataType]) -> bool:
    """Return whether a column type is of one of some kinds."""
    return any(dtype == kind for kind in kinds)


def plain_column(expression: pl.Expr) -> str | None:
    """Return the name of the column if an expression is nothing but that column."""
    roots = expression.meta.root_names()
    if len(roots) == 1 and expression.meta.eq(pl.col(roots[0])):
        return roots[0]
    return None


# --- when it runs --------------------------------------------------------------------------------


class Expressions:
    """Expressions that are evaluated together, one output row per record.

    A field that no record of a batch has is null, as it is when some of them have it.

    Args:
        expressions: What a user wrote, checked.
    """

    def __init__(self, expressions: Sequence[pl.Expr]) -> None:
        self._expressions = list(expressions)
        self._roots = [n for n in _roots(self._expressions) if not n.startswith("^")]
        # Those that name no columns, like pl.all(), may read any.
        self._reads_all = any(each.meta.has_multiple_outputs() for each in self._expressions)
        self._reads_none = all(
            each.meta.is_literal(allow_aliasing=True) for each in self._expressions
        )
        self._plain = _plain_columns(self._expressions)

    def evaluate(self, batch: Batch) -> pl.DataFrame:
        """Return the columns that the expressions give.

        Raises:
            Exception: Whatever Polars raises, for instance for a cast that fails.
        """
        if self._reads_none:
            frame = batch.time_column().to_frame()
        elif self._reads_all or not self._roots:
            frame = batch.values_frame()
        else:
            frame = batch.columns(self._roots)
        missing = [name for name in self._roots if name not in frame.columns]
        if missing:
            nulls = [pl.Series(name, [None] * len(batch), dtype=pl.Null) for name in missing]
            frame = pl.DataFrame([*frame.get_columns(), *nulls])
        if self._plain is not None:
            # Without Polars' query engine, which costs more than a small batch is worth.
            return pl.DataFrame([frame.get_column(root).alias(n) for root, n in self._plain])
        result = frame.select(self._expressions)
        if result.height == len(batch):
            return result
        if result.height == 1:
            return result[[0] * len(batch)]
        raise ValueError(
            f"the expression gave {result.height} rows for {len(batch)} records; use flat_map for "
            "more or fewer"
        )


def _plain_columns(expressions: list[pl.Expr]) -> list[tuple[str, str]] | None:
    """Return column and output name of each, None if any is more than a column."""
    plain: list[tuple[str, str]] = []
    for expression in expressions:
        column = plain_column(expression.meta.undo_aliases())
        if column is None or expression.meta.has_multiple_outputs():
            return None
        plain.append((column, expression.meta.output_name()))
    return plain


def isolate(
    batch: Batch, evaluate: Callable[[Batch], R], failures: Failures
) -> list[tuple[Batch, R]]:
    """Evaluate a batch; where that raises, halve it until the records that cause it are alone.

    Args:
        batch: The records.
        evaluate: What to do; without side effects, since it is repeated.
        failures: The policy for the records that cannot be evaluated.

    Returns:
        The parts that could be evaluated, in order, each with its result; the whole batch as one
        part if nothing was wrong.
    """
    try:
        return [(batch, evaluate(batch))]
    except Exception as error:
        if len(batch) == 1:
            failures.record_failed(batch, 0, error)
            return []
    middle = len(batch) // 2
    return [
        *isolate(batch.take(list(range(middle))), evaluate, failures),
        *isolate(batch.take(list(range(middle, len(batch)))), evaluate, failures),
    ]
