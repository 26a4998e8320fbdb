from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun.state import Delta, MemoryStore, StateStore, StoreCorruptError
from tests.contracts.stores import StoreContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class TestMemoryStoreContract(StoreContract):
    @pytest.fixture
    def open_store(self) -> Callable[[Path], StateStore]:
        return lambda path: MemoryStore()

    @pytest.fixture
    def open_checkpoint(self) -> Callable[[Path], StateStore]:
        return MemoryStore.open


def test_copy_is_independent() -> None:
    store = MemoryStore()
    store.apply(Delta({b"a": b"1"}), b"m1")
    copy = store.copy()
    store.apply(Delta({b"b": b"2"}, {b"a"}), b"m2")
    assert list(copy.scan(b"", b"z")) == [(b"a", b"1")]
    assert copy.meta() == b"m1"


@pytest.mark.parametrize("content", [b"", b"junk", b"\x83"])
def test_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "memory-store.msgpack").write_bytes(content)
    with pytest.raises(StoreCorruptError, match=r"memory-store\.msgpack"):
        MemoryStore.open(tmp_path)
