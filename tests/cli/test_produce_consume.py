"""``riverrun produce`` and ``riverrun consume``: what goes in comes out, and nothing else does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from riverrun.cli.consume_lines import as_json, as_text, line_of
from riverrun.engine.batch import RawRecords
from tests.cli.commands import read_topic, run, run_ok, started, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_come_back_with_key_time_and_place(tmp_path: Path) -> None:
    lines = (
        '{"user": "ada", "ts": 1000}\n'
        "\n"
        '{"user": "bob", "ts": "1970-01-01T00:00:02Z"}\n'
        '{"user": "ada", "ts": "1970-01-01T00:00:03+00:00"}'
    )
    run_ok(
        "produce", "orders", "--key", "user", "--timestamp", "ts", "--partitions", "1",
        cwd=tmp_path, stdin=lines,
    )  # fmt: skip

    printed = run_ok("consume", "orders", "--with-metadata", cwd=tmp_path)

    rows = [json.loads(line) for line in printed.splitlines()]
    assert rows[0] == {
        "topic": "orders",
        "partition": 0,
        "offset": 0,
        "timestamp_ms": 1000,
        "key": "ada",
        "headers": [],
        "value": {"user": "ada", "ts": 1000},
    }
    assert [(row["key"], row["timestamp_ms"]) for row in rows] == [
        ("ada", 1000), ("bob", 2000), ("ada", 3000)
    ]  # fmt: skip


def test_values_are_passed_on_as_they_were_written(tmp_path: Path) -> None:
    document = '{"b":1.10,"a":"\\u00e9 é","n":12345678901234567890}'
    run_ok("produce", "in", "--partitions", "1", cwd=tmp_path, stdin=f"  {document}\r\n")

    assert run_ok("consume", "in", cwd=tmp_path) == f"{document}\n"


def test_max_and_from_end_bound_what_is_printed(tmp_path: Path) -> None:
    run_ok("produce", "in", "--partitions", "1", cwd=tmp_path, stdin="1\n2\n3\n")

    assert run_ok("consume", "in", "--max", "2", "--with-key", cwd=tmp_path) == (
        '{"key":null,"value":1}\n{"key":null,"value":2}\n'
    )
    assert run_ok("consume", "in", "--from-end", cwd=tmp_path) == ""


def test_follow_waits_for_topic_and_records(tmp_path: Path) -> None:
    with started("consume", "in", "--follow", "--max", "2", cwd=tmp_path) as consumer:
        errors = tmp_path / "stderr"
        wait_until(lambda: "waiting for topic in" in errors.read_text(), "waiting")
        for line in ("1\n", "2\n"):
            run_ok("produce", "in", "--partitions", "1", cwd=tmp_path, stdin=line)
        assert consumer.stdout is not None
        assert consumer.stdout.read() == "1\n2\n"
        assert consumer.wait(30) == 0


@pytest.mark.parametrize(
    ("line", "options", "reason"),
    [
        ("{", (), "line 3 is no record"),
        ('{"a": 1}', ("--key", "user"), "there is no field 'user'"),
        ('{"user": {"a": 1}}', ("--key", "user"), "as a key"),
        ("[1]", ("--key", "user"), "it is no JSON object"),
        ('{"user": "x", "ts": true}', ("--key", "user", "--timestamp", "ts"), "holds no time"),
        ('{"user": "x", "ts": "soon"}', ("--key", "user", "--timestamp", "ts"), "soon"),
    ],
)
def test_a_line_that_is_no_record_ends_it_and_says_how_many_are_written(
    tmp_path: Path, line: str, options: tuple[str, ...], reason: str
) -> None:
    good = '{"user": "ada", "ts": 1}\n'

    result = run("produce", "in", *options, cwd=tmp_path, stdin=f"{good}{good}{line}\n{good}")

    assert result.returncode == 1
    assert reason in result.stderr
    assert "2 records are in in, and none after them" in result.stderr
    assert len(read_topic(tmp_path / ".riverrun", "in")) == 2


def test_another_number_of_partitions_is_an_error(tmp_path: Path) -> None:
    run_ok("produce", "in", "--partitions", "2", cwd=tmp_path, stdin="1\n")

    result = run("produce", "in", "--partitions", "3", cwd=tmp_path, stdin="1\n")

    assert result.returncode == 1
    assert "topic 'in' exists with 2 partitions" in result.stderr


def test_a_missing_topic_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    result = run("consume", "nothing", cwd=tmp_path)

    assert result.returncode == 1
    assert "riverrun: error: topic 'nothing' does not exist" in result.stderr
    assert "--follow" in result.stderr


def records(value: bytes | None, key: bytes | None = None) -> RawRecords:
    return RawRecords("t", 0, [7], [5], [key], [value], [[("h", b"x"), ("h", None)]])


def test_what_is_no_json_is_printed_as_json_all_the_same() -> None:
    assert line_of(records(b"plain text"), 0, "value") == b'"plain text"\n'
    assert line_of(records(b"\xff\x00"), 0, "value") == b'{"base64":"/wA="}\n'
    assert line_of(records(None), 0, "value") == b"null\n"
    assert line_of(records(b'{\n "a": 1\n}'), 0, "value") == b'{ "a": 1}\n'
    assert line_of(records(b"1", b"\xff"), 0, "key") == b'{"key":{"base64":"/w=="},"value":1}\n'


def test_headers_may_repeat() -> None:
    row = json.loads(line_of(records(b"1"), 0, "metadata"))

    assert row["headers"] == [["h", "x"], ["h", None]]


def test_nothing_stays_nothing() -> None:
    assert as_json(None) is None
    assert as_text(None) is None
