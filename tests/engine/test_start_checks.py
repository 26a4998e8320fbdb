"""What a task refuses to start from."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

import riverrun as rr
from riverrun.engine.changelog import CommitRecord
from riverrun.engine.config import TaskSettings
from riverrun.engine.errors import PositionLostError, StateMismatchError
from riverrun.engine.log import OffsetRange, TopicPartition
from riverrun.engine.plan import Subtopology, make_plan
from riverrun.engine.start_checks import check_fits, start_positions

ORDERS = TopicPartition("orders", 0)
SETTINGS = TaskSettings()


def keyed_subtopology() -> Subtopology:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", keyed_by="user"))
    orders.key_by("user").window(rr.Tumbling("1m")).aggregate(n=rr.Count()).sink(rr.Topic("out"))
    (sub,) = make_plan(job.graph).subtopologies
    return sub


SUB = keyed_subtopology()

COMMIT = CommitRecord(
    job="job",
    lineage="l",
    subtopology="0",
    partition=0,
    generation=1,
    epoch=7,
    pieces=0,
    positions=(),
    upstream=(),
    layout={"window-1/table": "windows(60000):n=count"},
    input_partitions={"orders": 4},
    snapshot=None,
    created_ms=0,
)
LAYOUT = dict(COMMIT.layout)


def test_what_was_committed_fits_itself() -> None:
    check_fits(COMMIT, SUB, LAYOUT, {"orders": 4}, SETTINGS)


def test_partitions_added_to_a_keyed_topic_are_refused() -> None:
    with pytest.raises(StateMismatchError, match="'orders' had 4 partitions and now has 6"):
        check_fits(COMMIT, SUB, LAYOUT, {"orders": 6}, SETTINGS)


def test_partitions_added_to_a_topic_without_keyed_steps_are_fine() -> None:
    unkeyed = dataclasses.replace(SUB, keyed=False)
    check_fits(msgspec.structs.replace(COMMIT, layout={}), unkeyed, {}, {"orders": 6}, SETTINGS)


def test_a_part_that_reads_other_topics_altogether_is_another_part() -> None:
    with pytest.raises(StateMismatchError, match="numbered in the order of their sources"):
        check_fits(COMMIT, SUB, LAYOUT, {"clicks": 4}, SETTINGS)
    check_fits(COMMIT, SUB, LAYOUT, {"clicks": 4, "orders": 4}, SETTINGS)
    check_fits(COMMIT, SUB, LAYOUT, {"clicks": 4}, TaskSettings(allow_state_drop=True))


def test_a_step_with_state_that_is_gone_is_refused_until_its_state_may_be_dropped() -> None:
    with pytest.raises(StateMismatchError, match="--allow-state-drop"):
        check_fits(COMMIT, SUB, {}, {"orders": 4}, SETTINGS)
    check_fits(COMMIT, SUB, {}, {"orders": 4}, TaskSettings(allow_state_drop=True))


def test_a_step_that_keeps_other_things_than_before_is_refused() -> None:
    other = {"window-1/table": "windows(30000):n=count"}
    with pytest.raises(StateMismatchError, match="Give the step another name"):
        check_fits(COMMIT, SUB, other, {"orders": 4}, SETTINGS)


def test_a_new_step_with_state_is_fine() -> None:
    check_fits(COMMIT, SUB, {**LAYOUT, "new": "x"}, {"orders": 4}, SETTINGS)


def test_without_a_commit_sources_begin_where_the_setting_says() -> None:
    spans = {ORDERS: OffsetRange(3, 9)}
    latest = TaskSettings(start="latest")
    assert start_positions(spans, {}, SUB, SETTINGS, first_start=True) == {ORDERS: 3}
    assert start_positions(spans, {}, SUB, latest, first_start=True) == {ORDERS: 9}
    assert start_positions(spans, {}, SUB, latest, first_start=False) == {ORDERS: 3}


def test_a_committed_position_in_the_log_is_taken_up() -> None:
    spans = {ORDERS: OffsetRange(3, 9)}
    for position in (3, 5, 9):
        resumed = start_positions(spans, {ORDERS: position}, SUB, SETTINGS, first_start=False)
        assert resumed == {ORDERS: position}


def test_records_deleted_before_they_were_read_are_not_passed_over_silently() -> None:
    spans = {ORDERS: OffsetRange(30, 90)}
    with pytest.raises(PositionLostError, match="28 offsets were deleted before they were read"):
        start_positions(spans, {ORDERS: 2}, SUB, SETTINGS, first_start=False)
    allowed = TaskSettings(allow_lost_records=True)
    resumed = start_positions(spans, {ORDERS: 2}, SUB, allowed, first_start=False)
    assert resumed == {ORDERS: 30}


def test_a_topic_that_was_made_again_is_refused() -> None:
    spans = {ORDERS: OffsetRange(0, 4)}
    with pytest.raises(PositionLostError, match="deleted and made again"):
        start_positions(spans, {ORDERS: 8}, SUB, SETTINGS, first_start=False)
