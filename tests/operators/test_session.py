from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.operators.aggregates import AnyAggregate, Count, First, Last, Max, Sum
from riverrun.operators.aggregation import Aggregation
from riverrun.operators.results import ResultShape
from riverrun.operators.session import SessionAggregate
from tests.operators.harness import BARRIER, RESTART, Rec, Watermark, run
from tests.operators.test_windows import merged_by_union

if TYPE_CHECKING:
    from riverrun.operators.window import Emit

GAP = 10
LATE = 1


def sessions(
    *, lateness: int = 0, emit: Emit = "final", **aggregates: AnyAggregate
) -> SessionAggregate:
    aggregation = Aggregation(ResultShape(("k",)), aggregates or {"n": Count()})
    return SessionAggregate(GAP, aggregation, lateness, emit)


def at(time: int, v: Any = 1, key: Any = "a") -> Rec:
    return Rec({"v": v}, time, key)


def found(records: list[Rec]) -> list[tuple[Any, int, int, int]]:
    return [(r.key, r.value["window_start"], r.value["window_end"], r.value["n"]) for r in records]


def test_records_less_than_the_gap_apart_are_one_session() -> None:
    done = run(sessions(), [at(0), at(9), at(18), at(28)], Watermark(28), Watermark(38))
    assert done.results == [
        Rec({"k": "a", "window_start": 0, "window_end": 28, "n": 3}, 27, "a"),
        Rec({"k": "a", "window_start": 28, "window_end": 38, "n": 1}, 37, "a"),
    ]


def test_each_key_has_its_own_sessions_emitted_in_order_of_their_end() -> None:
    done = run(sessions(), [at(5, key="a"), at(0, key="b"), at(7, key="b")], Watermark(100))
    assert found(done.results) == [("a", 5, 15, 1), ("b", 0, 17, 2)]


def test_a_record_between_two_sessions_makes_them_one() -> None:
    operator = sessions(n=Count(), total=Sum("v"), first=First("v"), last=Last("v"), high=Max("v"))
    done = run(operator, [at(0, 1), at(16, 4)], RESTART, at(8, 2), Watermark(100))
    assert done.results == [
        Rec(
            {
                "k": "a", "window_start": 0, "window_end": 26,
                "n": 3, "total": 7, "first": 1, "last": 4, "high": 4,
            },
            25, "a",
        )
    ]  # fmt: skip


def test_a_session_ends_by_its_last_record_though_its_timer_was_set_by_the_first() -> None:
    script = [at(0), RESTART, at(8), Watermark(12), RESTART, at(15), Watermark(20), Watermark(25)]
    assert found(run(sessions(), *script).results) == [("a", 0, 25, 3)]


def test_an_earlier_session_that_comes_later_ends_first() -> None:
    done = run(sessions(), [at(50)], BARRIER, [at(5)], Watermark(15), Watermark(60))
    assert found(done.results) == [("a", 5, 15, 1), ("a", 50, 60, 1)]


def test_a_record_whose_session_would_have_ended_is_late() -> None:
    done = run(sessions(), Watermark(20), [at(10), at(11)], Watermark(30))
    assert done.out[LATE] == [at(10)]
    assert done.failed.late == 1
    assert found(done.results) == [("a", 11, 21, 1)]


def test_a_late_record_that_an_open_session_reaches_is_taken_in() -> None:
    done = run(sessions(), [at(15)], Watermark(20), [at(8)], Watermark(30))
    assert done.out[LATE] == []
    assert found(done.results) == [("a", 8, 25, 2)]


def test_allowed_lateness_keeps_a_session_open() -> None:
    script = [at(0), Watermark(14), at(9), Watermark(23), Watermark(24), at(3)]
    done = run(sessions(lateness=5), *script)
    assert found(done.results) == [("a", 0, 19, 2)]
    assert done.out[LATE] == [at(3)]


def test_on_update_emits_the_sessions_that_a_batch_changed() -> None:
    script = [[at(0), at(30)], [at(5)], Watermark(100)]
    done = run(sessions(emit="on_update"), *script)
    assert found(done.results) == [
        ("a", 0, 10, 1),
        ("a", 30, 40, 1),
        ("a", 0, 15, 2),
        ("a", 0, 15, 2),
        ("a", 30, 40, 1),
    ]


def test_reduce_over_sessions() -> None:
    shape = ResultShape(("k",))
    operator = SessionAggregate(GAP, Aggregation(shape, {}, reduce=lambda a, b: a + b))
    done = run(operator, [Rec("x", 0, "a"), Rec("z", 16, "a")], Rec("y", 8, "a"), Watermark(99))
    assert done.results == [Rec("xzy", 25, "a")]


def test_a_record_that_an_aggregate_refuses_leaves_no_trace() -> None:
    operator = sessions(n=Count(), total=Sum("v"))
    done = run(operator, [at(0, 1)], [at(5, "x")], [at(8, 2)], Watermark(99), policy="skip")
    assert found(done.results) == [("a", 0, 18, 2)]
    assert [value for value, _ in done.failed.records] == [{"v": "x"}]


def test_state_of_ended_sessions_is_dropped() -> None:
    done = run(sessions(), [at(0), at(5, key="b")], BARRIER, Watermark(15), BARRIER)
    assert list(done.store.scan(b"", b"\xff" * 9)) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 120)), min_size=1, max_size=6),
        max_size=8,
    ),
    st.sampled_from([BARRIER, RESTART, None]),
)
def test_sessions_are_those_of_the_sorted_records(
    batches: list[list[tuple[str, int]]], between: str | None
) -> None:
    script: list[Any] = []
    for batch in batches:
        script.append([at(time, key=key) for key, time in batch])
        script.extend([between] if between else [])
    done = run(sessions(), *script, Watermark(10_000))
    times: dict[str, list[int]] = defaultdict(list)
    for batch in batches:
        for key, time in batch:
            times[key].append(time)
    expected = [
        (key, start, end, sum(start <= time < end for time in times[key]))
        for key in times
        for start, end in merged_by_union([(time, time + GAP) for time in times[key]])
    ]
    assert sorted(found(done.results)) == sorted(expected)
