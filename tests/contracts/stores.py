"""What every StateStore does, whatever it is made of. Run by tests/state/test_store_contract.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.state import Delta, RowBlock, StateError, StateStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

END = b"\xff" * 8

keys = st.binary(min_size=0, max_size=3).map(lambda key: bytes(byte % 4 for byte in key))
values = st.binary(max_size=4)


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    delta = Delta()
    for key in draw(st.lists(keys, max_size=4)):
        delta.delete(key)
    for key, value in draw(st.lists(st.tuples(keys, values), max_size=6)):
        delta.put(key, value)
    delta.range_deletes = draw(st.lists(st.tuples(keys, keys), max_size=3))
    for rows in draw(st.lists(st.dictionaries(keys, values, max_size=4), max_size=2)):
        start, end = min(rows, default=b""), max(rows, default=b"") + b"\0"
        delta.blocks.append(RowBlock.of_rows(start, end, list(rows.items())))
    return delta


def apply_to_model(model: dict[bytes, bytes], delta: Delta) -> None:
    """The specification of Delta, in its plainest form."""
    for start, end in delta.range_deletes:
        for key in [key for key in model if start <= key < end]:
            del model[key]
    for key in delta.deletes:
        model.pop(key, None)
    model.update(delta.puts)
    for block in delta.blocks:
        model.update(block.items())


class StoreContract:
    """Subclasses give ``open_store``; the path is where it lives or would live."""

    @pytest.fixture
    def open_store(self) -> Callable[[Path], StateStore]:
        raise NotImplementedError

    @pytest.fixture
    def open_checkpoint(self) -> Callable[[Path], StateStore]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: Callable[[Path], StateStore], tmp_path: Path):
        store = open_store(tmp_path / "store")
        yield store
        store.close()

    def test_new_store_is_empty(self, store: StateStore) -> None:
        assert store.meta() is None
        assert store.get_many([b"a"]) == [None]
        assert list(store.scan(b"", END)) == []

    def test_get_many_keeps_the_order_and_repeats_of_its_keys(self, store: StateStore) -> None:
        store.apply(Delta({b"a": b"1", b"b": b""}), b"m")
        assert store.get_many([b"b", b"x", b"a", b"b"]) == [b"", None, b"1", b""]
        assert store.get_many([]) == []

    def test_meta_is_that_of_the_newest_epoch(self, store: StateStore) -> None:
        store.apply(Delta({b"a": b"1"}), b"first")
        store.apply(Delta(), b"second")
        assert store.meta() == b"second"

    def test_meta_never_shows_up_among_the_rows(self, store: StateStore) -> None:
        store.apply(Delta({b"": b"empty key", b"m": b"1"}), b"meta")
        assert list(store.scan(b"", END)) == [(b"", b"empty key"), (b"m", b"1")]
        store.apply(Delta(range_deletes=[(b"", END)]), b"meta 2")
        assert store.meta() == b"meta 2"

    def test_scan_is_half_open_and_sorted_by_bytes(self, store: StateStore) -> None:
        store.apply(Delta({b"b": b"2", b"a": b"1", b"c": b"3", b"\xff": b"4", b"a\x00": b"5"}), b"")
        assert [key for key, _ in store.scan(b"a", b"c")] == [b"a", b"a\x00", b"b"]
        assert [key for key, _ in store.scan(b"c", END)] == [b"c", b"\xff"]
        assert list(store.scan(b"c", b"c")) == []
        assert list(store.scan(b"c", b"a")) == []

    def test_scan_shows_the_state_of_its_making(self, store: StateStore) -> None:
        store.apply(Delta({b"a": b"1", b"b": b"2"}), b"")
        rows = store.scan(b"", END)
        store.apply(Delta({b"a": b"9", b"c": b"3"}, {b"b"}), b"")
        assert list(rows) == [(b"a", b"1"), (b"b", b"2")]

    def test_range_deletes_come_before_puts(self, store: StateStore) -> None:
        store.apply(Delta({b"a": b"1", b"b": b"2"}), b"")
        store.apply(Delta({b"a": b"new"}, set(), [(b"a", b"c")]), b"")
        assert list(store.scan(b"", END)) == [(b"a", b"new")]

    def test_applying_twice_is_harmless(self, store: StateStore) -> None:
        store.apply(Delta({b"a": b"1", b"b": b"2"}), b"")
        delta = Delta({b"a": b"new"}, {b"b"}, [(b"a", b"c")])
        store.apply(delta, b"m")
        store.apply(delta, b"m")
        assert list(store.scan(b"", END)) == [(b"a", b"new")]

    def test_checkpoint_holds_rows_and_meta_of_its_moment(
        self,
        store: StateStore,
        open_checkpoint: Callable[[Path], StateStore],
        tmp_path: Path,
    ) -> None:
        store.apply(Delta({b"a": b"1"}), b"m1")
        assert store.checkpoint(tmp_path / "checkpoint") == b"m1"
        store.apply(Delta({b"a": b"2"}), b"m2")
        copy = open_checkpoint(tmp_path / "checkpoint")
        assert (copy.meta(), copy.get_many([b"a"])) == (b"m1", [b"1"])
        copy.close()
        assert store.get_many([b"a"]) == [b"2"]

    def test_checkpoint_does_not_overwrite(self, store: StateStore, tmp_path: Path) -> None:
        (tmp_path / "checkpoint").mkdir()
        with pytest.raises(StateError, match="exists already"):
            store.checkpoint(tmp_path / "checkpoint")

    def test_any_sequence_of_deltas_equals_a_dict(
        self, open_store: Callable[[Path], StateStore], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        @settings(max_examples=40, deadline=None)
        @given(st.lists(deltas(), max_size=5), keys, keys)
        def check(epochs: list[Delta], start: bytes, end: bytes) -> None:
            store = open_store(tmp_path_factory.mktemp("model") / "store")
            model: dict[bytes, bytes] = {}
            for number, delta in enumerate(epochs):
                store.apply(delta, b"%d" % number)
                apply_to_model(model, delta)
            asked = [*model, start, end]
            assert store.get_many(asked) == [model.get(key) for key in asked]
            expected = sorted(row for row in model.items() if start <= row[0] < end)
            assert list(store.scan(start, end)) == expected
            assert list(store.scan(b"", END)) == sorted(model.items())
            store.close()

        check()
