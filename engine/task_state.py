"""The tables of one task: write-back caches over its store, drained at each barrier."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from riverrun.state import Delta

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from riverrun.state import StateReader


class Table(Protocol):
    """Anything that keeps state of a step."""

    def drain_delta(self, delta: Delta) -> None:
        """Add to ``delta`` what changed since the last call."""
        ...


class TaskState:
    """Where the steps of one task open their tables.

    Args:
        reader: The committed state that tables read misses from.
    """

    def __init__(self, reader: StateReader) -> None:
        self._reader = reader
        self._tables: dict[str, Table] = {}
        self._prefixes: dict[bytes, str] = {}

    @property
    def reader(self) -> StateReader:
        """The committed state."""
        return self._reader

    @property
    def names(self) -> list[str]:
        """Names of all tables, sorted: the layout that a commit record carries."""
        return sorted(self._tables)

    def open_prefix(self, name: str) -> bytes:
        """Return the prefix that all state keys of table ``name`` begin with.

        It depends on the name alone, so that adding a step does not move the state of another.
        """
        prefix = hashlib.sha256(name.encode()).digest()[:4]
        holder = self._prefixes.setdefault(prefix, name)
        if holder != name:
            raise ValueError(f"tables {holder!r} and {name!r} collide; rename one of the steps")
        return prefix

    def register(self, name: str, table: Table) -> None:
        """Have ``table`` drained at each barrier.

        Raises:
            ValueError: If the name is taken.
        """
        if name in self._tables:
            raise ValueError(f"table {name!r} is open already")
        self._tables[name] = table

    def keyed_table(self, name: str) -> KeyedTable:
        """Open a table of values by key. ``name`` is unique in the task: begin it with the step."""
        table = KeyedTable(self.open_prefix(name), self._reader)
        self.register(name, table)
        return table

    def drain_delta(self) -> Delta:
        """Return everything that changed since the last call."""
        delta = Delta()
        for table in self._tables.values():
            table.drain_delta(delta)
        return delta


_CACHE_ROWS_MAX = 200_000
"""Clean rows a table keeps in memory; about 50 MB at 200 bytes a row with Python's overhead."""


class KeyedTable:
    """Values by key, as bytes; a write-back cache over the committed state.

    Keys are ordered: ``scan`` goes in byte order. Reads see the task's own writes.

    Example:
        >>> from riverrun.state.memory import MemoryStore
        >>> table = TaskState(MemoryStore()).keyed_table("count")
        >>> table.put(b"ada", b"1")
        >>> table.get(b"ada"), table.get(b"bob")
        (b'1', None)
    """

    def __init__(self, prefix: bytes, reader: StateReader) -> None:
        self._prefix = prefix
        self._reader = reader
        self._cache: dict[bytes, bytes | None] = {}
        self._dirty: set[bytes] = set()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, None if there is none."""
        try:
            return self._cache[key]
        except KeyError:
            (value,) = self._reader.get_many([self._prefix + key])
            self._cache[key] = value
            return value

    def prefetch(self, keys: Sequence[bytes]) -> None:
        """Read the missing ones of ``keys`` in one go; call it once per batch before ``get``."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._cache]
        if missing:
            values = self._reader.get_many([self._prefix + key for key in missing])
            self._cache.update(zip(missing, values, strict=True))

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of ``key``."""
        self._cache[key] = value
        self._dirty.add(key)

    def delete(self, key: bytes) -> None:
        """Remove ``key``."""
        self._cache[key] = None
        self._dirty.add(key)

    def scan(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values in ``[start, end)``, in order, as of the time of the call.

        Args:
            start: First key.
            end: Key to stop before; None for the end of the table.
        """
        stop = _successor(self._prefix) if end is None else self._prefix + end
        cut = len(self._prefix)
        fresh = {k: self._cache[k] for k in self._dirty if k >= start and (end is None or k < end)}
        committed = self._reader.scan(self._prefix + start, stop)
        if not fresh:
            for key, value in committed:
                yield key[cut:], value
            return
        merged: dict[bytes, bytes | None] = {key[cut:]: value for key, value in committed}
        merged.update(fresh)
        for key in sorted(merged):
            value = merged[key]
            if value is not None:
                yield key, value

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        prefix = self._prefix
        for key in self._dirty:
            value = self._cache[key]
            if value is None:
                delta.delete(prefix + key)
            else:
                delta.put(prefix + key, value)
        self._drained()

    def _drained(self) -> None:
        # What was dirty is now in the delta, which the task keeps readable until the store has
        # it; so dropping the cache is safe, and bounds memory, but not before the next barrier
        # has passed the delta on: hence the old dirty rows stay cached.
        if len(self._cache) > _CACHE_ROWS_MAX:
            self._cache = {key: self._cache[key] for key in self._dirty}
        self._dirty = set()


def _successor(prefix: bytes) -> bytes:
    """Return the smallest key above all keys that begin with ``prefix``."""
    for i in range(len(prefix) - 1, -1, -1):
        if prefix[i] != 0xFF:
            return prefix[:i] + bytes([prefix[i] + 1])
    raise ValueError("a prefix of 0xff bytes alone has no successor")
