"""Process: a user's class handles the records of each key, with state and timers.

State      what the class keeps, by key and name; its timers
Watermark  forwarded after the event-time timers that it reaches have fired
Order      kept per key; timers fire in order of time, then key
Emits      whatever the class emits
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args, get_origin, overload

from riverrun.engine.batch import Batch
from riverrun.engine.operator import OperatorLogic

from .callables import schema_of_hint
from .process_state import ListState, MapState, StateRows, ValueState
from .timers import TimerTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.operator import Collector, OperatorContext
    from riverrun.engine.schema import Schema

T = TypeVar("T")
U = TypeVar("U")
S = TypeVar("S")

_RESULT_ROWS_MAX = 10_000

_TIMER_LIMIT_MS = 1 << 63
"""What the state has room for."""

_EVENT_TIME_LIMIT_MS = 1 << 53
"""Far beyond the times of sources; windows add durations to it, within 64 bits."""


class ProcessFunction(Generic[T, U]):
    """Base class for your own handling of keyed records; ``T`` goes in, ``U`` comes out.

    Keep nothing on ``self`` that changes: what is to survive goes to ``ctx.state``. A record for
    which a method raises leaves no trace: neither results nor state nor timers.

    Example:
        >>> class Silence(ProcessFunction[dict[str, int], str]):
        ...     def on_record(self, value: dict[str, int], ctx: ProcessContext[str]) -> None:
        ...         last = ctx.state("last", type=int, default=0)
        ...         ctx.delete_timer(last.get() + 60_000)
        ...         last.set(ctx.event_time_ms)
        ...         ctx.timer_at(ctx.event_time_ms + 60_000)
        ...
        ...     def on_timer(self, time_ms: int, ctx: ProcessContext[str]) -> None:
        ...         ctx.emit(f"nothing from {ctx.key} for a minute")
    """

    def on_record(self, value: T, ctx: ProcessContext[U]) -> None:
        """Handle a record. Plain and quick: no I/O, no clock."""
        raise NotImplementedError

    def on_timer(self, time_ms: int, ctx: ProcessContext[U]) -> None:
        """Handle a timer of ``ctx.key``; ``ctx.timer`` tells which kind of time it is."""


def output_schema(function: ProcessFunction[Any, Any]) -> Schema | None:
    """Return the schema of what a function emits, by its declaration; None if unknown."""
    for base in getattr(type(function), "__orig_bases__", ()):
        args = get_args(base)
        if get_origin(base) is ProcessFunction and len(args) == 2:
            return schema_of_hint(args[1])
    return None


@dataclass(frozen=True, slots=True)
class Process:
    """Handle the records of each key by a user's class.

    Args:
        function: An instance; each task works with a copy.
        schema: Schema of what it emits, None if unknown.
    """

    function: ProcessFunction[Any, Any]
    schema: Schema | None = None

    @property
    def state_signature(self) -> str:
        """What must not change as long as there is state: each state has a name of its own."""
        return "process"

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        return _ProcessLogic(copy.deepcopy(self.function), self.schema, context)


class ProcessContext(Generic[U]):
    """What a ``ProcessFunction`` may use; valid during the call it was passed to.

    Attributes:
        key: Key of the record or timer.
        event_time_ms: Event time of the record; in ``on_timer`` the time of the timer.
        watermark_ms: How far event time has come, None if unknown yet.
        timer: In ``on_timer``, which kind of time the timer is about.
    """

    def __init__(
        self,
        rows: StateRows,
        event_timers: TimerTable,
        processing_timers: TimerTable,
        now_ms: Callable[[], int],
    ) -> None:
        self.key: Any = None
        self.event_time_ms = 0
        self.watermark_ms: int | None = None
        self.timer: Literal["event", "processing"] | None = None
        self._rows = rows
        self._now_ms = now_ms
        self._tables = {"event": event_timers, "processing": processing_timers}
        self._emitted: list[tuple[U, int]] = []
        # Changes of timers wait for the end of the call, so that one that raises makes none.
        self._timer_changes: list[tuple[str, int, bool]] = []

    @property
    def processing_time_ms(self) -> int:
        """The wall clock, milliseconds since the Unix epoch; another one after a restart."""
        return self._now_ms()

    def emit(self, value: U, event_time_ms: int | None = None) -> None:
        """Emit a value under the current key.

        Args:
            value: The value.
            event_time_ms: Its event time; None: that of the record, or of the timer. A timer of
                the wall clock has none: its results get the watermark.

        Raises:
            TypeError: If the event time is not an int.
            ValueError: If it is negative, or as far away as no event is.
        """
        if event_time_ms is None:
            event_time_ms = self.event_time_ms
            if self.timer == "processing" and self.watermark_ms is not None:
                event_time_ms = self.watermark_ms
        else:
            what = "the event time of a result is"
            event_time_ms = _time(event_time_ms, what, _EVENT_TIME_LIMIT_MS)
        if event_time_ms < 0:
            # Sources take none either, and the broker refuses them.
            raise ValueError(f"the event time of a result is negative, {event_time_ms}")
        self._emitted.append((value, event_time_ms))

    # --- state -----------------------------------------------------------------------------------

    @overload
    def state(self, name: str, *, type: type[S], default: S) -> ValueState[S]: ...

    @overload
    def state(self, name: str, *, type: type[S]) -> ValueState[S | None]: ...

    @overload
    def state(self, name: str, *, type: Any = ..., default: Any = ...) -> ValueState[Any]: ...

    def state(self, name: str, *, type: Any = Any, default: Any = None) -> ValueState[Any]:
        """Return a value that is kept for the current key.

        Args:
            name: Name of the state, unique in the class.
            type: Type of the value, as in an annotation.
            default: What ``get`` returns when there is none.

        Example:
            >>> count = ctx.state("count", type=int, default=0)  # doctest: +SKIP
            >>> count.set(count.get() + 1)  # doctest: +SKIP
        """
        return self._rows.value_state(name, type, default)

    @overload
    def list_state(self, name: str, *, type: type[S]) -> ListState[S]: ...

    @overload
    def list_state(self, name: str, *, type: Any = ...) -> ListState[Any]: ...

    def list_state(self, name: str, *, type: Any = Any) -> ListState[Any]:
        """Return a list that is kept for the current key; read and written as a whole."""
        return self._rows.list_state(name, type)

    @overload
    def map_state(self, name: str, *, type: type[S]) -> MapState[S]: ...

    @overload
    def map_state(self, name: str, *, type: Any = ...) -> MapState[Any]: ...

    def map_state(self, name: str, *, type: Any = Any) -> MapState[Any]:
        """Return a map that is kept for the current key, a row of state per entry."""
        return self._rows.map_state(name, type)

    # --- timers ----------------------------------------------------------------------------------

    def timer_at(self, event_time_ms: int) -> None:
        """Have ``on_timer`` called for this key when the watermark reaches a time.

        One that is in the past already fires when the watermark grows the next time. The same
        time twice is one timer.

        Raises:
            ValueError: In ``on_timer``, if the time is not after that of the timer.
        """
        self._set_timer("event", event_time_ms)

    def processing_timer_at(self, time_ms: int) -> None:
        """Have ``on_timer`` called for this key when the wall clock reaches a time.

        Raises:
            ValueError: In ``on_timer``, if the time is not after that of the timer.
        """
        self._set_timer("processing", time_ms)

    def delete_timer(self, event_time_ms: int) -> None:
        """Remove the timer of this key for a time; one that is not set is no mistake."""
        time_ms = _timer_time(event_time_ms)
        self._timer_changes.append(("event", time_ms, False))

    def delete_processing_timer(self, time_ms: int) -> None:
        """Remove the timer of this key for a time of the wall clock."""
        time_ms = _timer_time(time_ms)
        self._timer_changes.append(("processing", time_ms, False))

    def _set_timer(self, kind: str, time_ms: int) -> None:
        time_ms = _timer_time(time_ms)
        if kind == self.timer and time_ms <= self.event_time_ms:
            raise ValueError(
                f"on_timer for {self.event_time_ms} sets a timer for {time_ms}: it must be later, "
                "or it would fire again and again"
            )
        self._timer_changes.append((kind, time_ms, True))

    # --- for the logic ---------------------------------------------------------------------------

    def begin(
        self, key: Any, time_ms: int, timer: Literal["event", "processing"] | None = None
    ) -> None:
        """Prepare for a call."""
        self.key = key
        self.event_time_ms = time_ms
        self.timer = timer
        self._rows.begin(key)

    def commit(self) -> list[tuple[U, int]]:
        """Keep what the call did; return what it emitted."""
        for kind, time_ms, is_set in self._timer_changes:
            table = self._tables[kind]
            if is_set:
                table.add(time_ms, self.key)
            else:
                table.remove(time_ms, self.key)
        self._timer_changes.clear()
        self._rows.commit()
        emitted, self._emitted = self._emitted, []
        return emitted

    def roll_back(self) -> None:
        """Undo what the call did."""
        self._timer_changes.clear()
        self._emitted.clear()
        self._rows.roll_back()


def _timer_time(time_ms: Any) -> int:
    return _time(time_ms, "a timer is set for", _TIMER_LIMIT_MS)


def _time(time_ms: Any, what: str, limit_ms: int) -> int:
    """Return a time of the user's; told here, while the record that it is about is known."""
    try:
        found = operator.index(time_ms)
    except TypeError:
        raise TypeError(f"{what} a time in milliseconds, an int, not {time_ms!r}") from None
    if not -limit_ms <= found < limit_ms:
        bits = limit_ms.bit_length()
        raise ValueError(f"{what} a time in milliseconds of {bits} bits, not {time_ms!r}")
    return found


