"""Streams with a key: what can be done with all records of a key, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, get_args, overload

from riverrun.engine.errors import TopologyError
from riverrun.engine.graph import Edge

from .aggregation import Aggregation, check_aggregates, reduced_aggregation, result_schema
from .callables import check_callable
from .checks import check_own_aggregates, check_window_fields, if_column
from .durations import Duration, duration_ms
from .process import Process, ProcessFunction, output_schema
from .results import WINDOW_END, WINDOW_START, ResultShape
from .running import RunningAggregate
from .session import SessionAggregate
from .steps import check_on_error
from .stream import Stream
from .window import LATE_PORT, Emit, WindowAggregate
from .windows import Hopping, Session, Tumbling, Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Literal

    import polars as pl

    from riverrun.engine.operator import OnError, Operator
    from riverrun.engine.schema import Schema

    from .aggregates import AnyAggregate
    from .map_async import Retry
    from .steps import Steps

T = TypeVar("T")
U = TypeVar("U")
R = TypeVar("R")


class KeyedStream(Stream[T]):
    """A stream whose records have keys, all records of a key being in one task, in order.

    Args:
        steps: The topology under construction.
        edge: Where the records come from.
        schema: What they look like, None if unknown.
        partitioned_by: Fields whose values are the key, None if unknown.
        key_names: What the key is called in results; None: ``key``.
    """

    def __init__(
        self,
        steps: Steps,
        edge: Edge,
        schema: Schema | None,
        partitioned_by: tuple[str, ...] | None = None,
        *,
        key_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(steps, edge, schema, partitioned_by)
        self._key_names = key_names

    @property
    def key_names(self) -> tuple[str, ...]:
        """What the key is called in results: the names of its fields, or ``key``."""
        return self._key_names or ("key",)

    def same_at(self, edge: Edge) -> Self:
        """Return the stream of some of these records, under their keys."""
        same = KeyedStream[T](
            self._steps, edge, self._schema, self._partitioned_by, key_names=self._key_names
        )
        return cast("Self", same)

    def _changed(
        self, edge: Edge, schema: Schema | None, partitioned_by: tuple[str, ...] | None
    ) -> KeyedStream[Any]:
        return KeyedStream(self._steps, edge, schema, partitioned_by, key_names=self._key_names)

    def with_key_fields(self, edge: Edge, schema: Schema | None) -> KeyedStream[Any]:
        """Return a stream of results under the same keys, which are fields of them."""
        names = self.key_names
        return KeyedStream(self._steps, edge, schema, names, key_names=names)

    if TYPE_CHECKING:
        # The verbs of Stream that keep the key, with the type that they return here.
        # ruff: noqa: D102

        @overload
        def map(
            self,
            function: Callable[[T], U],
            /,
            *,
            name: str | None = None,
            on_error: OnError = "fail",
        ) -> KeyedStream[U]: ...

        @overload
        def map(
            self,
            /,
            *expressions: pl.Expr,
            name: str | None = None,
            on_error: OnError = "fail",
            **named: pl.Expr,
        ) -> KeyedStream[dict[str, Any]]: ...

        def map(
            self,
            /,
            *functions: Any,
            name: str | None = None,
            on_error: OnError = "fail",
            **named: pl.Expr,
        ) -> KeyedStream[Any]: ...

        def map_batches(
            self,
            function: Callable[[pl.DataFrame], pl.DataFrame],
            *,
            returns: type[U],
            name: str | None = None,
            on_error: OnError = "fail",
        ) -> KeyedStream[U]: ...

        def flat_map(
            self,
            function: Callable[[T], Iterable[U]],
            *,
            name: str | None = None,
            on_error: OnError = "fail",
        ) -> KeyedStream[U]: ...

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
        ) -> KeyedStream[U]: ...

    @overload
    def union(self, *others: KeyedStream[T], name: str | None = None) -> KeyedStream[T]: ...

    @overload
    def union(self, *others: Stream[T], name: str | None = None) -> Stream[T]: ...

    def union(self, *others: Stream[T], name: str | None = None) -> Stream[T]:
        """Put the records of this stream and others into one; keyed if all of them are.

        Args:
            others: Streams of the same topology.
            name: Name of the step.

        Raises:
            TopologyError: If one is of another topology.
        """
        edge, schema, step = self._union(others, name)
        keyed = [other for other in others if isinstance(other, KeyedStream)]
        if len(keyed) < len(others):
            return Stream(self._steps, edge, schema)
        if any(len(other.key_names) != len(self.key_names) for other in keyed):
            raise TopologyError(f"step {step!r}: the streams have keys of different form")
        same = all(other.partitioned_by == self._partitioned_by for other in keyed)
        named = all(other.key_names == self.key_names for other in keyed)
        return KeyedStream(
            self._steps,
            edge,
            schema,
            self._partitioned_by if same else None,
            key_names=self._key_names if named else None,
        )

    def window(self, window: Window, *, allowed_lateness: Duration = 0) -> WindowedStream[T]:
        """Divide the records of each key by event time.

        Args:
            window: ``Tumbling``, ``Hopping`` or ``Session``.
            allowed_lateness: How long after its end a window still takes in records. Results wait
                for that long.

        Raises:
            TopologyError: If it is not a window, or not a duration.

        Example:
            >>> orders.key_by("user").window(Tumbling("1m"))  # doctest: +SKIP
        """
        if not isinstance(window, (Tumbling, Hopping, Session)):
            raise TopologyError(
                f"window after step {self._edge.step!r} takes Tumbling(...), Hopping(...) or "
                f"Session(...), got {window!r}"
            )
        return WindowedStream(
            self, window, duration_ms(allowed_lateness, "allowed_lateness of a window")
        )

    def aggregate(
        self,
        *,
        name: str | None = None,
        on_error: OnError = "fail",
        **aggregates: AnyAggregate,
    ) -> KeyedStream[dict[str, Any]]:
        """Aggregate all records of each key so far; emits the new values after each batch.

        Without windows the state has one row per key, for ever.

        Args:
            name: Name of the step.
            on_error: What becomes of records that cannot be aggregated.
            aggregates: ``Sum``, ``Count`` and so on, by the name of their column.

        Raises:
            TopologyError: If an aggregate does not fit the stream.

        Example:
            >>> orders.key_by("user").aggregate(total=Sum("amount"))  # doctest: +SKIP
        """
        step = self._steps.name("aggregate", name)
        check_on_error(on_error, step)
        check_own_aggregates(aggregates, step)
        keys = self.key_names
        input_types = check_aggregates(self._schema, aggregates, step, keys)
        schema = result_schema(self._schema, keys, aggregates, input_types, windowed=False)
        operator = RunningAggregate(
            Aggregation(ResultShape(keys, schema), aggregates, input_types=input_types)
        )
        edge = self._steps.add_operator(
            "aggregate", step, operator, (self._edge,), schema, on_error, keyed=True
        )
        return self.with_key_fields(edge, schema)

    def reduce(
        self,
        function: Callable[[T, T], T],
        *,
        type: Any = None,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> KeyedStream[T]:
        """Combine all records of each key so far; emits the new value after each batch.

        Args:
            function: Returns one value for two; the first argument is the earlier one.
            type: Type of the values, for keeping them; None: the type of the stream.
            name: Name of the step.
            on_error: What becomes of records for which it raises.

        Raises:
            TopologyError: If it is not a plain function.

        Example:
            >>> prices.key_by("product").reduce(lambda a, b: min(a, b))  # doctest: +SKIP
        """
        step = self._steps.name("reduce", name)
        check_callable(function, step, "a function of two values")
        operator = RunningAggregate(
            reduced_aggregation(self._schema, self.key_names, function, type)
        )
        edge = self._steps.add_operator(
            "reduce", step, operator, (self._edge,), self._schema, on_error, keyed=True
        )
        return self._changed(edge, self._schema, None)

    def process(
        self,
        function: ProcessFunction[T, U],
        *,
        name: str | None = None,
        on_error: OnError = "fail",
    ) -> KeyedStream[U]:
        """Handle the records of each key by a class of your own, with state and timers.

        Args:
            function: An instance; each task works with a copy.
            name: Name of the step.
            on_error: What becomes of records for which it raises.

        Raises:
            TopologyError: If it is not a ``ProcessFunction``.

        Example:
            >>> visits.key_by("user").process(Timeout())  # doctest: +SKIP
        """
        step = self._steps.name("process", name)
        if not isinstance(function, ProcessFunction):
            raise TopologyError(
                f"step {step!r} takes an instance of a ProcessFunction subclass, got {function!r}"
            )
        own = cast("type[Any]", type(function))
        if own.on_record is ProcessFunction[Any, Any].on_record:
            raise TopologyError(
                f"step {step!r}: {own.__name__}() does not define on_record; write a "
                "subclass of ProcessFunction that does"
            )
        schema = output_schema(function)
        edge = self._steps.add_operator(
            "process", step, Process(function, schema), (self._edge,), schema, on_error, keyed=True
        )
        return self._changed(edge, schema, None)


class WindowedStream(Generic[T]):
    """The records of each key, divided by event time; ``aggregate`` or ``reduce`` comes next.

    Args:
        stream: The records.
        window: How they are divided.
        allowed_lateness_ms: How long after its end a window still takes in records.
    """

    def __init__(self, stream: KeyedStream[T], window: Window, allowed_lateness_ms: int) -> None:
        self._stream = stream
        self._window = window
        self._allowed_lateness_ms = allowed_lateness_ms

    def aggregate(
        self,
        *,
        name: str | None = None,
        on_error: OnError = "fail",
        emit: Emit = "final",
        **aggregates: AnyAggregate,
    ) -> WindowResults[dict[str, Any], T]:
        """Compute several aggregates of each window at once.

        A row has the key's field(s), ``window_start`` and ``window_end`` in milliseconds, and a
        column per aggregate. Its event time is the last millisecond of the window.

        Args:
            name: Name of the step.
            on_error: What becomes of records that cannot be aggregated.
            emit: ``final``: one row when the window closes; ``on_update``: also a row whenever a
                batch changes it.
            aggregates: ``Sum``, ``Count`` and so on, by the name of their column.

        Raises:
            TopologyError: If an aggregate does not fit the stream.

        Example:
            >>> windowed.aggregate(total=Sum("amount"), orders=Count())  # doctest: +SKIP
        """
        stream = self._stream
        step = stream.steps.name("window", name)
        check_on_error(on_error, step)
        _check_emit(emit, step)
        check_own_aggregates(aggregates, step)
        keys = stream.key_names
        check_window_fields(keys, step)
        reserved = (*keys, WINDOW_START, WINDOW_END)
        input_types = check_aggregates(stream.schema, aggregates, step, reserved)
        schema = result_schema(stream.schema, keys, aggregates, input_types, windowed=True)
        aggregation = Aggregation(ResultShape(keys, schema), aggregates, input_types=input_types)
        edge = self._add(step, aggregation, schema, emit, on_error)
        return WindowResults(stream.with_key_fields(edge, schema), late=self._late(edge))

    def reduce(
        self,
        function: Callable[[T, T], T],
        *,
        type: Any = None,
        name: str | None = None,
        on_error: OnError = "fail",
        emit: Emit = "final",
    ) -> WindowResults[T, T]:
        """Combine the records of each window to one.

        Args:
            function: Returns one value for two; the first argument is the earlier one to come.
            type: Type of the values, for keeping them; None: the type of the stream.
            name: Name of the step.
            on_error: What becomes of records for which it raises.
            emit: As in ``aggregate``.

        Raises:
            TopologyError: If it is not a plain function.

        Example:
            >>> windowed.reduce(lambda a, b: max(a, b, key=score))  # doctest: +SKIP
        """
        stream = self._stream
        step = stream.steps.name("window", name)
        check_callable(function, step, "a function of two values")
        _check_emit(emit, step)
        aggregation = reduced_aggregation(stream.schema, stream.key_names, function, type)
        edge = self._add(step, aggregation, stream.schema, emit, on_error)
        return WindowResults(stream.same_at(edge), late=self._late(edge))

    def _late(self, edge: Edge) -> KeyedStream[T]:
        return self._stream.same_at(Edge(edge.step, LATE_PORT))

    def _add(
        self,
        step: str,
        aggregation: Aggregation,
        schema: Schema | None,
        emit: Emit,
        on_error: OnError,
    ) -> Edge:
        window, lateness_ms = self._window, self._allowed_lateness_ms
        operator: Operator
        if isinstance(window, Session):
            operator = SessionAggregate(window.gap_ms, aggregation, lateness_ms, emit)
        else:
            operator = WindowAggregate(window.aligned(), aggregation, lateness_ms, emit)
        return self._stream.steps.add_operator(
            "window", step, operator, (self._stream.edge,), schema, on_error, keyed=True
        )


def _check_emit(emit: Any, step: str) -> None:
    if emit not in get_args(Emit):
        raise TopologyError(
            f"step {step!r}: emit={emit!r} is not one of final, on_update{if_column(emit, 'emit')}"
        )


class WindowResults(KeyedStream[R], Generic[R, T]):
    """Results of windows, and the records that came too late for theirs.

    Args:
        results: The results.
        late: The records.
    """

    def __init__(self, results: KeyedStream[R], *, late: KeyedStream[T]) -> None:
        super().__init__(
            results.steps,
            results.edge,
            results.schema,
            results.partitioned_by,
            key_names=results.key_names,
        )
        self._late = late

    @property
    def late(self) -> KeyedStream[T]:
        """Records whose windows had all closed, as they came, under their keys.

        Example:
            >>> revenue.late.sink(Topic("late-orders"))  # doctest: +SKIP
        """
        return self._late

    def same_at(self, edge: Edge) -> Self:
        """Return the stream of some of these results, with the same late records."""
        return type(self)(super().same_at(edge), late=self._late)
