from __future__ import annotations

import copy
from typing import Any

import pytest

from riverrun.engine.errors import RecordError
from riverrun.operators.process import Process, ProcessContext, ProcessFunction, output_schema
from tests.operators.harness import BARRIER, RESTART, Rec, WallClock, Watermark, run
from tests.operators.records import ORDER, Order

Ctx = ProcessContext[Any]


class Counting(ProcessFunction[Any, Any]):
    """Emits how many records its key had."""

    def on_record(self, value: Any, ctx: Ctx) -> None:
        count = ctx.state("count", type=int, default=0)
        count.set(count.get() + 1)
        if value == "raise":
            ctx.emit("never seen")
            ctx.timer_at(5)
            raise ValueError("as asked")
        ctx.emit((ctx.key, value, count.get()))


class Timing(ProcessFunction[Any, Any]):
    """Sets and deletes timers as told: ``("at", 10)``."""

    def on_record(self, value: Any, ctx: Ctx) -> None:
        for kind, time in value:
            match kind:
                case "at":
                    ctx.timer_at(time)
                case "delete":
                    ctx.delete_timer(time)
                case "clock":
                    ctx.processing_timer_at(time)
                case "delete clock":
                    ctx.delete_processing_timer(time)

    def on_timer(self, time_ms: int, ctx: Ctx) -> None:
        ctx.emit((ctx.timer, time_ms, ctx.watermark_ms))


def process(function: ProcessFunction[Any, Any]) -> Process:
    return Process(function)


@pytest.mark.parametrize("pause", [None, BARRIER, RESTART])
def test_state_is_kept_per_key(pause: str | None) -> None:
    script: list[Any] = []
    for record in [Rec("x", 1, "a"), Rec("y", 2, "b"), Rec("z", 3, "a")]:
        script.extend([record, pause] if pause else [record])
    done = run(process(Counting()), *script)
    assert done.results == [
        Rec(("a", "x", 1), 1, "a"),
        Rec(("b", "y", 1), 2, "b"),
        Rec(("a", "z", 2), 3, "a"),
    ]


def test_a_record_that_raises_leaves_no_trace() -> None:
    records = [Rec("x", 1, "a"), Rec("raise", 2, "a"), Rec("y", 3, "a")]
    done = run(process(Counting()), records, Watermark(100), policy="skip")
    assert done.values == [("a", "x", 1), ("a", "y", 2)]
    assert done.failed.records == [("raise", "ValueError: as asked")]


def test_the_policy_fail_stops() -> None:
    with pytest.raises(RecordError, match="as asked"):
        run(process(Counting()), [Rec("raise", 1, "a")])


def test_event_time_timers_fire_in_order_when_the_watermark_reaches_them() -> None:
    records = [Rec([("at", 30), ("at", 10)], 1, "b"), Rec([("at", 10)], 2, "a")]
    done = run(process(Timing()), records, Watermark(9), RESTART, Watermark(10), Watermark(99))
    assert done.results == [
        Rec(("event", 10, 10), 10, "a"),
        Rec(("event", 10, 10), 10, "b"),
        Rec(("event", 30, 99), 30, "b"),
    ]


def test_a_deleted_timer_does_not_fire() -> None:
    script = [Rec([("at", 10), ("at", 11)], 1, "a"), RESTART, Rec([("delete", 10)], 2, "a")]
    done = run(process(Timing()), *script, Watermark(99))
    assert [value[1] for value in done.values] == [11]


def test_a_timer_set_for_the_past_fires_when_the_watermark_grows() -> None:
    done = run(process(Timing()), Watermark(50), [Rec([("at", 10)], 60, "a")], Watermark(51))
    assert done.values == [("event", 10, 51)]


def test_wall_clock_timers_fire_by_the_wall_clock() -> None:
    records = [Rec([("clock", 1000), ("clock", 2000), ("delete clock", 2000)], 1, "a")]
    done = run(process(Timing()), records, Watermark(7), WallClock(999), RESTART, WallClock(1500))
    assert done.results == [Rec(("processing", 1000, 7), 7, "a")]
    assert done.logic.next_processing_time_ms() is None


