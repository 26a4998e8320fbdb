"""What an epoch writes: to the right partition, in order, in batches that fit."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.errors import BatchTooLargeError
from riverrun.engine.log import Chunk, TopicPartition
from riverrun.engine.output import OutputBuffer
from riverrun.engine.planes import select_plane

if TYPE_CHECKING:
    from riverrun.engine.batch import RawRecords

LIMIT = 2_000
CODEC = select_plane().record_batches


def buffer() -> OutputBuffer:
    return OutputBuffer(CODEC, {"one": 1, "many": 4}, {"one": LIMIT, "many": LIMIT}, lambda: 0)


def drained(output: OutputBuffer) -> dict[TopicPartition, list[RawRecords]]:
    found: dict[TopicPartition, list[RawRecords]] = {}
    for each in output.drain():
        assert len(each.batch.payload) <= LIMIT
        where = TopicPartition(each.topic, each.partition)
        found.setdefault(where, []).append(CODEC.decode(Chunk(where, 0, 1, each.batch.payload)))
    return found


@given(st.lists(st.tuples(st.none() | st.binary(max_size=3), st.binary(max_size=300)), max_size=40))
def test_records_of_a_key_stay_in_order_in_one_partition(
    records: list[tuple[bytes | None, bytes]],
) -> None:
    output = buffer()
    for key, value in records:
        output.write("many", [key], [value], [7])

    found = drained(output)

    by_key: dict[bytes | None, list[bytes]] = {}
    where_of: dict[bytes, set[int]] = {}
    for where, batches in found.items():
        for batch in batches:
            for key, value in zip(batch.keys, batch.values, strict=True):
                by_key.setdefault(key, []).append(value or b"")
                if key is not None:
                    where_of.setdefault(key, set()).add(where.partition)
    for key in by_key:
        sent = [value for each, value in records if each == key]
        if key is None:
            assert sorted(by_key[key]) == sorted(sent)
        else:
            assert by_key[key] == sent
            assert len(where_of[key]) == 1
    assert sum(map(len, by_key.values())) == len(records)


def test_partitions_that_are_given_are_used() -> None:
    output = buffer()

    output.write("many", [None, None], [b"a", b"b"], [1, 2], partitions=[3, 0])

    assert {w.partition: list(b[0].values) for w, b in drained(output).items()} == {
        3: [b"a"],
        0: [b"b"],
    }


def test_headers_stay_with_their_records() -> None:
    output = buffer()
    output.write("one", [None], [b"plain"], [1])
    output.write("one", [None], [b"dead"], [2], headers=[[("why", b"x")]])
    output.write("one", [None], [b"plain again"], [3])

    ((batch,),) = drained(output).values()

    assert batch.headers is not None
    assert [list(each) for each in batch.headers] == [[], [("why", b"x")], []]


def test_draining_leaves_nothing() -> None:
    output = buffer()
    output.write("one", [None], [b"a"], [1])
    output.drain()

    assert output.drain() == []


def test_a_record_that_fits_nowhere_is_told() -> None:
    output = buffer()
    large = random.Random(1).randbytes(LIMIT)
    output.write("one", [None], [large], [1])

    assert not output.fits("one", None, large)
    assert output.fits("one", None, bytes(LIMIT))  # after compression
    with pytest.raises(BatchTooLargeError):
        output.drain()
