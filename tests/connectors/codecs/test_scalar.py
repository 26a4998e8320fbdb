from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.connectors.codecs import Bytes, Integer, Text
from riverrun.engine.batch import Batch
from riverrun.engine.codec import EncodeError


def batch(rows: list[Any]) -> Batch:
    return Batch.of_rows(rows, [0] * len(rows))


@pytest.mark.parametrize("codec", [Text, Integer, Bytes])
def test_codecs_without_settings_are_equal_and_have_no_schema(codec: Any) -> None:
    assert codec() == codec()
    assert hash(codec()) == hash(codec())
    assert codec().schema is None


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_text_round_trips(rows: list[str]) -> None:
    assert Text().decode(Text().encode(batch(rows))).rows == rows


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_round_trip(rows: list[int]) -> None:
    assert Integer().decode(Integer().encode(batch(rows))).rows == rows


@given(st.lists(st.binary()))
def test_bytes_round_trip(rows: list[bytes]) -> None:
    assert Bytes().decode(Bytes().encode(batch(rows))).rows == rows


@pytest.mark.parametrize("codec", [Text(), Integer(), Bytes()])
def test_tombstones_fail_to_decode_and_are_what_none_encodes_to(codec: Any) -> None:
    decoded = codec.decode([b"1", None])
    assert len(decoded.rows) == 1
    assert decoded.kept == [0]
    assert decoded.failures[0][0] == 1
    assert "tombstone" in str(decoded.failures[0][1])
    assert codec.encode(batch([None])) == [None]


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (Text(), b"\xff"),
        (Integer(), b""),
        (Integer(), b" 1"),
        (Integer(), b"1_0"),
        (Integer(), b"1.0"),
        (Integer(), b"9223372036854775808"),
        (Integer(), b"-9223372036854775809"),
        (Integer(), b"1" * 5000),
    ],
)
def test_what_cannot_be_decoded_fails_alone(codec: Any, value: bytes) -> None:
    decoded = codec.decode([b"1", value, b"2"])
    assert decoded.kept == [0, 2]
    assert [index for index, _ in decoded.failures] == [1]


@pytest.mark.parametrize(
    ("codec", "good", "bad"),
    [
        (Text(), "a", b"a"),
        (Text(), "a", "\ud800"),
        (Bytes(), b"a", "a"),
        (Integer(), 1, True),
        (Integer(), 1, 1.0),
        (Integer(), 1, 2**63),
    ],
)
def test_what_cannot_be_encoded_is_named_by_index(codec: Any, good: Any, bad: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode(batch([good, bad]))
    assert caught.value.index == 1
