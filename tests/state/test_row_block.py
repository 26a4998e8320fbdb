from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.state import RowBlock

rows = st.dictionaries(st.binary(max_size=5), st.binary(max_size=5)).map(dict.items).map(list)
even = st.dictionaries(st.binary(min_size=3, max_size=3), st.binary(min_size=2, max_size=2))


@given(rows | even.map(dict.items).map(list))
def test_the_rows_come_back(pairs: list[tuple[bytes, bytes]]) -> None:
    block = RowBlock.of_rows(b"", b"\xff", pairs)
    assert block.items() == pairs
    assert block.rows == len(pairs)


def test_a_common_prefix_is_written_once() -> None:
    widths = (2).to_bytes(4, "little") + (1).to_bytes(4, "little")
    data = b"\2\0\0\0\3\0\0\0abc" + widths + b"k1k2" + b"vw"
    assert RowBlock(b"abc", b"abd", 2, data).items() == [(b"abck1", b"v"), (b"abck2", b"w")]


@given(rows, st.integers(0, 200), st.binary(max_size=4))
def test_damage_is_an_error_or_other_rows_and_never_a_crash(
    pairs: list[tuple[bytes, bytes]], at: int, splice: bytes
) -> None:
    block = RowBlock.of_rows(b"", b"\xff", pairs)
    damaged = RowBlock(b"", b"\xff", block.rows, block.data[:at] + splice + block.data[at + 2 :])
    try:
        found = damaged.items()
    except ValueError:
        return
    assert len(found) == block.rows


@pytest.mark.parametrize("data", [b"", b"\1\0\0\0\0\0\0\0", b"\1" + bytes(3) + b"\xff" * 4])
def test_what_is_no_block_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="row block"):
        RowBlock(b"", b"\xff", 1, data).columns()
