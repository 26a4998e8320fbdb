from __future__ import annotations

from riverrun.engine.pace import BEHIND_AFTER_MS, CATCH_UP_INTERVAL_MS, FULL_BYTES, Pace


def test_the_first_commit_is_due_at_once() -> None:
    assert Pace(100, now_ms=1_000).due_ms() == 1_000


def test_commits_keep_their_interval_as_long_as_the_end_is_reached_now_and_then() -> None:
    pace = Pace(100, now_ms=0)
    pace.committed(0)
    for now_ms in range(0, 10 * BEHIND_AFTER_MS, BEHIND_AFTER_MS):
        pace.looked(FULL_BYTES, lags=True, now_ms=now_ms)
        pace.looked(FULL_BYTES, lags=False, now_ms=now_ms + 1)
        assert pace.due_ms() == 100


def test_reading_little_at_a_time_is_keeping_up_whatever_has_come_meanwhile() -> None:
    pace = Pace(100, now_ms=0)
    pace.committed(0)
    for now_ms in range(0, 10 * BEHIND_AFTER_MS, 10):
        pace.looked(FULL_BYTES - 1, lags=True, now_ms=now_ms)
        assert pace.due_ms() == 100


def test_a_look_that_read_nothing_says_nothing_while_there_is_more() -> None:
    pace = Pace(100, now_ms=0)
    pace.committed(2_000)
    pace.looked(FULL_BYTES, lags=True, now_ms=1_900)
    pace.looked(0, lags=True, now_ms=1_950)
    pace.looked(FULL_BYTES, lags=True, now_ms=2_000)
    assert pace.due_ms() == 2_000 + CATCH_UP_INTERVAL_MS


def test_catching_up_stretches_the_interval_and_having_caught_up_ends_that() -> None:
    pace = Pace(100, now_ms=0)
    pace.committed(2_000)
    pace.looked(FULL_BYTES, lags=True, now_ms=2_000)
    assert pace.due_ms() == 2_000 + CATCH_UP_INTERVAL_MS
    pace.looked(100, lags=False, now_ms=2_050)
    assert pace.due_ms() == 2_100


def test_an_interval_that_is_longer_anyway_stays() -> None:
    pace = Pace(60_000, now_ms=0)
    pace.committed(2_000)
    pace.looked(FULL_BYTES, lags=True, now_ms=2_000)
    assert pace.due_ms() == 62_000
