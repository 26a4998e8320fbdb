"""Sessions in native code are those of the operator in Python: results, failures and rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.engine.kernel import session_table as subject
from riverrun.engine.kernel.plane import KernelPlane
from riverrun.engine.kernel.session_table import native_kinds
from riverrun.engine.reference.plane import ReferencePlane
from riverrun.engine.schema import Schema
from riverrun.operators.aggregates import Count, First, Last, Max, Mean, Min, Sum
from riverrun.operators.aggregation import Aggregation
from riverrun.operators.results import ResultShape
from riverrun.operators.session import SessionAggregate
from riverrun.operators.sessions import PlaneSessions
from tests.operators.harness import (
    BARRIER,
    RESTART,
    Rec,
    Run,
    Task,
    Watermark,
    batch_of,
    run,
)

if TYPE_CHECKING:
    from riverrun.engine.plane import Plane
    from riverrun.operators.aggregates import AnyAggregate
    from riverrun.operators.window import Emit

GAP = 10
FIELDS: dict[str, pl.DataType] = {"i": pl.Int64(), "s": pl.Int16(), "f": pl.Float64()}
SCHEMA = Schema(None, FIELDS)
INPUTS: dict[str, str] = {"a": "i", "b": "f", "c": "s"}  # column by name of the aggregate
NAN, NAN_TOO = (b"\xcb" + first + b"\xf8" + bytes(6) for first in (b"\x7f", b"\xff"))
MANY = 1 << 40  # bytes of memory that are never reached


def sessions(
    aggregates: dict[str, AnyAggregate], lateness: int = 0, emit: Emit = "final"
) -> SessionAggregate:
    types = {
        name: FIELDS[a.expression.meta.root_names()[0]]
        for name, a in aggregates.items()
        if getattr(a, "expression", None) is not None
    }
    aggregation = Aggregation(ResultShape(("k",)), aggregates, input_types=types)
    return SessionAggregate(GAP, aggregation, lateness, emit)


def seen(done: Run) -> Any:
    """What a run has to say, so that one that is the same is equal to it."""
    # Which of the values that are not a number it is depends on the order of operands.
    rows = [(key, row.replace(NAN_TOO, NAN)) for key, row in done.store.scan(b"", b"\xff" * 9)]
    records = [(r.key, repr(r.key), list(r.value.items()), r.time) for r in done.results]
    late = [(r.key, r.time) for r in done.out[1]]
    failed = [reason for _, reason in done.failed.records]
    return repr(records), late, done.failed.late, failed, rows


def is_native(done: Run) -> bool:
    kept = done.logic._sessions
    return isinstance(kept, PlaneSessions) and kept._table is not None


KEYS = st.one_of(
    st.sampled_from("abc"),
    st.integers(-1, 1),
    st.booleans(),
    st.sampled_from([b"a", b""]),
    st.tuples(st.sampled_from("ab"), st.integers(0, 1)),
)
FLOATS = st.one_of(st.floats(-9, 9), st.sampled_from([math.nan, math.inf, -math.inf, 0.1]))
INTEGERS = st.integers(-9, 9)


@st.composite
def records(draw: st.DrawFn, keys: st.SearchStrategy[Any], large: bool) -> Rec:
    integers = st.one_of(INTEGERS, st.just((1 << 63) - 1)) if large else INTEGERS
    value = {
        "i": draw(st.one_of(st.none(), integers)),
        "s": draw(st.one_of(st.none(), INTEGERS)),
        "f": draw(st.one_of(st.none(), FLOATS)),
    }
    return Rec(value, draw(st.integers(0, 90)), draw(keys))


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[Any], bool]:
    """Batches, watermarks that go on, barriers and restarts; and whether batches are columns."""
    keys = draw(st.sampled_from([st.sampled_from("abc"), st.integers(0, 2), KEYS]))
    of = records(keys, draw(st.integers(0, 9)) == 0)
    script: list[Any] = []
    now = 0
    for _ in range(draw(st.integers(1, 14))):
        match draw(st.integers(0, 5)):
            case 0 | 1 | 2:
                script.append(draw(st.lists(of, min_size=1, max_size=8)))
            case 3:
                now += draw(st.integers(0, 30))
                script.append(Watermark(now))
            case 4:
                script.append(BARRIER)
            case _:
                script.append(RESTART)
    # Keys of several types go into no column.
    columnar = keys is not KEYS and draw(st.booleans())
    return [*script, BARRIER, Watermark(now + 50), BARRIER, BARRIER], columnar


def any_aggregate(name: str) -> st.SearchStrategy[AnyAggregate]:
    return st.sampled_from([Sum, Min, Max, Mean, First, Last, Count]).map(
        lambda kind: kind(INPUTS[name])
    )


AGGREGATES = st.fixed_dictionaries({"n": st.just(Count())} | {n: any_aggregate(n) for n in INPUTS})


@settings(max_examples=300, deadline=None)
@given(
    scripts(),
    AGGREGATES,
    st.sampled_from([0, 7]),
    st.sampled_from(["final", "on_update"]),
    st.sampled_from([0, MANY]),
)
def test_all_is_as_in_python_whatever_happens(
    script_and_form: tuple[list[Any], bool],
    aggregates: dict[str, AnyAggregate],
    lateness: int,
    emit: Emit,
    cached_bytes: int,
) -> None:
    script, columnar = script_and_form
    operator = sessions(aggregates, lateness, emit)
    expected, *others = (
        run(operator, *script, policy="skip", schema=SCHEMA, columnar=columnar, planes=planes)
        for planes in (
            [ReferencePlane()],
            [KernelPlane(cached_bytes)],
            [KernelPlane(cached_bytes), ReferencePlane()],
        )
    )
    for other in others:
        assert seen(other) == seen(expected)


def both(operator: SessionAggregate, *script: Any, cached_bytes: int = MANY) -> Run:
    """Run on both planes, and return the native run."""
    reference: list[Plane] = [ReferencePlane()]
    expected = run(operator, *script, policy="skip", schema=SCHEMA, planes=reference)
    done = run(operator, *script, policy="skip", schema=SCHEMA, planes=[KernelPlane(cached_bytes)])
    assert seen(done) == seen(expected)
    return done


def at(time: int, value: Any = 1, key: Any = "a") -> Rec:
    return Rec({"i": value, "s": None, "f": None}, time, key)


def test_rows_and_timers_that_were_dropped_are_read_again() -> None:
    script: list[Any] = [
        [at(time, key=f"user {user}") for user in range(50) for time in (user, user + 40)],
        *[BARRIER] * 3,
        Watermark(30),
        BARRIER,
        [at(45, key=f"user {user}") for user in range(50)],
        *[BARRIER] * 3,
        Watermark(1_000),
    ]
    done = both(sessions({"n": Count(), "a": Sum("i")}), *script, cached_bytes=0)
    assert is_native(done)
    assert len(done.results) >= 100


def test_a_sum_beyond_64_bits_is_told_as_in_python() -> None:
    largest = (1 << 63) - 1
    script = [[at(0, largest)], [at(1, 1), at(2, -1), at(30, 5)], Watermark(99)]
    done = both(sessions({"a": Sum("i")}), *script)
    assert not is_native(done)
    assert [r.value["a"] for r in done.results] == [largest - 1, 5]
    assert len(done.failed.records) == 1


def test_large_sums_that_fit_stay_native() -> None:
    script = [[at(t, 1 << 55) for t in range(4)], [at(5, -(1 << 55))], Watermark(99)]
    assert is_native(both(sessions({"a": Sum("i")}), *script))


def test_rows_of_another_type_are_left_to_python() -> None:
    integers = sessions({"f": Sum("i")})
    before = run(integers, [at(0, 3)], BARRIER, planes=[ReferencePlane()], schema=SCHEMA)
    done = Run(store=before.store)
    # As after a change of the declared type from one start to the next.
    floats = Aggregation(ResultShape(("k",)), {"f": Sum("i")}, input_types={"f": pl.Float64()})
    task = Task(SessionAggregate(GAP, floats), done, [KernelPlane()])
    task.batch(batch_of([at(5, 0.5)], None))
    task.watermark(99)
    assert [r.value["f"] for r in done.results] == [3.5]
    assert not is_native(done)


def test_many_results_come_in_frames_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_FRAME_ROWS_MAX", 4)
    keys: list[Any] = ["a", "b", 1, 2, 3, 4, 5, 6, True, ("a", 1), ("b", 1)]
    script = [[at(0, key=key) for key in keys], Watermark(99)]
    done = run(sessions({"n": Count()}), *script, planes=[KernelPlane()])
    assert sorted(map(repr, (r.key for r in done.results))) == sorted(map(repr, keys))
    assert max(map(len, done.out.batches)) == 4


@pytest.mark.parametrize(
    ("kind", "dtype", "is_float"),
    [
        ("sum", pl.UInt64(), False),
        ("sum", pl.Boolean(), False),
        ("sum", pl.Decimal(10, 2), True),
        ("max", pl.UInt32(), False),
        ("first", pl.Float32(), True),
        ("max", pl.UInt64(), None),
        ("min", pl.Boolean(), None),
        ("last", pl.String(), None),
        ("sum", None, None),
    ],
)
def test_which_types_are_kept_natively(kind: Any, dtype: Any, is_float: bool | None) -> None:
    kinds = native_kinds({"x": kind}, {} if dtype is None else {"x": dtype})
    assert kinds == (None if is_float is None else {"x": (kind, is_float)})


@pytest.mark.parametrize("stored", [[], [at(1 << 50, key="stays"), RESTART]])
def test_keys_that_came_and_went_take_no_memory(stored: list[Any]) -> None:
    def script(users: int) -> list[Any]:
        crowd = [at(0, key=f"user {user}") for user in range(users)]
        late = [at(0, key=f"late {user}") for user in range(users)]
        return [*stored, crowd, BARRIER, Watermark(99), late, *[BARRIER] * 3]

    few, many = (
        run(sessions({"n": Count()}), *script(users), planes=[KernelPlane(MANY)])
        for users in (1, 5_000)
    )
    sizes = [done.logic._sessions._table._native.size for done in (few, many)]
    assert sizes[1] == sizes[0]
