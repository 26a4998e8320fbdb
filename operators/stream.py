"""The fluent API: a stream of records, and the verbs that make other streams of it.

Nothing runs here. Each verb checks what it was given, adds a step to the topology's graph and
returns the stream of its results. A stream may be used any number of times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast, overload

import polars as pl

from riverrun.engine.errors import TopologyError
from riverrun.engine.graph import Edge, RepartitionNode, SinkNode
from riverrun.engine.schema import Schema

from .branch import Branch
from .callables import (
    check_callable,
    is_async,
    returned_element_schema,
    returned_schema,
)
from .checks import NEEDS_KEY, as_expressions, check_key_type, check_partitions, kept_fields
from .durations import Duration, positive_duration_ms
from .expressions import (
    check_expressions,
    check_field,
    check_predicate,
    plain_column,
)
from .filter import Filter
from .key_by import KeyBy
from .map import FlatMap, Map, MapBatches, MapColumns
from .map_async import MapAsync, Retry
from .steps import Steps, check_on_error
from .topic import Topic
from .union import Union

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from riverrun.engine.operator import OnError

    from .keyed import KeyedStream

T = TypeVar("T")
U = TypeVar("U")


class Stream(Generic[T]):
    """A stream of records of type ``T``; made by ``Topology.source`` and by the verbs.

    Args:
        steps: The topology under construction.
        edge: Where the records come from.
        schema: What they look like, None if unknown.
        partitioned_by: Fields whose values decide which task a record is in, None if unknown.
    """

    def __init__(
        self,
        steps: Steps,
        edge: Edge,
        schema: Schema | None,
        partitioned_by: tuple[str, ...] | None = None,
    ) -> None:
        self._steps = steps
        self._edge = edge
        self._schema = schema
        self._partitioned_by = partitioned_by

    @property
    def schema(self) -> Schema | None:
        """What records look like, None if unknown."""
        return self._schema

    @property
    def edge(self) -> Edge:
        """The step and port that the records come from."""
        return self._edge

    @property
    def steps(self) -> Steps:
        """The topology under construction."""
        return self._steps

    @property
    def partitioned_by(self) -> tuple[str, ...] | None:
        """Fields whose values decide which task a record is in, None if unknown."""
        return self._partitioned_by

    def __repr__(self) -> str:
        """Return the step, as in messages."""
        return f"{type(self).__name__}({self._steps.graph.name}/{self._edge.step})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Tell what to do about the verbs that are for streams with keys."""
            if name in NEEDS_KEY:
                raise AttributeError(
                    f"{self!r} has no {name}(...): its records have no key; call key_by(...) "
                    f"first, like stream.key_by('user').{name}(...)"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- verbs -----------------------------------------------------------------------------------

    def filter(
        self,
        predicate: pl.Expr | Callable[[T], object],
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Self:
        """Keep the records for which a condition holds.

        Args:
            predicate: A Polars expression (null counts as false), or a function of the value.
            name: Name of the step.
            on_error: What becomes of records for which it raises.

        Raises:
            TopologyError: If the expression does not fit the stream or is no condition.

        Example:
            >>> orders.filter(pl.col("amount") > 0)  # doctest: +SKIP
            >>> orders.filter(lambda order: order.amount > 0)  # doctest: +SKIP
        """
        step = self._steps.name("filter", name)
        self._check_condition(predicate, step)
        edge = self._add("filter", step, Filter(predicate), self._schema, on_error)
        return self.same_at(edge)

    @overload
    def map(
        self,
        function: Callable[[T], U],
        /,
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[U]: ...

    @overload
    def map(
        self,
        /,
        *expressions: pl.Expr,
        name: str | None = None,
        on_error: OnError = "fail",
        **named: pl.Expr,
    ) -> Stream[dict[str, Any]]: ...

    def map(
        self,
        /,
        *functions: Any,
        name: str | None = None,
        on_error: OnError = "fail",
        **named: pl.Expr,
    ) -> Stream[Any]:
        """Give each record another value: what a function returns, or the columns of expressions.

        The event time and the key of a record stay.

        Args:
            functions: One function of the value; or any number of Polars expressions, whose columns
                are the new value, as in ``DataFrame.select``.
            name: Name of the step.
            on_error: What becomes of records for which it raises.
            named: Further expressions, by the name of their column.

        Raises:
            TopologyError: If an expression does not fit the stream, or the function is async.

        Example:
            >>> orders.map(lambda order: order.discounted())  # doctest: +SKIP
            >>> orders.map(pl.col("user"), total=pl.col("price") * pl.col("n"))  # doctest: +SKIP
        """
        step = self._steps.name("map", name)
        if len(functions) == 1 and not named and not isinstance(functions[0], pl.Expr):
            function = functions[0]
            check_callable(function, step, "a function of the value, or Polars expressions")
            schema = returned_schema(function)
            edge = self._add("map", step, Map(function, schema), schema, on_error)
            return self._changed(edge, schema, None)
        expressions = as_expressions(step, functions, named)
        found = check_expressions(self._schema, expressions, step)
        schema = None if found is None else Schema(None, found)
        operator = MapColumns(tuple(expressions))
        edge = self._add("map", step, operator, schema, on_error)
        return self._changed(edge, schema, kept_fields(self._partitioned_by, expressions))

    def map_batches(
        self,
        function: Callable[[pl.DataFrame], pl.DataFrame],
        *,
        returns: type[U],
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[U]:
        """Give records the values that a function computes for many of them at once, in columns.

        How many there are in a batch is chance: a row may depend on its own record only.

        Args:
            function: Called with a frame of the values; returns one with a row for each.
            returns: Record type of its rows.
            name: Name of the step.
            on_error: What becomes of records for which it raises; which ones is found by halving.

        Raises:
            TopologyError: If it is not a plain function, or ``returns`` no record type.

        Example:
            >>> orders.map_batches(score, returns=Scored)  # doctest: +SKIP
        """
        step = self._steps.name("map_batches", name)
        check_callable(function, step, "a function of a polars.DataFrame")
        schema = Schema.of(returns)
        edge = self._add("map_batches", step, MapBatches(function, schema), schema, on_error)
        return self._changed(edge, schema, None)

    def flat_map(
        self,
        function: Callable[[T], Iterable[U]],
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[U]:
        """Give each record zero or more values, each with its event time and key.

        Args:
            function: Called with the value; returns a list or any other iterable.
            name: Name of the step.
            on_error: What becomes of records for which it raises.

        Raises:
            TopologyError: If it is not a plain function.

        Example:
            >>> lines.flat_map(lambda line: line.split())  # doctest: +SKIP
        """
        step = self._steps.name("flat_map", name)
        check_callable(function, step, "a function that returns a list of values")
        schema = returned_element_schema(function)
        edge = self._add("flat_map", step, FlatMap(function, schema), schema, on_error)
        return self._changed(edge, schema, None)

    def map_async(
        self,
        function: Callable[[T], Awaitable[U]],
        *,
        in_flight: int = 100,
        ordered: Literal["key", "stream"] = "key",
        timeout: Duration = "10s",
        retry: Retry | None = None,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> Stream[U]:
        """Give each record the value that a coroutine function returns, many at a time.

        A barrier waits for the calls before it, so results are exactly once; the calls themselves
        may be repeated after a crash.

        Args:
            function: Called with the value.
            in_flight: How many calls run at once in one task.
            ordered: ``key`` keeps the order of the records of each key; ``stream`` of all.
            timeout: How long one attempt may take.
            retry: How often a failed attempt is repeated; None: not.
            name: Name of the step.
            on_error: What becomes of records for which the last attempt failed.

        Raises:
            TopologyError: If it is not a coroutine function, or a number makes no sense.

        Example:
            >>> async def country_of(visit: Visit) -> str: ...  # doctest: +SKIP
            >>> visits.map_async(country_of, retry=Retry(attempts=3))  # doctest: +SKIP
        """
        step = self._steps.name("map_async", name)
        if not callable(function) or not is_async(function):
            raise TopologyError(
                f"step {step!r} takes an async def function, got {function!r}; use map(...) for a "
                "plain one"
            )
        operator = MapAsync(
            function,
            in_flight=in_flight,
            ordered=ordered,
            timeout_ms=positive_duration_ms(timeout, f"step {step!r}: timeout"),
            retry=retry or Retry(attempts=1),
        )
        schema = returned_schema(function)
        edge = self._add("map_async", step, operator, schema, on_error)
        return self._changed(edge, schema, None)

    def key_by(
        self,
        key: str | pl.Expr | Callable[[T], Any],
        *more: str,
        partitions: int | None = None,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> KeyedStream[T]:
        """Put records under a key, so that all records of a key meet in one task.

        They move through an internal topic, unless they are where they belong already: the source
        is ``keyed_by`` the field, or an earlier ``key_by`` named it.

        Args:
            key: Name of a field, a Polars expression, or a function of the value.
            more: Names of further fields, for a composite key.
            partitions: Partitions of the internal topic; None: as many as the input has.
            name: Name of the step.
            on_error: What becomes of records without a key.

        Raises:
            TopologyError: If there is no such field, or its type cannot be a key.

        Example:
            >>> orders.key_by("user")  # doctest: +SKIP
            >>> orders.key_by("country", "user")  # doctest: +SKIP
        """
        from .keyed import KeyedStream  # A KeyedStream is a Stream: its module needs this one.

        step = self._steps.name("key_by", name)
        check_partitions(partitions, f"step {step!r}")
        resolved, fields = self._resolve_key(key, more, step)
        stays = fields is not None and partitions is None and fields == self._partitioned_by
        if stays and isinstance(self, KeyedStream) and self.key_names == fields:
            return self
        edge = self._add("key_by", step, KeyBy(resolved), self._schema, on_error)
        if not stays:
            name = self._steps.name("", f"{step}-repartition")
            edge = self._steps.add(RepartitionNode(name, edge, self._schema, partitions))
        return KeyedStream(self._steps, edge, self._schema, fields, key_names=fields)

    def union(self, *others: Stream[T], name: str | None = None) -> Stream[T]:
        """Put the records of this stream and others into one.

        Args:
            others: Streams of the same topology.
            name: Name of the step.

        Raises:
            TopologyError: If one is of another topology.

        Example:
            >>> web_orders.union(shop_orders, phone_orders)  # doctest: +SKIP
        """
        edge, schema, _ = self._union(others, name)
        same = all(other.partitioned_by == self._partitioned_by for other in others)
        return Stream(self._steps, edge, schema, self._partitioned_by if same else None)

    def branch(
        self,
        *predicates: pl.Expr | Callable[[T], object],
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> tuple[Self, ...]:
        """Split the stream: each record goes to the first branch whose condition holds.

        Args:
            predicates: Conditions, as in ``filter``.
            name: Name of the step.
            on_error: What becomes of records for which a condition raises.

        Returns:
            A stream per condition, and one more for the records that match none.

        Raises:
            TopologyError: If a condition does not fit the stream.

        Example:
            >>> large, small, rest = orders.branch(
            ...     pl.col("amount") > 100, pl.col("amount") > 0
            ... )  # doctest: +SKIP
        """
        step = self._steps.name("branch", name)
        if not predicates:
            raise TopologyError(f"step {step!r} takes at least one condition")
        for predicate in predicates:
            self._check_condition(predicate, step)
        edge = self._add("branch", step, Branch(predicates), self._schema, on_error)
        return tuple(self.same_at(Edge(edge.step, port)) for port in range(len(predicates) + 1))

    def sink(
        self, topic: Topic[Any], *, name: str | None = None, on_error: OnError = "fail"
    ) -> None:
        """Write the records to a topic, under their key, with their event time.

        Args:
            topic: Where to.
            name: Name of the step.
            on_error: What becomes of values that cannot be written or are too large.

        Raises:
            TopologyError: If the topic is also a source of this stream.

        Example:
            >>> orders.sink(Topic("orders-copy"))  # doctest: +SKIP
        """
        step = self._steps.name("sink", name)
        if not isinstance(topic, Topic):
            raise TopologyError(f"step {step!r} takes a Topic, got {topic!r}; write Topic('name')")
        self._steps.check_no_cycle(self._edge, topic.name, step)
        self._steps.add(
            SinkNode(
                step,
                self._edge,
                topic.name,
                topic.codec(self._steps.default_codec),
                check_on_error(on_error, step),
                partitions=topic.partitions,
                retention_ms=topic.retention_ms,
            )
        )

    # --- what verbs share ------------------------------------------------------------------------

    def _add(
        self, kind: str, step: str, operator: Any, schema: Schema | None, on_error: OnError
    ) -> Edge:
        return self._steps.add_operator(kind, step, operator, (self._edge,), schema, on_error)

    def same_at(self, edge: Edge) -> Self:
        """Return the stream of some of these records, unchanged, that comes from ``edge``."""
        same = Stream[T](self._steps, edge, self._schema, self._partitioned_by)
        return cast("Self", same)

    def _changed(
        self, edge: Edge, schema: Schema | None, partitioned_by: tuple[str, ...] | None
    ) -> Stream[Any]:
        """Return the stream of other values for these records."""
        return Stream(self._steps, edge, schema, partitioned_by)

    def _check_condition(self, predicate: Any, step: str) -> None:
        if isinstance(predicate, pl.Expr):
            check_predicate(self._schema, predicate, step)
        else:
            check_callable(predicate, step, "a Polars expression or a function of the value")

    def _union(
        self, others: tuple[Stream[T], ...], name: str | None
    ) -> tuple[Edge, Schema | None, str]:
        step = self._steps.name("union", name)
        if not others:
            raise TopologyError(f"step {step!r} takes at least one other stream")
        for other in others:
            if not isinstance(other, Stream):
                raise TopologyError(f"step {step!r} takes streams, got {other!r}")
            if other.steps is not self._steps:
                raise TopologyError(
                    f"step {step!r}: {other!r} belongs to another topology; write it to a topic "
                    "there, and read that topic here"
                )
        edges = tuple(dict.fromkeys([self._edge, *(other.edge for other in others)]))
        if len(edges) <= len(others):
            raise TopologyError(f"step {step!r} got one stream twice; its records would be doubled")
        same = all(other.schema == self._schema for other in others)
        schema = self._schema if same else None
        edge = self._steps.add_operator("union", step, Union(), edges, schema, "fail")
        return edge, schema, step

    def _resolve_key(
        self, key: Any, more: tuple[str, ...], step: str
    ) -> tuple[Any, tuple[str, ...] | None]:
        """Return what the operator gets, and the names of the key's fields if they are fields."""
        if isinstance(key, pl.Expr) and not more:
            column = plain_column(key)
            if column is None:
                found = check_expressions(self._schema, [key], step)
                for dtype in (found or {}).values():
                    check_key_type(dtype, "the key expression", step)
                return key, None
            key = column
        if isinstance(key, str):
            fields = (key, *more)
            for field in fields:
                if not isinstance(field, str):
                    raise TopologyError(f"step {step!r}: {field!r} is not a field name")
                dtype = check_field(self._schema, field, step, "key_by")
                if self._schema is not None:
                    check_key_type(dtype, f"field {field!r}", step)
            if len(set(fields)) < len(fields):
                raise TopologyError(f"step {step!r} names a field twice: {', '.join(fields)}")
            return fields, fields
        if more:
            raise TopologyError(
                f"step {step!r}: a composite key is several field names; for anything else give "
                "one function that returns a tuple"
            )
        check_callable(key, step, "field names, a Polars expression or a function of the value")
        return key, None
