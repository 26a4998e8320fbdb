"""State of a ``ProcessFunction``: values, lists and maps by key and name, in one table."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from riverrun.engine.keys import key_from_state, key_to_state

from .values import ValueFormat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from riverrun.engine.task_state import KeyedTable

S = TypeVar("S")


class StateRows:
    """All states of one step; rows are under the current key, and a call's changes can be undone.

    A row's key is the length of the record key, the record key, the name of the state, a zero
    byte and, for maps, the entry's key.

    Args:
        table: Where rows are.
    """

    def __init__(self, table: KeyedTable) -> None:
        self._table = table
        self._prefix = b""
        self._undo: list[tuple[bytes, bytes | None]] = []  # (row, value before), oldest first
        self._states: dict[str, ValueState[Any] | ListState[Any] | MapState[Any]] = {}

    # --- states ----------------------------------------------------------------------------------

    def value_state(self, name: str, declared: Any, default: Any) -> ValueState[Any]:
        """Return the value state of a name, bound to whatever key is current."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = ValueState(self, name, ValueFormat(declared), default)
        elif not isinstance(state, ValueState) or state.declared is not declared:
            _same_or_raise(state, ValueState, name, declared)
        assert isinstance(state, ValueState)
        return state

    def list_state(self, name: str, declared: Any) -> ListState[Any]:
        """Return the list state of a name, bound to whatever key is current."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = ListState(self, name, declared)
        elif not isinstance(state, ListState) or state.declared is not declared:
            _same_or_raise(state, ListState, name, declared)
        assert isinstance(state, ListState)
        return state

    def map_state(self, name: str, declared: Any) -> MapState[Any]:
        """Return the map state of a name, bound to whatever key is current."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = MapState(self, name, ValueFormat(declared))
        elif not isinstance(state, MapState) or state.declared is not declared:
            _same_or_raise(state, MapState, name, declared)
        assert isinstance(state, MapState)
        return state

    # --- calls -----------------------------------------------------------------------------------

    def prefetch(self, keys: Iterable[Any]) -> None:
        """Read the values and lists that were used before, for many keys in one go."""
        names = [
            _name_bytes(name)
            for name, state in self._states.items()
            if not isinstance(state, MapState)
        ]
        if names:
            prefixes = [_prefix(key) for key in dict.fromkeys(keys)]
            self._table.prefetch([prefix + name for prefix in prefixes for name in names])

    def begin(self, key: Any) -> None:
        """Make a key the current one."""
        self._prefix = _prefix(key)

    def commit(self) -> None:
        """Keep what was changed since ``begin``."""
        self._undo.clear()

    def roll_back(self) -> None:
        """Undo what was changed since ``begin``."""
        for row, before in reversed(self._undo):
            if before is None:
                self._table.delete(row)
            else:
                self._table.put(row, before)
        self._undo.clear()

    # --- rows ------------------------------------------------------------------------------------

    def get(self, suffix: bytes) -> bytes | None:
        """Return a row of the current key."""
        return self._table.get(self._prefix + suffix)

    def put(self, suffix: bytes, value: bytes) -> None:
        """Set a row of the current key."""
        row = self._prefix + suffix
        self._undo.append((row, self._table.get(row)))
        self._table.put(row, value)

    def delete(self, suffix: bytes) -> None:
        """Remove a row of the current key."""
        row = self._prefix + suffix
        self._undo.append((row, self._table.get(row)))
        self._table.delete(row)

    def scan(self, suffix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rest of the row key, and the value, of all rows below a suffix."""
        start = self._prefix + suffix
        # A suffix ends with the zero byte behind a name, so the next one is above all its rows.
        end = start[:-1] + b"\x01"
        for row, value in list(self._table.scan(start, end)):
            yield row[len(start) :], value


class ValueState(Generic[S]):
    """One value per key.

    Args:
        rows: The states of the step.
        name: Name of the state.
        value_format: How values are kept.
        default: What ``get`` returns when there is none.
    """

    def __init__(self, rows: StateRows, name: str, value_format: ValueFormat, default: S) -> None:
        self._rows = rows
        self._suffix = _name_bytes(name)
        self._format = value_format
        self._default = default
        self.declared = value_format.declared

    def get(self) -> S:
        """Return the value, or the default. Change it with ``set``: it is a copy."""
        stored = self._rows.get(self._suffix)
        if stored is None:
            default = self._default
            return copy.deepcopy(default)  # the same object for numbers and text
        return self._format.decode(stored)

    def set(self, value: S) -> None:
        """Keep a value.

        Raises:
            TypeError: If it cannot be kept as what it is.
        """
        self._format.check(value)
        self._rows.put(self._suffix, self._format.encode(value))

    def clear(self) -> None:
        """Forget the value."""
        self._rows.delete(self._suffix)


class ListState(Generic[S]):
    """A list per key, read and written as a whole: for tens of elements, not thousands.

    Args:
        rows: The states of the step.
        name: Name of the state.
        declared: Type of the elements.
    """

    def __init__(self, rows: StateRows, name: str, declared: Any) -> None:
        self._value = ValueState[list[S]](rows, name, ValueFormat(list[declared]), [])
        self.declared = declared

    def get(self) -> list[S]:
        """Return the elements. Change them with ``add`` or ``set``: it is a copy."""
        return self._value.get()

    def add(self, value: S) -> None:
        """Add an element at the end."""
        self._value.set([*self._value.get(), value])

    def set(self, values: Iterable[S]) -> None:
        """Replace all elements."""
        self._value.set(list(values))

    def clear(self) -> None:
        """Forget all elements."""
        self._value.clear()


class MapState(Generic[S]):
    """A map per key, a row per entry. Entry keys are what records may be keyed by.

    Args:
        rows: The states of the step.
        name: Name of the state.
        value_format: How values are kept.
    """

    def __init__(self, rows: StateRows, name: str, value_format: ValueFormat) -> None:
        self._rows = rows
        self._suffix = _name_bytes(name)
        self._format = value_format
        self.declared = value_format.declared

    def get(self, entry: Any, default: S | None = None) -> S | None:
        """Return the value of an entry, or ``default``."""
        stored = self._rows.get(self._suffix + key_to_state(entry))
        return default if stored is None else self._format.decode(stored)

    def put(self, entry: Any, value: S) -> None:
        """Set the value of an entry.

        Raises:
            TypeError: If it cannot be kept as what it is.
        """
        self._format.check(value)
        self._rows.put(self._suffix + key_to_state(entry), self._format.encode(value))

    def remove(self, entry: Any) -> None:
        """Remove an entry."""
        self._rows.delete(self._suffix + key_to_state(entry))

    def items(self) -> list[tuple[Any, S]]:
        """Return all entries, in the order of their keys as bytes."""
        return [
            (key_from_state(key), self._format.decode(value))
            for key, value in self._rows.scan(self._suffix)
        ]

    def clear(self) -> None:
        """Remove all entries."""
        for key, _ in self._rows.scan(self._suffix):
            self._rows.delete(self._suffix + key)


def _same_or_raise(state: Any, kind: type[Any], name: str, declared: Any) -> None:
    if type(state) is not kind or state.declared != declared:
        raise TypeError(
            f"state {name!r} is used as {type(state).__name__} of {state.declared!r} elsewhere, "
            f"here as {kind.__name__} of {declared!r}; give one of them another name"
        )


def _prefix(key: Any) -> bytes:
    stored = key_to_state(key)
    return len(stored).to_bytes(4, "big") + stored


def _name_bytes(name: str) -> bytes:
    if "\0" in name:
        raise ValueError(f"the name of a state has no zero bytes, got {name!r}")
    return name.encode() + b"\0"
