"""A store in memory: the reference implementation, for tests and the in-memory driver."""

from __future__ import annotations

import os
from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

from .delta import merge_ranges
from .errors import StateError, StoreCorruptError
from .unhurried import no_rest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .delta import Delta
    from .unhurried import Rest

CHECKPOINT_FILE = "memory-store.msgpack"


class _Image(msgspec.Struct, frozen=True):
    """The file of a checkpoint."""

    version: int
    meta: bytes | None
    rows: dict[bytes, bytes]


class MemoryStore:
    """State in a dict; nothing is durable but checkpoints.

    A scan sees the store as it was when the scan was made.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._sorted_keys: list[bytes] = []
        self._keys_changed = False
        self._meta: bytes | None = None

    @classmethod
    def open(cls, checkpoint: Path) -> MemoryStore:
        """Return a store with what ``checkpoint`` wrote to the directory.

        Raises:
            StoreCorruptError: The file is missing or not a checkpoint of a memory store.
        """
        path = checkpoint / CHECKPOINT_FILE
        try:
            image = msgspec.msgpack.decode(path.read_bytes(), type=_Image)
        except (OSError, msgspec.MsgspecError) as error:
            raise StoreCorruptError(f"cannot read memory store {path}: {error}") from error
        store = cls()
        store._rows, store._meta, store._keys_changed = image.rows, image.meta, True
        return store

    def copy(self) -> MemoryStore:
        """Return an independent store with the same contents."""
        store = MemoryStore()
        store._rows, store._meta, store._keys_changed = dict(self._rows), self._meta, True
        return store

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        return list(map(self._rows.get, keys))

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values of ``[start, end)`` in key order."""
        rows = self._rows
        return iter([(key, rows[key]) for key in self._keys_between(start, end)])

    def apply(self, delta: Delta, meta: bytes, rest: Rest = no_rest) -> None:
        """Apply a committed epoch; ``meta`` is that of the newest."""
        rows, delta = self._rows, delta.unfolded(rest)
        for start, end in merge_ranges(delta.range_deletes):
            for key in self._keys_between(start, end):
                del rows[key]
            self._keys_changed = True
        for key in delta.deletes:
            if rows.pop(key, None) is not None:
                self._keys_changed = True
        before = len(rows)
        rows.update(delta.puts)
        self._keys_changed = self._keys_changed or len(rows) != before
        self._meta = meta

    def meta(self) -> bytes | None:
        """Return the ``meta`` of the newest applied epoch, None for a new store."""
        return self._meta

    def checkpoint(self, target: Path) -> bytes | None:
        """Write everything to one file in the new directory ``target``; return its ``meta``."""
        try:
            target.mkdir()
        except FileExistsError as error:
            raise StateError(f"checkpoint target {target} exists already") from error
        image = msgspec.msgpack.encode(_Image(version=1, meta=self._meta, rows=self._rows))
        with (target / CHECKPOINT_FILE).open("wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        return self._meta

    def close(self) -> None:
        """Do nothing: the contents stay readable, as tests like it."""

    def _keys_between(self, start: bytes, end: bytes) -> list[bytes]:
        if self._keys_changed:
            self._sorted_keys = sorted(self._rows)
            self._keys_changed = False
        keys = self._sorted_keys
        return keys[bisect_left(keys, start) : bisect_left(keys, end)]
