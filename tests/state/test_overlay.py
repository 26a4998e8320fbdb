from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.state import (
    Delta,
    MemoryStore,
    OverlayLimits,
    OverlayStore,
    RocksDbStore,
    RowBlock,
    StateDirectoryFullError,
    StateStore,
    StoreOptions,
    unhurried,
)
from riverrun.state.overlay import HARD_LIMIT_FACTOR
from riverrun.state.unhurried import no_rest
from tests.contracts.stores import StoreContract, apply_to_model, deltas

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from riverrun.state.unhurried import Rest

END = b"\xff" * 8
SMALL = StoreOptions(cache_bytes=8 << 20, write_buffer_bytes=8 << 20, memtable_bytes=2 << 20)


class TestOverlayOnMemoryContract(StoreContract):
    @pytest.fixture
    def open_store(self) -> Callable[[Path], StateStore]:
        return lambda path: OverlayStore(MemoryStore())

    @pytest.fixture
    def open_checkpoint(self) -> Callable[[Path], StateStore]:
        return MemoryStore.open


class TestOverlayOnRocksDbContract(StoreContract):
    @pytest.fixture
    def open_store(self) -> Callable[[Path], StateStore]:
        return lambda path: OverlayStore(RocksDbStore(path, options=SMALL))

    @pytest.fixture
    def open_checkpoint(self) -> Callable[[Path], StateStore]:
        return lambda path: RocksDbStore(path, options=SMALL)


