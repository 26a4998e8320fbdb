"""Records that cannot be processed: told, skipped, or kept as dead letters, whole."""

from __future__ import annotations

import random
from typing import Any

import pytest

from riverrun.engine.batch import Batch, RawRecords
from riverrun.engine.errors import RecordError
from riverrun.engine.failures import StepFailures
from riverrun.engine.metrics import Metrics
from riverrun.engine.output import OutputBuffer
from riverrun.engine.planes import select_plane

LIMIT = 20_000
NOW_MS = 5_000
DEAD = "job-dead-letters"


class Steps:
    def __init__(self, policy: Any) -> None:
        self.codec = select_plane().record_batches
        self.output = OutputBuffer(self.codec, {DEAD: 1}, {DEAD: LIMIT}, lambda: NOW_MS)
        self.metrics = Metrics("job", "w").step("map", 0)
        self.failures = StepFailures("map", policy, DEAD, self.output, self.metrics)

    def letters(self) -> list[tuple[bytes | None, bytes | None, int, dict[str, bytes | None]]]:
        """Drained and decoded: key, value, time and headers."""
        from riverrun.engine.log import Chunk, TopicPartition

        found = []
        for each in self.output.drain():
            assert len(each.batch.payload) <= LIMIT
            where = TopicPartition(each.topic, each.partition)
            records = self.codec.decode(Chunk(where, 0, 1, each.batch.payload))
            assert records.headers is not None
            headers = [dict(entry) for entry in records.headers]
            found += zip(records.keys, records.values, records.timestamps_ms, headers, strict=True)
        return found


def raw(value: bytes = b"bytes as they came", time_ms: int = 1_000) -> RawRecords:
    return RawRecords("in", 3, [41, 42], [0, time_ms], [None, b"k"], [b"", value], None)


def boom() -> Exception:
    try:
        raise ValueError("no number")
    except ValueError as error:
        return error


def test_by_default_the_record_and_the_way_out_are_named() -> None:
    with pytest.raises(RecordError, match=r"'map'.*topic in, partition 3, offset 42.*no number"):
        Steps("fail").failures.raw_failed(raw(), 1, boom())


def test_skipping_leaves_nothing_behind_but_a_count() -> None:
    steps = Steps("skip")

    steps.failures.raw_failed(raw(), 1, boom())

    assert steps.letters() == []
    assert steps.metrics.skipped._value.get() == 1


def test_a_dead_letter_is_the_record_as_it_came_and_says_why() -> None:
    steps = Steps("dead_letter")

    steps.failures.raw_failed(raw(), 1, boom())

    ((key, value, time_ms, headers),) = steps.letters()
    assert (key, value, time_ms) == (b"k", b"bytes as they came", 1_000)
    assert headers["riverrun.topic"] == b"in"
    assert headers["riverrun.partition"] == b"3"
    assert headers["riverrun.offset"] == b"42"
    assert headers["riverrun.step"] == b"map"
    assert headers["riverrun.error"] == b"ValueError: no number"
    assert b"test_failures" in (headers["riverrun.traceback"] or b"")


@pytest.mark.parametrize("time_ms", [-1, NOW_MS + 1])
def test_a_time_that_the_log_would_refuse_is_replaced(time_ms: int) -> None:
    steps = Steps("dead_letter")

    steps.failures.raw_failed(raw(time_ms=time_ms), 1, boom())

    ((_, _, found_ms, headers),) = steps.letters()
    assert found_ms == NOW_MS
    assert headers["riverrun.timestamp"] == str(time_ms).encode()


def test_a_record_behind_a_map_is_kept_as_its_source_record() -> None:
    steps = Steps("dead_letter")
    batch = Batch.of_rows(["mapped"], [1], positions=[1], origin=raw())

    steps.failures.record_failed(batch, 0, boom())

    ((_, value, _, _),) = steps.letters()
    assert value == b"bytes as they came"


def test_a_record_without_a_source_is_kept_by_its_value() -> None:
    steps = Steps("dead_letter")

    steps.failures.record_failed(Batch.of_rows([{"n": 1}], [1], keys=["ada"]), 0, boom())

    ((key, value, _, _),) = steps.letters()
    assert (key, value) == (b"ada", b'{"n":1}')


def test_a_record_that_just_fits_does_without_the_traceback() -> None:
    steps = Steps("dead_letter")
    value = random.Random(1).randbytes(LIMIT - 330)

    steps.failures.raw_failed(raw(value), 1, boom())

    ((_, found, _, headers),) = steps.letters()
    assert found == value
    assert "riverrun.traceback" not in headers


def test_a_record_that_fits_no_dead_letter_is_an_error_and_not_lost() -> None:
    with pytest.raises(RecordError, match=r"max\.message\.bytes"):
        Steps("dead_letter").failures.raw_failed(raw(random.Random(1).randbytes(LIMIT)), 1, boom())