class _ProcessLogic(OperatorLogic):
    def __init__(
        self,
        function: ProcessFunction[Any, Any],
        schema: Schema | None,
        context: OperatorContext,
    ) -> None:
        self._function = function
        self._schema = schema
        self._failures = context.failures
        self._rows = StateRows(context.state.keyed_table(f"{context.step}/state"))
        self._event_timers = TimerTable.open(context, "event-timers")
        self._processing_timers = TimerTable.open(context, "processing-timers")
        self._ctx: ProcessContext[Any] = ProcessContext(
            self._rows, self._event_timers, self._processing_timers, context.now_ms
        )

    def on_batch(self, batch: Batch, out: Collector) -> None:
        ctx, on_record = self._ctx, self._function.on_record
        rows, keys, times = batch.rows(), batch.keys(), batch.times()
        self._rows.prefetch(keys)
        emitted: list[Any] = []
        emitted_times: list[int] = []
        parents: list[int] = []
        for index, value in enumerate(rows):
            ctx.begin(keys[index], times[index])
            try:
                on_record(value, ctx)
            except Exception as error:
                raised = error
            else:
                for result, time_ms in ctx.commit():
                    emitted.append(result)
                    emitted_times.append(time_ms)
                    parents.append(index)
                continue
            ctx.roll_back()
            self._failures.record_failed(batch, index, raised)
        if emitted:
            positions = batch.positions()
            out.emit(
                Batch.of_rows(
                    emitted,
                    emitted_times,
                    keys=[keys[i] for i in parents],
                    positions=None if positions is None else [positions[i] for i in parents],
                    schema=self._schema,
                    origin=batch.origin,
                )
            )

    def on_watermark(self, watermark_ms: int, out: Collector) -> None:
        self._ctx.watermark_ms = watermark_ms
        self._fire(self._event_timers, watermark_ms, "event", out)

    def on_processing_time(self, now_ms: int, out: Collector) -> None:
        self._fire(self._processing_timers, now_ms, "processing", out)

    def next_processing_time_ms(self) -> int | None:
        return self._processing_timers.earliest_ms()

    def _fire(
        self,
        timers: TimerTable,
        until_ms: int,
        kind: Literal["event", "processing"],
        out: Collector,
    ) -> None:
        rows: list[Any] = []
        times: list[int] = []
        keys: list[Any] = []
        while (timer := timers.pop_due(until_ms)) is not None:
            time_ms, key = timer
            for result, result_ms in self._call_timer(time_ms, key, kind):
                rows.append(result)
                times.append(result_ms)
                keys.append(key)
            if len(rows) >= _RESULT_ROWS_MAX:
                out.emit(Batch.of_rows(rows, times, keys=keys, schema=self._schema))
                rows, times, keys = [], [], []
        if rows:
            out.emit(Batch.of_rows(rows, times, keys=keys, schema=self._schema))

    def _call_timer(
        self, time_ms: int, key: Any, kind: Literal["event", "processing"]
    ) -> list[tuple[Any, int]]:
        ctx = self._ctx
        ctx.begin(key, time_ms, kind)
        try:
            self._function.on_timer(time_ms, ctx)
        except Exception as error:
            raised = error
        else:
            return ctx.commit()
        ctx.roll_back()
        # There is no record to blame; the timer stands in for one.
        blamed = Batch.of_rows([{"timer_ms": time_ms, "key": key}], [time_ms], keys=[key])
        self._failures.record_failed(blamed, 0, raised)
        return []