class StuckStore(MemoryStore):
    """Refuses to apply while ``full``; calls ``during`` in the middle of an apply."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.applied: list[bytes] = []
        self.during: Callable[[], None] = lambda: None
        self.rest: Rest = no_rest

    def apply(self, delta: Delta, meta: bytes, rest: Rest = no_rest) -> None:
        if self.full:
            raise StateDirectoryFullError("full")
        self.rest = rest
        self.during()
        super().apply(delta, meta, rest)
        self.applied.append(meta)


steps = st.one_of(deltas(), st.sampled_from(["drain", "fail"]))


@settings(deadline=None)
@given(st.lists(steps, max_size=10), st.binary(max_size=2), st.binary(max_size=2))
def test_reads_equal_a_dict_whatever_has_been_drained(
    plan: list[Delta | str], start: bytes, end: bytes
) -> None:
    base = StuckStore()
    store = OverlayStore(base)
    model: dict[bytes, bytes] = {}

    def check() -> None:
        expected = sorted(row for row in model.items() if start <= row[0] < end)
        assert list(store.scan(start, end)) == expected
        assert list(store.scan(b"", END)) == sorted(model.items())
        asked = [*model, start, end, b"\x00"]
        assert store.get_many(asked) == [model.get(key) for key in asked]

    base.during = check
    for step in plan:
        if isinstance(step, Delta):
            store.apply(step, b"m")
            apply_to_model(model, step)
        elif step == "drain":
            store.drain()
        elif store._pending.meta is not None or store._draining is not None:
            base.full = True
            with pytest.raises(StateDirectoryFullError):
                store.drain()
            base.full = False
        check()
    store.drain()
    assert list(base.scan(b"", END)) == sorted(model.items())


def test_many_epochs_reach_the_base_as_one() -> None:
    base = StuckStore()
    store = OverlayStore(base)
    for epoch in range(100):
        store.apply(Delta({b"a": b"%d" % epoch}), b"%d" % epoch)
    assert base.applied == []
    assert store.meta() == b"99"
    store.drain()
    store.drain()
    assert base.applied == [b"99"]
    assert base.get_many([b"a"]) == [b"99"]


def test_should_drain_by_rows_and_by_bytes() -> None:
    by_rows = OverlayStore(MemoryStore(), limits=OverlayLimits(rows=2))
    by_bytes = OverlayStore(MemoryStore(), limits=OverlayLimits(size_bytes=8))
    for store in (by_rows, by_bytes):
        store.apply(Delta({b"a": b"123"}), b"")
        assert not store.should_drain()
        store.apply(Delta({b"b": b"123"}), b"")
        assert store.should_drain()
        store.drain()
        assert not store.should_drain()


def test_memory_stays_bounded_if_nobody_drains() -> None:
    base = StuckStore()
    store = OverlayStore(base, limits=OverlayLimits(rows=1))
    for number in range(HARD_LIMIT_FACTOR):
        assert base.applied == []
        store.apply(Delta({b"%d" % number: b""}), b"%d" % number)
    assert base.applied == [b"%d" % (HARD_LIMIT_FACTOR - 1)]


def test_reads_and_applies_go_on_during_a_drain() -> None:
    base = StuckStore()
    store = OverlayStore(base)
    base.apply(Delta({b"c": b"base"}), b"0")
    store.apply(Delta({b"a": b"1", b"b": b"1"}, {b"c"}), b"1")
    seen: list[object] = []

    def meanwhile() -> None:
        store.apply(Delta({b"b": b"2"}), b"2")
        seen.append(store.get_many([b"a", b"b", b"c"]))
        seen.append(list(store.scan(b"", END)))
        seen.append(store.meta())

    base.during = meanwhile
    store.drain()
    assert seen == [[b"1", b"2", None], [(b"a", b"1"), (b"b", b"2")], b"2"]
    base.during = lambda: None
    store.drain()
    assert base.applied == [b"0", b"1", b"2"]


def test_a_drain_rests_unless_somebody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    monkeypatch.setattr(unhurried, "TURN_S", 0)
    blocks = [RowBlock.of_rows(b"%d" % n, b"%d\xff" % n, [(b"%d" % n, b"")]) for n in range(3)]

    store = OverlayStore(MemoryStore())
    store.apply(Delta(blocks=blocks), b"1")
    assert rests == []
    store.drain()
    assert rests == [unhurried.TURN_REST_S] * 3
    store.apply(Delta(blocks=blocks), b"2")
    store.drain(at_once=True)
    store.apply(Delta(blocks=blocks), b"3")
    store.close()
    full = OverlayStore(MemoryStore(), limits=OverlayLimits(block_bytes=1))
    full.apply(Delta(blocks=blocks), b"1")
    assert full.get_many([b"0", b"1", b"2"]) == [b""] * 3
    assert len(rests) == 3


def test_a_drain_under_way_does_not_rest_any_more_when_somebody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    monkeypatch.setattr(unhurried, "TURN_S", 0)
    base = StuckStore()
    store = OverlayStore(base, limits=OverlayLimits(rows=1))
    store.apply(Delta({b"a": b""}), b"1")
    waiting = threading.Thread(
        target=store.apply, args=(Delta({b"b": b"", b"c": b""}), b"2"), daemon=True
    )

    def during() -> None:
        base.during = lambda: None
        base.rest()
        waiting.start()
        deadline_s = time.monotonic() + 30
        while store.meta() != b"2" or not store.is_waited_for:
            assert time.monotonic() < deadline_s
        base.rest()

    base.during = during
    store.drain()
    waiting.join(30)
    assert len(rests) == 1
    assert base.applied == [b"1", b"2"]


def test_a_checkpoint_says_which_epoch_it_holds_though_others_are_applied_meanwhile(
    tmp_path: Path,
) -> None:
    base = StuckStore()
    store = OverlayStore(base)
    store.apply(Delta({b"a": b"1"}), b"1")
    base.during = lambda: store.apply(Delta({b"a": b"2"}), b"2")

    held = store.checkpoint(tmp_path / "checkpoint")

    copy = MemoryStore.open(tmp_path / "checkpoint")
    assert (held, copy.meta(), copy.get_many([b"a"])) == (b"1", b"1", [b"1"])
    assert (store.meta(), store.get_many([b"a"])) == (b"2", [b"2"])


def test_close_drains_what_it_can() -> None:
    base = StuckStore()
    store = OverlayStore(base)
    store.apply(Delta({b"a": b"1"}), b"1")
    base.full = True
    store.close()
    base.full = False
    store.close()
    assert base.applied == [b"1"]


@pytest.mark.parametrize("limits", [{"rows": 0}, {"size_bytes": 0}])
def test_senseless_limits_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        OverlayLimits(**limits)


def test_readers_never_see_an_older_epoch_while_others_drain(tmp_path: Path) -> None:
    store = OverlayStore(RocksDbStore(tmp_path / "store", options=SMALL))
    keys = [b"%04d" % number for number in range(500)]
    store.apply(Delta(dict.fromkeys(keys, b"0")), b"0")
    done = threading.Event()
    failures: list[BaseException] = []

    def drain() -> None:
        try:
            while not done.is_set():
                store.drain()
        except BaseException as error:
            failures.append(error)

    drainer = threading.Thread(target=drain)
    drainer.start()
    try:
        for epoch in range(1, 60):
            value = b"%d" % epoch
            # Every other epoch also wipes the rows first: a range delete over both layers.
            wipe = [(b"", END)] if epoch % 2 else []
            rows = dict.fromkeys(keys, value)
            if epoch % 3:
                delta = Delta(rows, set(), wipe)
            else:
                block = RowBlock.of_rows(keys[0], keys[-1] + b"\0", list(rows.items()))
                delta = Delta(range_deletes=wipe, blocks=[block])
            store.apply(delta, value)
            assert set(store.get_many(keys)) == {value}
            assert list(store.scan(b"", END)) == [(key, value) for key in keys]
    finally:
        done.set()
        drainer.join()
        store.close()
    assert failures == []
