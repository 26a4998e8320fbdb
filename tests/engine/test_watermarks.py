"""Watermarks: never early, never back."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.graph import WatermarkPolicy
from riverrun.engine.watermarks import (
    NO_WATERMARK,
    UNKNOWN,
    InputWatermark,
    SourceWatermark,
    combine,
)

TIME = st.integers(0, 100)
INPUTS = st.lists(
    st.builds(InputWatermark, TIME | st.just(NO_WATERMARK), st.booleans()), max_size=5
)


def source(out_of_orderness_ms: int = 0, idle_after_ms: int | None = None) -> SourceWatermark:
    return SourceWatermark(WatermarkPolicy(out_of_orderness_ms, idle_after_ms), None, 0)


# --- merged ----------------------------------------------------------------------------------


def test_the_slowest_active_input_decides() -> None:
    inputs = [InputWatermark(10, idle=False), InputWatermark(5, idle=False)]

    assert combine(inputs) == InputWatermark(5, idle=False)


def test_an_input_of_which_nothing_is_known_holds_the_others_back() -> None:
    assert combine([InputWatermark(10, idle=False), UNKNOWN]) == UNKNOWN


def test_no_inputs_are_idle_and_know_nothing() -> None:
    assert combine([]) == InputWatermark(NO_WATERMARK, idle=True)


@given(INPUTS)
def test_merging_keeps_what_is_active_behind_nobody_active(inputs: list[InputWatermark]) -> None:
    merged = combine(inputs)

    active = [each.value_ms for each in inputs if not each.idle]
    assert merged.idle == (not active)
    assert merged.value_ms == min(
        active, default=max((i.value_ms for i in inputs), default=NO_WATERMARK)
    )


@given(INPUTS, st.integers(0, 4), st.integers(0, 50))
def test_an_input_that_moves_on_never_pulls_the_others_back(
    inputs: list[InputWatermark], which: int, by_ms: int
) -> None:
    if which >= len(inputs):
        return
    before = combine(inputs)
    moved = inputs[which]._replace(value_ms=inputs[which].value_ms + by_ms)

    after = combine([*inputs[:which], moved, *inputs[which + 1 :]])

    assert after.value_ms >= before.value_ms


@given(INPUTS)
def test_the_order_of_inputs_does_not_matter(inputs: list[InputWatermark]) -> None:
    assert combine(inputs) == combine(reversed(inputs))


# --- of a source partition -------------------------------------------------------------------


def test_before_the_first_record_nothing_is_known() -> None:
    assert source().current(1_000_000, follow_clock=True) == UNKNOWN


def test_it_stays_behind_the_latest_record_by_the_allowed_disorder() -> None:
    watermark = source(out_of_orderness_ms=30)
    watermark.observe(100, tick_ms=0)
    watermark.observe(90, tick_ms=1)

    assert watermark.current(1, follow_clock=False) == InputWatermark(70, idle=False)


def test_a_quiet_partition_is_idle_and_follows_the_clock_only_if_told() -> None:
    watermark = source(idle_after_ms=1_000)
    watermark.observe(100, tick_ms=0)

    assert watermark.current(999, follow_clock=True) == InputWatermark(100, idle=False)
    assert watermark.current(1_000, follow_clock=False) == InputWatermark(100, idle=True)
    assert watermark.current(1_500, follow_clock=True) == InputWatermark(1_600, idle=True)


def test_without_a_limit_a_partition_is_never_idle() -> None:
    assert not source().is_idle(10**12)


def test_a_record_after_a_pause_does_not_take_the_watermark_back() -> None:
    watermark = source(idle_after_ms=1_000)
    watermark.observe(100, tick_ms=0)
    watermark.current(5_000, follow_clock=True)

    watermark.observe(200, tick_ms=5_000)

    assert watermark.current(5_000, follow_clock=False) == InputWatermark(5_100, idle=False)


@given(
    st.integers(0, 20),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2_000), st.booleans()), max_size=12),
)
def test_whatever_comes_when_it_never_goes_back_and_is_never_early(
    disorder_ms: int, turns: list[tuple[int, int, bool]]
) -> None:
    watermark = source(disorder_ms, idle_after_ms=1_000)
    now_ms, latest_ms, last_record_ms = 0, None, 0
    told: list[int] = [NO_WATERMARK]
    for event_ms, pause_ms, follow in turns:
        now_ms += pause_ms
        told.append(watermark.current(now_ms, follow_clock=follow).value_ms)
        if latest_ms is not None:
            # Time may be taken to have gone on as the wall clock has, and no further.
            assert told[-1] <= max(*told[:-1], latest_ms - disorder_ms + now_ms - last_record_ms)
        watermark.observe(event_ms, now_ms)
        latest_ms = max(event_ms, latest_ms or 0)
        last_record_ms = now_ms
        told.append(watermark.current(now_ms, follow_clock=follow).value_ms)
        assert told[-1] >= latest_ms - disorder_ms

    assert all(before <= after for before, after in pairwise(told))
