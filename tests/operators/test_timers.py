from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from riverrun.operators.timers import TimerTable
from riverrun.state import Delta
from riverrun.state.memory import MemoryStore

PREFIX = b"tim:"


def pop_all(timers: TimerTable, until_ms: int) -> list[tuple[int, Any]]:
    popped: list[tuple[int, Any]] = []
    while (timer := timers.pop_due(until_ms)) is not None:
        popped.append(timer)
    return popped


def drain(timers: TimerTable, store: MemoryStore) -> None:
    delta = Delta()
    timers.drain_delta(delta)
    store.apply(delta, b"")


def test_timers_come_in_order_of_time_then_key() -> None:
    timers = TimerTable(PREFIX, MemoryStore())
    for time, key in [(20, "a"), (-5, "z"), (10, "b"), (10, "a")]:
        timers.add(time, key)
    assert pop_all(timers, 10) == [(-5, "z"), (10, "a"), (10, "b")]
    assert pop_all(timers, 10) == []
    assert timers.earliest_ms() == 20


def test_a_timer_set_twice_fires_once() -> None:
    timers = TimerTable(PREFIX, MemoryStore())
    timers.add(1, "a")
    timers.add(1, "a")
    assert pop_all(timers, 5) == [(1, "a")]


def test_timers_survive_in_the_store() -> None:
    store = MemoryStore()
    timers = TimerTable(PREFIX, store)
    timers.add(7, ("ada", 1))
    drain(timers, store)
    again = TimerTable(PREFIX, store)
    assert again.earliest_ms() == 7
    assert pop_all(again, 7) == [(7, ("ada", 1))]
    drain(again, store)
    assert TimerTable(PREFIX, store).earliest_ms() is None


def test_a_stored_timer_can_be_removed() -> None:
    store = MemoryStore()
    timers = TimerTable(PREFIX, store)
    timers.add(7, "a")
    drain(timers, store)
    timers.remove(7, "a")
    assert timers.earliest_ms() is None
    assert pop_all(timers, 100) == []


def test_what_was_drained_counts_although_the_store_has_not_got_it_yet() -> None:
    timers = TimerTable(PREFIX, MemoryStore())
    timers.add(7, "a")
    timers.drain_delta(Delta())
    assert pop_all(timers, 10) == [(7, "a")]


class TimersAgainstAModel(RuleBasedStateMachine):
    """Timers against a plain set, with barriers and restarts in between."""

    @initialize()
    def begin(self) -> None:
        self.store = MemoryStore()
        self.timers = TimerTable(PREFIX, self.store)
        self.model: set[tuple[int, str]] = set()

    @rule(time=st.integers(-20, 20), key=st.sampled_from("abc"))
    def add(self, time: int, key: str) -> None:
        self.timers.add(time, key)
        self.model.add((time, key))

    @rule(time=st.integers(-20, 20), key=st.sampled_from("abc"))
    def remove(self, time: int, key: str) -> None:
        self.timers.remove(time, key)
        self.model.discard((time, key))

    @rule(until=st.integers(-20, 20), count=st.integers(1, 4))
    def pop(self, until: int, count: int) -> None:
        for _ in range(count):
            due = sorted(timer for timer in self.model if timer[0] <= until)
            popped = self.timers.pop_due(until)
            assert popped == (due[0] if due else None)
            self.model -= set(due[:1])

    @rule()
    def earliest(self) -> None:
        assert self.timers.earliest_ms() == min((t for t, _ in self.model), default=None)

    @rule()
    def barrier(self) -> None:
        drain(self.timers, self.store)

    @rule()
    def restart(self) -> None:
        drain(self.timers, self.store)
        self.timers = TimerTable(PREFIX, self.store)


TestTimersAgainstAModel = TimersAgainstAModel.TestCase
TestTimersAgainstAModel.settings = settings(max_examples=60, deadline=None, stateful_step_count=30)
