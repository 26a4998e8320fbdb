"""Tables of a task: they read their own writes, and a delta has all that changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.task_state import TaskState
from riverrun.state import Delta, MemoryStore, OverlayStore

KEY = st.binary(min_size=1, max_size=2)
WRITES = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "get", "scan", "commit", "restart"]), KEY),
    max_size=40,
)


def test_tables_do_not_see_each_other() -> None:
    state = TaskState(MemoryStore())
    one, other = state.keyed_table("one"), state.keyed_table("other")

    one.put(b"k", b"1")

    assert other.get(b"k") is None
    assert list(other.scan(b"", None)) == []


def test_a_table_is_opened_once() -> None:
    state = TaskState(MemoryStore())
    state.keyed_table("one")

    with pytest.raises(ValueError, match="open already"):
        state.keyed_table("one")


def test_a_delta_has_what_changed_since_the_last_one() -> None:
    state = TaskState(MemoryStore())
    table = state.keyed_table("one")
    prefix = state.open_prefix("one")
    table.put(b"a", b"1")
    table.put(b"b", b"2")
    table.delete(b"b")

    assert state.drain_delta() == Delta(puts={prefix + b"a": b"1"}, deletes={prefix + b"b"})
    assert not state.drain_delta()


@given(WRITES)
def test_a_table_is_a_sorted_dict_over_commits_and_restarts(
    writes: list[tuple[str, bytes]],
) -> None:
    store = OverlayStore(MemoryStore())
    state = TaskState(store)
    table = state.keyed_table("t")
    expected: dict[bytes, bytes] = {}
    committed: dict[bytes, bytes] = {}
    for number, (what, key) in enumerate(writes):
        match what:
            case "put":
                table.put(key, str(number).encode())
                expected[key] = str(number).encode()
            case "delete":
                table.delete(key)
                expected.pop(key, None)
            case "get":
                table.prefetch([key])
                assert table.get(key) == expected.get(key)
            case "scan":
                found = list(table.scan(key, None))
                assert found == sorted((k, v) for k, v in expected.items() if k >= key)
            case "commit":
                store.apply(state.drain_delta(), b"")
                committed = dict(expected)
            case _:
                # A crash: what was not committed never was.
                state = TaskState(store)
                table, expected = state.keyed_table("t"), dict(committed)

    assert list(table.scan(b"", None)) == sorted(expected.items())
