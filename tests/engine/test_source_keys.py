"""Record keys of a source: what each key format takes, and what becomes of the rest."""

from __future__ import annotations

from typing import Any

import pytest

import riverrun as rr
from riverrun.testing import TopologyTestDriver


def read_keys(key_format: Any, *keys: bytes) -> tuple[list[str | None], list[str]]:
    """Return the keys that came out of a copy, and the reasons of the dead letters."""
    topology = rr.Topology("t")
    source = rr.Topic[Any]("in", key=key_format, partitions=1)
    topology.source(source, on_error="dead_letter").sink(rr.Topic("out"))
    with TopologyTestDriver(topology) as driver:
        driver.pipe("in", [{"key": key.decode()} for key in keys], key=lambda r: r["key"].encode())
        letters = [dict(letter.headers) for letter in driver.read("t-dead-letters")]
        reasons = [(letter["riverrun.error"] or b"").decode() for letter in letters]
        return [record.key for record in driver.read("out")], reasons


@pytest.mark.parametrize(
    "bad", [b'{"a":1}', b"1.5", b"9223372036854775808", b"[]", b"[1.5]", b"[null]", b"[[1]]", b"{"]
)
def test_json_that_cannot_be_a_key_is_a_bad_key_of_its_record(bad: bytes) -> None:
    keys, reasons = read_keys("json", b'"ada"', bad, b"7")

    assert keys == ["ada", "7"]
    assert len(reasons) == 1
    assert reasons[0].startswith("BadKeyError: key b'")
    assert "is not json: " in reasons[0]


def test_an_integer_key_has_at_most_64_bits() -> None:
    keys, reasons = read_keys("int", b"-9223372036854775808", b"9223372036854775808")

    assert keys == ["-9223372036854775808"]
    assert reasons == [
        "BadKeyError: key b'9223372036854775808' is not int: an integer beyond 64 bits"
    ]


def test_text_integers_booleans_and_arrays_of_them_are_json_keys() -> None:
    keys, reasons = read_keys("json", b'"ada"', b"7", b"true", b'["ada",7,false]', b"null")

    assert keys == ["ada", "7", "true", '["ada",7,false]', None]
    assert reasons == []
