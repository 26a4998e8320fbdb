from __future__ import annotations

import pytest

from riverrun.engine.cache_budget import DEFAULT_BYTES, CacheBudget
from riverrun.engine.config import StateMemory
from riverrun.engine.errors import ConfigError


def test_one_table_may_take_all() -> None:
    assert CacheBudget(90).new_share().limit_bytes() == 90


def test_a_table_may_take_what_the_others_leave_and_its_equal_part_in_any_case() -> None:
    budget = CacheBudget(90)
    shares = [budget.new_share() for _ in range(3)]
    for share, held in zip(shares, (70, 5, 0), strict=True):
        share.held_bytes = held

    assert [share.limit_bytes() for share in shares] == [85, 30, 30]


def test_a_table_that_is_gone_takes_nothing() -> None:
    budget = CacheBudget(90)
    share, other = budget.new_share(), budget.new_share()
    other.held_bytes = 80
    assert share.limit_bytes() == 45

    del other

    assert share.limit_bytes() == 90


def test_memory_for_state_has_room_for_what_rocksdb_needs() -> None:
    assert StateMemory().each_bytes == DEFAULT_BYTES
    assert StateMemory(24 << 20).each_bytes == 8 << 20
    with pytest.raises(ConfigError, match=r"^the memory for state must be at least 24 MiB, not 1"):
        StateMemory(1)
