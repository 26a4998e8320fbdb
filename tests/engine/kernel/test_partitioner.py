from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.kernel.partitioner import KernelPartitioner
from riverrun.engine.partitioner import Partitioner

calls = st.lists(st.lists(st.none() | st.binary(max_size=40), max_size=20), max_size=4)


@given(calls, st.integers(1, 2**20))
def test_keys_go_where_the_reference_sends_them(
    given_calls: list[list[bytes | None]], partitions: int
) -> None:
    reference, lists = Partitioner(partitions), KernelPartitioner(partitions)
    columns = KernelPartitioner(partitions)
    for keys in given_calls:
        expected = list(reference.partitions(keys))
        assert lists.partitions(keys) == expected
        in_column = columns.partitions(pl.Series(keys, dtype=pl.Binary))
        assert isinstance(in_column, pl.Series)
        assert in_column.to_list() == expected


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes or None"):
        KernelPartitioner(2).partitions(["ada"])  # pyright: ignore[reportArgumentType]


def test_a_topic_has_a_partition() -> None:
    with pytest.raises(ValueError, match="at least one"):
        KernelPartitioner(0)
