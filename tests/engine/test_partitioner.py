from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.engine import partitioner as subject
from riverrun.engine.partitioner import Partitioner, murmur2, partition_of

# From the tests of Kafka's Java client (UtilsTest.testMurmur2), as signed integers there.
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def aiokafka_partition(key: bytes, partitions: int) -> int:
    everything = list(range(partitions))
    return DefaultPartitioner()(key, everything, everything)


@pytest.mark.parametrize("key", JAVA_VECTORS)
def test_murmur2_is_the_one_of_the_java_client(key: bytes) -> None:
    assert murmur2(key) == JAVA_VECTORS[key] % 2**32


@given(st.binary(max_size=40), st.integers(1, 50))
def test_one_key_goes_where_aiokafka_sends_it(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == aiokafka_partition(key, partitions)


@given(st.lists(st.binary(max_size=300), max_size=80), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_a_column_goes_where_aiokafka_sends_it(keys: list[bytes], partitions: int) -> None:
    keys += [b"%d" % i for i in range(40)]
    partitioner = Partitioner(partitions)
    expected = [aiokafka_partition(key, partitions) for key in keys]
    assert partitioner.partitions(keys) == expected
    assert partitioner.partitions(keys) == expected


def test_no_keys_give_no_partitions() -> None:
    assert Partitioner(3).partitions([]) == []


def test_records_without_key_stay_together_in_a_call_and_take_turns_between_calls() -> None:
    partitioner = Partitioner(2)
    ada = partition_of(b"ada", 2)
    assert partitioner.partitions([None, b"ada", None]) == [0, ada, 0]
    assert partitioner.partitions([b"ada", b"ada"]) == [ada, ada]
    assert partitioner.partitions([None]) == [1]
    assert partitioner.partitions([None]) == [0]


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_CACHED_KEYS_MAX", 50)
    partitioner = Partitioner(7)
    for start in range(0, 300, 30):
        keys = [b"%d" % i for i in range(start, start + 40)]
        assert partitioner.partitions(keys) == [partition_of(key, 7) for key in keys]
        assert len(partitioner._cache) <= 50


def test_a_topic_without_partitions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        Partitioner(0)
