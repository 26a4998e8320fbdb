"""The watchdog: what has lag and does not move is told, once."""

from __future__ import annotations

import pytest

from riverrun.engine.clock import ManualClock
from riverrun.engine.log import TopicPartition
from riverrun.engine.plan import TaskId
from riverrun.engine.watchdog import Watchdog

TASK, WHERE = TaskId("0", 0), TopicPartition("in", 0)


class Watched:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.dog = Watchdog(self.clock, stall_after_ms=1_000)

    def note(self, position: int, lag: int | None, after_ms: int = 0) -> None:
        self.clock.advance(after_ms)
        self.dog.note(TASK, WHERE, position, lag)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_lag_that_does_not_move_is_a_stall(watched: Watched) -> None:
    watched.note(5, lag=3)
    watched.note(5, lag=3, after_ms=999)
    assert watched.dog.stalled() == []

    watched.note(5, lag=3, after_ms=1)
    assert watched.dog.stalled() == [WHERE]


def test_moving_ends_it(watched: Watched) -> None:
    watched.note(5, lag=3)
    watched.note(6, lag=300, after_ms=2_000)

    assert watched.dog.stalled() == []


def test_without_lag_there_is_nothing_to_move_for(watched: Watched) -> None:
    watched.note(5, lag=0)
    watched.note(5, lag=0, after_ms=5_000)

    assert watched.dog.stalled() == []


def test_not_to_know_the_lag_is_no_excuse(watched: Watched) -> None:
    watched.note(5, lag=None)
    watched.note(5, lag=None, after_ms=5_000)

    assert watched.dog.stalled() == [WHERE]


def test_it_is_logged_once(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.note(5, lag=3)
    watched.clock.advance(5_000)
    for _ in range(3):
        watched.dog.stalled()

    assert len(caplog.records) == 1


def test_a_task_that_is_gone_is_forgotten(watched: Watched) -> None:
    watched.note(5, lag=3)
    watched.clock.advance(5_000)

    watched.dog.forget(TASK)

    assert watched.dog.stalled() == []
