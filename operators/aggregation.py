"""What is computed of a window or key, checked when the topology is built; opens its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import polars as pl

from riverrun.engine.errors import TopologyError
from riverrun.engine.schema import Schema

from .accumulators import Folds, Reduction
from .aggregates import NUMBERS_ONLY, Aggregate, AnyAggregate, BuiltIn, is_built_in, result_type
from .expressions import check_expressions
from .results import WINDOW_END, WINDOW_START, ResultShape
from .slices import AggregateInputs, ObjectSlices, PlaneSlices, SliceStore
from .values import ValueFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from riverrun.engine.operator import OperatorContext
    from riverrun.engine.plane import AggregateKind


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What is computed, whatever the window.

    Attributes:
        aggregates: Aggregate by name; empty for ``reduce``.
        reduce: Combines two values; None for aggregates.
        value_type: Type of the values that ``reduce`` keeps.
        shape: What results look like.
        input_types: Type of the aggregated column by name, where known.
    """

    shape: ResultShape
    aggregates: Mapping[str, AnyAggregate]
    reduce: Callable[[Any, Any], Any] | None = None
    value_type: Any = Any
    input_types: Mapping[str, pl.DataType] | None = None

    def folds(self) -> Folds | Reduction:
        """Return how records are folded in Python."""
        if self.reduce is not None:
            return Reduction(self.reduce, ValueFormat(self.value_type))
        return Folds(self.aggregates, self.input_types or {})

    def open_slices(self, context: OperatorContext) -> SliceStore:
        """Open the tables of a step: in the data plane if it knows all aggregates."""
        inputs = AggregateInputs(self.aggregates)
        kinds = self.built_in_kinds()
        if kinds is not None:
            name = f"{context.step}/table"
            prefix = context.state.open_prefix(name)
            table = context.plane.window_table(kinds, prefix, context.state.reader)
            context.state.register(name, table)
            return PlaneSlices(table, inputs, self.shape, context.failures)
        return ObjectSlices(self.folds(), inputs, self.shape, context)

    def built_in_kinds(self) -> dict[str, AggregateKind] | None:
        """Return what a data plane is to compute, None if something is the user's own."""
        if self.reduce is not None:
            return None
        kinds: dict[str, AggregateKind] = {
            name: a.kind for name, a in self.aggregates.items() if is_built_in(a)
        }
        return kinds if len(kinds) == len(self.aggregates) else None

    def check_merges(self) -> None:
        """Check that results of parts of a window can be put together.

        Raises:
            TopologyError: If an aggregate of the user's cannot.
        """
        for name, aggregate in self.aggregates.items():
            if not isinstance(aggregate, Aggregate):
                continue
            own: Aggregate[Any, Any, Any] = aggregate
            if type(own).merge is Aggregate[Any, Any, Any].merge:
                raise TopologyError(
                    f"{name}={type(aggregate).__name__}() does not define merge, which is needed "
                    "for hopping and session windows"
                )

    def signature(self) -> str:
        """Return what must not change as long as there is state."""
        if self.reduce is not None:
            return f"reduce({getattr(self.value_type, '__name__', self.value_type)})"
        return ",".join(f"{name}={_named(each)}" for name, each in self.aggregates.items())


def _named(aggregate: AnyAggregate) -> str:
    if isinstance(aggregate, Aggregate):
        return type(aggregate).__name__
    if aggregate.expression is None:
        return aggregate.kind
    # The columns, not the text of the expression, which changes with versions of Polars.
    return f"{aggregate.kind}({','.join(aggregate.expression.meta.root_names())})"


def check_aggregates(
    schema: Schema | None,
    aggregates: Mapping[str, AnyAggregate],
    step: str,
    reserved: tuple[str, ...],
) -> dict[str, pl.DataType]:
    """Return the types of the aggregated columns, by name, as far as they are known.

    Args:
        schema: Schema of the records.
        aggregates: Aggregate by name.
        step: Name of the step, for the message.
        reserved: Columns that results have anyway.

    Raises:
        TopologyError: If there is none, one does not fit the records, or a name is taken.
    """
    if not aggregates:
        raise TopologyError(f"step {step!r} takes at least one aggregate, like total=Sum('amount')")
    input_types: dict[str, pl.DataType] = {}
    for name, aggregate in aggregates.items():
        if name in reserved or name.startswith("__"):
            raise TopologyError(
                f"step {step!r}: results have a column {name!r} of their own; call the aggregate "
                "something else"
            )
        if not isinstance(aggregate, (*get_args(BuiltIn), Aggregate)):
            raise TopologyError(
                f"step {step!r}: {name}={aggregate!r} is not an aggregate; use an instance of "
                "Sum, Count, Min, Max, Mean, First, Last or of a subclass of Aggregate"
            )
        if isinstance(aggregate, Aggregate) or aggregate.expression is None:
            continue
        found = check_expressions(schema, [aggregate.expression], step)
        if found is None:
            continue
        if len(found) != 1:
            raise TopologyError(f"step {step!r}: {name} is of {len(found)} columns, not of one")
        (dtype,) = found.values()
        if aggregate.kind in NUMBERS_ONLY and not (dtype.is_numeric() or dtype == pl.Boolean):
            raise TopologyError(
                f"step {step!r}: {name}={type(aggregate).__name__}(...) needs a number, the column "
                f"is {dtype}"
            )
        input_types[name] = dtype
    return input_types


def result_schema(
    schema: Schema | None,
    key_names: tuple[str, ...],
    aggregates: Mapping[str, AnyAggregate],
    input_types: Mapping[str, pl.DataType],
    *,
    windowed: bool,
) -> Schema | None:
    """Return the schema of results, None if the type of any column is unknown."""
    if schema is None:
        return None
    fields: dict[str, pl.DataType | None] = {name: schema.fields.get(name) for name in key_names}
    if windowed:
        fields |= {WINDOW_START: pl.Int64(), WINDOW_END: pl.Int64()}
    for name, aggregate in aggregates.items():
        own = isinstance(aggregate, Aggregate)
        fields[name] = None if own else result_type(aggregate, input_types.get(name))
    return None if None in fields.values() else Schema(None, fields)


def reduced_aggregation(
    schema: Schema | None,
    key_names: tuple[str, ...],
    function: Callable[[Any, Any], Any],
    declared: Any,
) -> Aggregation:
    """Return the aggregation of a ``reduce``.

    Raises:
        TopologyError: If values of the declared type cannot be kept.
    """
    if declared is None:
        declared = schema.record_type if schema is not None and schema.record_type else Any
    ValueFormat(declared)
    return Aggregation(ResultShape(key_names, schema), {}, reduce=function, value_type=declared)
