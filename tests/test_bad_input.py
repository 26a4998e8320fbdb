"""Bad input, and what it gets: fail, skip or dead letter; a message that helps; nothing lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import riverrun as rr
from riverrun.engine.errors import RecordError, TopicMissingError
from riverrun.testing import TopologyTestDriver

if TYPE_CHECKING:
    from collections.abc import Callable

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


class Order(rr.Record):
    """What a good record is."""

    user: str
    amount: float
    ts: int


GOOD: dict[str, Any] = {"user": "ada", "amount": 1.5, "ts": NOW_MS}


def topology(on_error: str) -> rr.Topology:
    """Count per user; the source has the policy."""
    job = rr.Topology("job")
    orders = job.source(
        rr.Topic("orders", value=rr.Json(Order), partitions=1),
        event_time="ts",
        on_error=on_error,  # type: ignore[arg-type]
        name="orders",
    )
    counts = orders.key_by("user").window(rr.Tumbling("1m")).aggregate(n=rr.Count())
    counts.sink(rr.Topic("counts"))
    return job


def raw(**changes: Any) -> bytes:
    """Return a good record with changes, as JSON."""
    return json.dumps({**GOOD, **changes}).encode()


BAD_RECORDS: dict[str, tuple[bytes | None, str]] = {
    "not JSON": (b"{", "orders"),
    "invalid UTF-8": (b'{"user":"\xff","amount":1,"ts":1}', "orders"),
    "empty": (b"", "orders"),
    "a JSON list": (b"[1]", "object"),
    "a missing field": (b'{"user":"ada","ts":1}', "amount"),
    "a field of the wrong type": (raw(amount="much"), "amount"),
    "a null in a required field": (raw(user=None), "user"),
    "a number beyond 64 bits": (raw(ts=2**63), "orders"),
    "NaN": (b'{"user":"ada","amount":NaN,"ts":1}', "orders"),
    "nesting without end": (b"[" * 100_000, "orders"),
    "a tombstone": (None, "tombstone"),
    "a negative timestamp": (raw(ts=-1), "negative"),
    "a timestamp in the far future": (raw(ts=NOW_MS + 2 * HOUR_MS), "ahead"),
    "a timestamp in microseconds": (raw(ts=NOW_MS * 1000), "ahead"),
}

every_bad_record = pytest.mark.parametrize(
    ("record", "hint"), BAD_RECORDS.values(), ids=BAD_RECORDS.keys()
)


def finish(driver: TopologyTestDriver) -> list[Any]:
    """Close the window of the good records and return the counts."""
    driver.advance_watermark(NOW_MS + HOUR_MS)
    return [record.value["n"] for record in driver.read("counts")]


@every_bad_record
def test_dead_letter_keeps_the_bytes_and_says_where_they_are_from(
    record: bytes | None, hint: str
) -> None:
    with TopologyTestDriver(topology("dead_letter"), now_ms=NOW_MS) as driver:
        driver.pipe("orders", [GOOD, record, GOOD])
        (letter,) = driver.read("job-dead-letters")
        headers = dict(letter.headers)
        assert finish(driver) == [2]

    assert letter.value == _as_read(record)
    assert headers["riverrun.topic"] == b"orders"
    assert headers["riverrun.partition"] == b"0"
    assert headers["riverrun.offset"] == b"1"
    assert headers["riverrun.step"] == b"orders"
    error = headers["riverrun.error"]
    assert error is not None
    assert hint == "orders" or hint in error.decode()


def _as_read(record: bytes | None) -> Any:
    try:
        return None if record is None else json.loads(record, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return record


def _refuse(constant: str) -> None:
    raise ValueError(constant)


@every_bad_record
def test_skip_counts_and_goes_on(record: bytes | None, hint: str) -> None:
    del hint
    with TopologyTestDriver(topology("skip"), now_ms=NOW_MS) as driver:
        driver.pipe("orders", [record, GOOD])
        metrics = driver.metrics().decode()
        assert finish(driver) == [1]

    (line,) = [
        each
        for each in metrics.splitlines()
        if each.startswith("riverrun_step_skipped_total") and 'step="orders"' in each
    ]
    assert line.endswith(" 1.0")


@every_bad_record
def test_fail_names_step_place_reason_and_mend_and_loses_nothing(
    record: bytes | None, hint: str
) -> None:
    with TopologyTestDriver(topology("fail"), now_ms=NOW_MS) as driver:
        driver.pipe("orders", [GOOD])
        with pytest.raises(RecordError) as caught:
            driver.pipe("orders", [record])
        message = str(caught.value)
        assert "step 'orders'" in message
        assert "topic orders, partition 0, offset" in message
        assert "on_error=" in message
        assert hint in message
        # Started again, it stops at the same record: it is neither lost nor passed over.
        with pytest.raises(RecordError):
            driver.crash()


def steps_that_raise() -> dict[str, Callable[[Any], Any]]:
    """Return verbs whose function fails for one record."""

    def fails(order: Order) -> Any:
        if order.user == "bob":
            raise ValueError("no bob here")
        return order

    def condition(order: Order) -> bool:
        return fails(order) is not None

    def many(order: Order) -> list[Any]:
        return [fails(order)]

    async def later(order: Order) -> Any:
        return fails(order)

    return {
        "map": lambda stream: stream.map(fails, name="step", on_error="dead_letter"),
        "filter": lambda stream: stream.filter(condition, name="step", on_error="dead_letter"),
        "flat_map": lambda stream: stream.flat_map(many, name="step", on_error="dead_letter"),
        "map_async": lambda stream: stream.map_async(later, name="step", on_error="dead_letter"),
        "key_by": lambda stream: stream.key_by(
            lambda order: fails(order).user, name="step", on_error="dead_letter"
        ),
    }


@pytest.mark.parametrize("verb", steps_that_raise().keys())
def test_user_code_that_raises_is_isolated_to_its_record(verb: str) -> None:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", value=rr.Json(Order), partitions=1), event_time="ts")
    steps_that_raise()[verb](orders).sink(rr.Topic("out"))
    bob = {**GOOD, "user": "bob"}

    with TopologyTestDriver(job, now_ms=NOW_MS) as driver:
        driver.pipe("orders", [GOOD, bob, GOOD])
        out = driver.read("out")
        (letter,) = driver.read("job-dead-letters")

    assert [record.value["user"] for record in out] == ["ada", "ada"]
    headers = dict(letter.headers)
    assert letter.value == bob
    assert headers["riverrun.offset"] == b"1"
    assert headers["riverrun.step"] == b"step"
    assert headers["riverrun.error"] == b"ValueError: no bob here"
    assert b"fails" in (headers["riverrun.traceback"] or b"")


def test_a_null_key_never_reaches_a_keyed_step() -> None:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", partitions=1), name="orders")
    keyed = orders.key_by("user", name="by-user", on_error="dead_letter")
    keyed.window(rr.Tumbling("1m")).aggregate(n=rr.Count()).sink(rr.Topic("counts"))

    with TopologyTestDriver(job, now_ms=NOW_MS) as driver:
        driver.pipe("orders", [{"user": "ada"}, {"user": None}, {"other": 1}])
        letters = driver.read("job-dead-letters")
        assert finish(driver) == [1]

    assert [letter.value for letter in letters] == [{"user": None}, {"other": 1}]
    assert {dict(letter.headers)["riverrun.step"] for letter in letters} == {b"by-user"}


def test_output_larger_than_the_broker_takes_is_a_dead_letter_or_an_error() -> None:
    def big_job(on_error: str) -> rr.Topology:
        job = rr.Topology("job")
        orders = job.source(rr.Topic("orders", partitions=1), name="orders")
        grown = orders.map(lambda order: {"text": _noise(order["size"])})
        grown.sink(rr.Topic("out"), name="out", on_error=on_error)  # type: ignore[arg-type]
        return job

    with TopologyTestDriver(big_job("dead_letter"), now_ms=NOW_MS) as driver:
        driver.pipe("orders", [{"size": 10}, {"size": 3_000_000}, {"size": 20}])
        assert [len(record.value["text"]) for record in driver.read("out")] == [10, 20]
        (letter,) = driver.read("job-dead-letters")
        # The source record, not the output that nobody takes.
        assert letter.value == {"size": 3_000_000}

    with TopologyTestDriver(big_job("fail"), now_ms=NOW_MS) as driver:
        with pytest.raises(RecordError, match=r"max\.message\.bytes"):
            driver.pipe("orders", [{"size": 10}, {"size": 3_000_000}])
        assert driver.read("out") == []


def _noise(size: int) -> str:
    import random

    return "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))


def test_a_far_future_timestamp_closes_no_window() -> None:
    with TopologyTestDriver(topology("dead_letter"), now_ms=NOW_MS) as driver:
        driver.pipe("orders", [GOOD, {**GOOD, "ts": NOW_MS + 30 * 24 * HOUR_MS}, GOOD])
        assert driver.read("counts") == []
        assert finish(driver) == [2]


def test_keys_that_are_not_in_the_key_format_are_told() -> None:
    job = rr.Topology("job")
    orders = job.source(
        rr.Topic("orders", key="int", partitions=1), name="orders", on_error="dead_letter"
    )
    orders.sink(rr.Topic("out"))
    with TopologyTestDriver(job, now_ms=NOW_MS) as driver:
        driver.pipe("orders", [{"k": "7"}, {"k": "seven"}], key="k")
        assert [record.key for record in driver.read("out")] == ["7"]
        (letter,) = driver.read("job-dead-letters")
        assert b"key b'seven' is not int" in (dict(letter.headers)["riverrun.error"] or b"")


def test_a_topic_that_is_not_there_says_how_to_make_it() -> None:
    job = rr.Topology("job")
    job.source(rr.Topic("orders")).sink(rr.Topic("out"))
    with TopologyTestDriver(job) as driver, pytest.raises(TopicMissingError, match="'orders'"):
        driver.pipe("order", [{}])