def test_on_timer_may_set_later_timers_which_fire_in_the_same_pass() -> None:
    class Ticking(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            ctx.timer_at(10)
            ctx.timer_at(25)

        def on_timer(self, time_ms: int, ctx: Ctx) -> None:
            ctx.emit(time_ms)
            if time_ms == 10:
                ctx.timer_at(20)

    done = run(process(Ticking()), [Rec(None, 1, "a")], Watermark(100))
    assert done.values == [10, 20, 25]


def test_on_timer_may_not_set_a_timer_that_would_fire_again_at_once() -> None:
    class Endless(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            ctx.timer_at(10)

        def on_timer(self, time_ms: int, ctx: Ctx) -> None:
            ctx.timer_at(time_ms)

    done = run(process(Endless()), [Rec(None, 1, "a")], Watermark(100), policy="skip")
    ((value, reason),) = done.failed.records
    assert value == {"timer_ms": 10, "key": "a"}
    assert "it must be later" in reason


def test_emit_may_give_an_event_time() -> None:
    class Shifting(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            ctx.emit(value, event_time_ms=ctx.event_time_ms + 5)

    assert run(process(Shifting()), [Rec("x", 1, "a")]).results == [Rec("x", 6, "a")]


# --- states --------------------------------------------------------------------------------------


class Keeping(ProcessFunction[Any, Any]):
    """Does with its states what it is told, and emits what they hold."""

    def on_record(self, value: Any, ctx: Ctx) -> None:
        orders = ctx.state("order", type=Order)
        names = ctx.list_state("names", type=str)
        seen = ctx.map_state("seen", type=int)
        value(orders, names, seen)
        ctx.emit((orders.get(), names.get(), seen.items()))


def keeping(*steps: Any, key: Any = "a", pause: str = RESTART, **more: Any) -> list[Any]:
    script: list[Any] = []
    for step in steps:
        script.extend([Rec(step, 1, key), pause])
    return run(process(Keeping()), *script, **more).values


def test_states_hold_what_was_put_into_them_as_its_type() -> None:
    def fill(orders: Any, names: Any, seen: Any) -> None:
        orders.set(Order("ada", 2.5))
        names.add("x")
        names.add("y")
        seen.put("p", 1)
        seen.put(7, 2)

    def change(orders: Any, names: Any, seen: Any) -> None:
        assert seen.get("p") == 1
        assert seen.get("q", 5) == 5
        seen.put("p", seen.get("p") + 10)
        seen.remove(7)
        names.set(["z"])

    def clear(orders: Any, names: Any, seen: Any) -> None:
        orders.clear()
        names.clear()
        seen.clear()

    assert keeping(fill, change, clear) == [
        (Order("ada", 2.5), ["x", "y"], [(7, 2), ("p", 1)]),
        (Order("ada", 2.5), ["z"], [("p", 11)]),
        (None, [], []),
    ]


def test_keys_and_names_do_not_run_into_each_other() -> None:
    class Maps(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            for name in ("m", "m2", "ma"):
                ctx.map_state(name, type=str).put("e", f"{ctx.key}/{name}")
            ctx.emit([ctx.map_state(name, type=str).items() for name in ("m", "m2", "ma")])

    done = run(process(Maps()), *[Rec(None, 1, key) for key in ("k", "km", "k\0", ("k", 1))])
    for result in done.results:
        expected = [[("e", f"{result.key}/{name}")] for name in ("m", "m2", "ma")]
        assert result.value == expected


def test_a_default_is_not_shared() -> None:
    class Appending(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            kept = ctx.state("kept", type=list[int], default=[])
            kept.get().append(1)
            ctx.emit(copy.copy(kept.get()))

    assert run(process(Appending()), [Rec(0, 1, "a"), Rec(0, 2, "a")]).values == [[], []]


def test_one_name_is_one_state() -> None:
    class Twice(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            ctx.state("x", type=int)
            ctx.list_state("x", type=int)

    with pytest.raises(RecordError, match="give one of them another name"):
        run(process(Twice()), [Rec(0, 1, "a")])


def test_a_value_that_would_come_back_as_another_type_is_refused() -> None:
    class Undeclared(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            ctx.state("x").set(Order("ada", 1.0))

    with pytest.raises(RecordError, match="declare it with type="):
        run(process(Undeclared()), [Rec(0, 1, "a")])


def test_a_failed_call_undoes_maps_and_clears_too() -> None:
    def fill(orders: Any, names: Any, seen: Any) -> None:
        names.set(["x"])
        seen.put("p", 1)

    def fail(orders: Any, names: Any, seen: Any) -> None:
        orders.set(Order("ada", 1.0))
        names.clear()
        seen.put("p", 2)
        seen.put("p", 3)
        seen.put("q", 4)
        seen.clear()
        raise ValueError("as asked")

    def look(orders: Any, names: Any, seen: Any) -> None:
        pass

    assert keeping(fill, fail, look, policy="skip") == [
        (None, ["x"], [("p", 1)]),
        (None, ["x"], [("p", 1)]),
    ]


# --- the definition ------------------------------------------------------------------------------


def test_each_task_works_with_a_copy_of_the_instance() -> None:
    class Remembering(ProcessFunction[Any, Any]):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_record(self, value: Any, ctx: Ctx) -> None:
            self.seen.append(value)

    function = Remembering()
    run(process(function), [Rec(1, 1, "a")])
    assert function.seen == []


def test_the_schema_of_results_is_the_declared_one() -> None:
    class Typed(ProcessFunction[Any, Order]):
        pass

    assert output_schema(Typed()) == ORDER
    assert output_schema(Counting()) is None


@pytest.mark.parametrize("kind", ["at", "delete", "clock", "delete clock"])
@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (2**64, "ValueError: a timer is set for a time in milliseconds of 64 bits"),
        (-(2**63) - 1, "ValueError: a timer is set for a time in milliseconds of 64 bits"),
        ("5", "TypeError: a timer is set for a time in milliseconds, an int, not '5'"),
        (1.5, "TypeError: a timer is set for a time in milliseconds, an int, not 1.5"),
    ],
)
def test_a_timer_that_is_no_time_is_a_failure_of_its_record(
    kind: str, time: Any, reason: str
) -> None:
    records = [Rec([(kind, time)], 1, "a"), Rec([("at", 10)], 2, "a")]
    done = run(process(Timing()), records, Watermark(99), policy="skip")
    assert done.values == [("event", 10, 99)]
    assert [why.startswith(reason) for _, why in done.failed.records] == [True]


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("x", "TypeError: the event time of a result is a time in milliseconds, an int, not 'x'"),
        (-1, "ValueError: the event time of a result is negative, -1"),
        (2**53, "ValueError: the event time of a result is a time in milliseconds of 54 bits"),
    ],
)
def test_a_result_at_no_time_is_a_failure_of_its_record(time: Any, reason: str) -> None:
    class At(ProcessFunction[Any, Any]):
        def on_record(self, value: Any, ctx: Ctx) -> None:
            ctx.emit("emitted", value)

    done = run(process(At()), [Rec(time, 1, "a"), Rec(7, 2, "a")], policy="skip")
    assert done.results == [Rec("emitted", 7, "a")]
    assert [why.startswith(reason) for _, why in done.failed.records] == [True]
