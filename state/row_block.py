"""Row blocks: the new rows of a part of a table as one piece of bytes.

A table that is kept in columns gives its changes in this form, and most of them are never anything
else: they go to the changelog as they are, and those of a window that closes soon are dropped in
one go. All numbers are little-endian:

    u32 rows | u32 length of prefix | prefix | u32 key width | u32 value width
    u32 length of each key, if the key width is VARYING
    u32 length of each value, if the value width is VARYING
    the keys without their prefix | the values
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from itertools import accumulate, pairwise
from sys import byteorder
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

VARYING = 0xFFFF_FFFF
"""In place of a width: the lengths follow."""

_WORD = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class RowBlock:
    """New values of state keys, each there once, all of them in ``[start, end)``.

    Attributes:
        start: Where the range of the keys begins.
        end: Where it ends.
        rows: How many.
        data: Keys and values, see the module.
    """

    start: bytes
    end: bytes
    rows: int
    data: bytes

    @staticmethod
    def of_rows(start: bytes, end: bytes, rows: Sequence[tuple[bytes, bytes]]) -> RowBlock:
        """Return a block of some rows.

        Example:
            >>> RowBlock.of_rows(b"a", b"b", [(b"a1", b"one"), (b"a22", b"two")]).items()
            [(b'a1', b'one'), (b'a22', b'two')]
        """
        keys = [key for key, _ in rows]
        values = [value for _, value in rows]
        key_width, key_lengths = _widths(keys)
        value_width, value_lengths = _widths(values)
        head = struct.pack("<IIII", len(rows), 0, key_width, value_width)
        data = b"".join((head, key_lengths, value_lengths, *keys, *values))
        return RowBlock(start, end, len(rows), data)

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return the rows.

        Raises:
            ValueError: The block is damaged.
        """
        keys, values = self.columns()
        return list(zip(keys, values, strict=True))

    def columns(self) -> tuple[list[bytes], list[bytes]]:
        """Return the keys and the values.

        Raises:
            ValueError: The block is damaged.
        """
        data = self.data
        try:
            rows, prefix_bytes = struct.unpack_from("<II", data)
            at = 2 * _WORD.size + prefix_bytes
            prefix = data[2 * _WORD.size : at]
            key_width, value_width = struct.unpack_from("<II", data, at)
        except struct.error as error:
            raise ValueError(f"a row block of {len(data)} bytes has no header") from error
        if rows != self.rows:
            raise ValueError(f"a row block of {rows} rows where {self.rows} are announced")
        at += 2 * _WORD.size
        key_lengths, at = _lengths(data, at, rows, key_width)
        value_lengths, at = _lengths(data, at, rows, value_width)
        keys, at = _cells(data, at, rows, key_width, key_lengths)
        values, at = _cells(data, at, rows, value_width, value_lengths)
        if at != len(data):
            raise ValueError(f"the rows end at byte {at} of a block of {len(data)} bytes")
        return [prefix + key for key in keys] if prefix else keys, values


def _widths(cells: Sequence[bytes]) -> tuple[int, bytes]:
    lengths = set(map(len, cells))
    if len(lengths) == 1:
        return lengths.pop(), b""
    return VARYING, b"".join(_WORD.pack(len(cell)) for cell in cells)


def _lengths(data: bytes, at: int, rows: int, width: int) -> tuple[array[int] | None, int]:
    if width != VARYING:
        return None, at
    end = at + rows * _WORD.size
    if end > len(data):
        raise ValueError(f"a row block of {len(data)} bytes has no lengths of {rows} rows")
    lengths = array("I")
    lengths.frombytes(data[at:end])
    if byteorder == "big":
        lengths.byteswap()
    return lengths, end


def _cells(
    data: bytes, at: int, rows: int, width: int, lengths: array[int] | None
) -> tuple[list[bytes], int]:
    """Return the keys or values that begin at ``at``, and where they end."""
    end = at + (rows * width if lengths is None else sum(lengths))
    if end > len(data):
        raise ValueError(f"the rows end at byte {end} of a block of {len(data)} bytes")
    if lengths is not None:
        bounds = accumulate(lengths, initial=at)
        return [data[begin:stop] for begin, stop in pairwise(bounds)], end
    if width == 0:
        if rows > len(data):
            raise ValueError(f"{rows} empty keys or values in a block of {len(data)} bytes")
        return [b""] * rows, end
    # Seen as plain bytes, numpy makes the list of them at once.
    return np.frombuffer(data, np.dtype((np.void, width)), rows, at).tolist(), end
