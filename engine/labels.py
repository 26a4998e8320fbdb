"""Labels of records: the times, keys and positions that go along with the values of a batch."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import polars as pl

from .keys import key_to_wire

if TYPE_CHECKING:
    from .byte_columns import ByteColumn

TIME = "__time"
"""Column with the event time, Int64, milliseconds since the Unix epoch."""
KEY = "__key"
"""Column with the key; absent as long as a stream has no key."""
POSITION = "__position"
"""Column with the index of the record in its origin, UInt32."""

RESERVED = (TIME, KEY, POSITION)

_TYPES: dict[str, Any] = {TIME: pl.Int64, POSITION: pl.UInt32}


class TextSource(Protocol):
    """What a plane gives keys in if not in a list."""

    def __len__(self) -> int:
        """Return the number of keys."""
        ...

    def is_text(self) -> bool:
        """Return whether each key is UTF-8."""
        ...

    def to_text(self) -> Any:
        """Return the bytes as text, in what Polars makes a column of.

        Raises:
            ValueError: If any is no UTF-8.
        """
        ...


class Label:
    """One label of each record: as a list, as a column, or both once converted.

    Args:
        name: ``TIME`` or ``POSITION``.
        values: The list, or a range, which becomes one, or a column, where that is asked for.
        column: The column; one of the two is given.
    """

    __slots__ = ("_column", "_values", "name")

    def __init__(
        self, name: str, values: list[Any] | range | None = None, column: pl.Series | None = None
    ) -> None:
        self.name = name
        self._values = values
        self._column = column

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.values()) if self._column is None else len(self._column)

    def values(self) -> list[Any]:
        """Return it as a list."""
        if not isinstance(self._values, list):
            self._values = self._to_list()
        return self._values

    def column(self) -> pl.Series:
        """Return it as a column."""
        if self._column is None:
            self._column = self._to_column()
        return self._column

    def take(self, indices: list[int]) -> Label:
        """Return the label of the records at ``indices``."""
        self._settle()
        if self._column is not None:
            return Label(self.name, column=self._column.gather(indices))
        values = self.values()
        return Label(self.name, [values[i] for i in indices])

    def where(self, mask: pl.Series) -> Label:
        """Return the label of the records that a Boolean column without nulls marks."""
        self._settle()
        if self._column is not None:
            return Label(self.name, column=self._column.filter(mask))
        return Label(self.name, list(compress(self.values(), mask.to_list())))

    def _settle(self) -> None:
        """Make a column of what is quicker to go through as one."""
        if isinstance(self._values, range):
            self.column()

    def _to_list(self) -> list[Any]:
        if self._values is not None:
            return list(self._values)
        assert self._column is not None
        return self._column.to_list()

    def _to_column(self) -> pl.Series:
        values = self._values
        if isinstance(values, range):
            values = np.arange(values.start, values.stop, values.step)
        return pl.Series(self.name, values, dtype=_TYPES[self.name])


class KeyLabel(Label):
    """The key of each record: as a list, a column, or the bytes that topics carry.

    Args:
        values: The list.
        column: The column; composite keys are structs.
        wire: Bytes that are UTF-8 text, and so the text keys themselves.
        text: Bytes of a plane that are text; a column of them is made where it is asked for.
    """

    __slots__ = ("_text", "_wire")

    def __init__(
        self,
        values: list[Any] | None = None,
        column: pl.Series | None = None,
        wire: list[bytes | None] | None = None,
        text: TextSource | None = None,
    ) -> None:
        super().__init__(KEY, values, column)
        self._wire = wire
        self._text = text

    def __len__(self) -> int:
        """Return the number of records."""
        held = self._text if self._wire is None else self._wire
        return super().__len__() if held is None else len(held)

    def wire(self) -> ByteColumn:
        """Return the keys as the bytes that topics carry; text keys that are a column, as one.

        Raises:
            TypeError: If a key is of a type that has no stable bytes.
        """
        self._settle()
        if self._wire is None:
            if self._column is not None and self._column.dtype == pl.String:
                return self._column.cast(pl.Binary)
            self._wire = [key_to_wire(key) for key in self.values()]
        return self._wire

    def take(self, indices: list[int]) -> KeyLabel:
        """Return the keys of the records at ``indices``."""
        self._settle()
        if self._column is not None:
            return KeyLabel(column=self._column.gather(indices))
        if self._values is not None:
            return KeyLabel([self._values[i] for i in indices])
        return KeyLabel(wire=[self._wire_list[i] for i in indices])

    def where(self, mask: pl.Series) -> KeyLabel:
        """Return the keys of the records that a Boolean column without nulls marks."""
        self._settle()
        if self._column is not None:
            return KeyLabel(column=self._column.filter(mask))
        if self._values is not None:
            return KeyLabel(list(compress(self._values, mask.to_list())))
        return KeyLabel(wire=list(compress(self._wire_list, mask.to_list())))

    def _settle(self) -> None:
        if self._text is not None:
            self.column()

    @property
    def _wire_list(self) -> list[bytes | None]:
        assert self._wire is not None
        return self._wire

    def _to_list(self) -> list[Any]:
        self._settle()
        if self._column is not None:
            return keys_to_list(self._column)
        assert self._wire is not None
        return [None if key is None else key.decode() for key in self._wire]

    def _to_column(self) -> pl.Series:
        if self._text is not None:
            text, self._text = self._text.to_text(), None
            return pl.Series(KEY, text)
        if self._values is None:
            return pl.Series(KEY, self._wire, dtype=pl.Binary).cast(pl.String)
        return key_series(self.values())


def key_series(keys: list[Any]) -> pl.Series:
    """Return keys as a column; composite keys (tuples) become structs.

    Raises:
        TypeError: If they are of several types; see ``key_type``.
    """
    first: Any = next((key for key in keys if key is not None), None)
    if isinstance(first, tuple):
        mixed = len({key_type(key) for key in keys} - {_NULL}) > 1
    else:
        # Polars tells all other mixtures, but would take True for the number 1.
        types = set(map(type, keys)) - {_NULL}
        mixed = bool in types and len(types) > 1
    if mixed:
        raise TypeError("keys of several types do not go into one column")
    if isinstance(first, tuple):
        names = [f"f{i}" for i in range(len(cast("tuple[Any, ...]", first)))]
        return pl.Series(
            KEY, [None if k is None else dict(zip(names, k, strict=True)) for k in keys]
        )
    return pl.Series(KEY, keys)


_NULL = type(None)
_INT64_END = 1 << 63


def key_type(key: Any) -> Any:
    """Return what keys that go into one column have in common.

    Example:
        >>> key_type((True, "a")) == key_type((1, "a")), key_type(7) == key_type(8)
        (False, True)
    """
    if isinstance(key, tuple):
        return tuple(key_type(part) for part in cast("tuple[Any, ...]", key))
    if isinstance(key, int) and key >= _INT64_END:
        return "UInt64"
    kinds = (str, bool, int, bytes)
    return next((kind for kind in kinds if isinstance(key, kind)), cast("type[object]", type(key)))


def keys_to_list(series: pl.Series) -> list[Any]:
    """Return a key column as Python keys; structs become tuples."""
    if isinstance(series.dtype, pl.Struct):
        return [None if key is None else tuple(key.values()) for key in series.to_list()]
    return series.to_list()
