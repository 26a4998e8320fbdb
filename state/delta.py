"""What one epoch, or several in a row, changed in the state of one task."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .unhurried import no_rest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .row_block import RowBlock
    from .unhurried import Rest

Range = tuple[bytes, bytes]
"""A half-open range ``[start, end)`` of state keys."""


@dataclass(slots=True)
class Delta:
    """The state changes of one epoch: absolute values, so that applying twice is harmless.

    Order of application: range deletes, then deletes, then puts, then blocks one after the other.
    A key is in ``puts`` or in ``deletes``, never in both.

    Attributes:
        puts: New value by state key.
        deletes: State keys that are gone.
        range_deletes: Half-open ranges ``[start, end)`` of state keys that are gone.
        blocks: Rows of tables that give them in columns.
    """

    puts: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    deletes: set[bytes] = field(default_factory=set[bytes])
    range_deletes: list[Range] = field(default_factory=list[Range])
    blocks: list[RowBlock] = field(default_factory=list["RowBlock"])

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.puts or self.deletes or self.range_deletes or self.blocks)

    @property
    def rows(self) -> int:
        """Number of single changes outside of blocks, a range delete being one."""
        return len(self.puts) + len(self.deletes) + len(self.range_deletes)

    @property
    def block_bytes(self) -> int:
        """Number of bytes in blocks."""
        return sum(len(block.data) for block in self.blocks)

    def put(self, key: bytes, value: bytes) -> None:
        """Set ``key`` to ``value``."""
        self.unfold_at([key])
        self.deletes.discard(key)
        self.puts[key] = value

    def delete(self, key: bytes) -> None:
        """Remove ``key``."""
        self.unfold_at([key])
        self.puts.pop(key, None)
        self.deletes.add(key)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Remove every key of ``[start, end)``, those put before in this delta included."""
        self._drop_rows_in([(start, end)])
        self.range_deletes.append((start, end))

    def merge(self, later: Delta) -> None:
        """Become this delta followed by ``later``, which is left as it is.

        Applying the result equals applying both in order. Afterwards ``range_deletes`` is sorted
        and disjoint, as ``range_covering`` wants it.
        """
        if later.range_deletes:
            ranges = merge_ranges(later.range_deletes)
            self._drop_rows_in(ranges)
            self.range_deletes = merge_ranges([*self.range_deletes, *ranges])
        self.unfold_at(later.deletes)
        self.unfold_at(later.puts)
        if later.deletes:
            for key in later.deletes:
                self.puts.pop(key, None)
            self.deletes |= later.deletes
        if later.puts:
            if self.deletes:
                self.deletes.difference_update(later.puts)
            self.puts.update(later.puts)
        self.blocks += later.blocks

    def unfolded(self, rest: Rest = no_rest) -> Delta:
        """Return the same changes without blocks: this delta itself where it has none.

        Args:
            rest: Called after each block.

        Raises:
            ValueError: A block is damaged.
        """
        if not self.blocks:
            return self
        plain = Delta(dict(self.puts), set(self.deletes), list(self.range_deletes), self.blocks)
        plain.unfold(rest)
        return plain

    def unfold(self, rest: Rest = no_rest) -> None:
        """Make single changes of all blocks.

        Args:
            rest: Called after each block.

        Raises:
            ValueError: A block is damaged.
        """
        blocks, self.blocks = self.blocks, []
        for block in blocks:
            keys, values = block.columns()
            if self.deletes:
                self.deletes.difference_update(keys)
            self.puts.update(zip(keys, values, strict=True))
            rest()

    def unfold_at(self, keys: Iterable[bytes]) -> None:
        """Make single changes of the blocks if one of ``keys`` might be in any."""
        if self.has_blocks_at(keys):
            self.unfold()

    def has_blocks_at(self, keys: Iterable[bytes]) -> bool:
        """Return whether one of ``keys`` might be in a block."""
        if not self.blocks:
            return False
        ranges = merge_ranges((block.start, block.end) for block in self.blocks)
        return any(range_covering(ranges, key) for key in keys)

    def byte_size(self) -> int:
        """Return the number of bytes in keys and values outside of blocks."""
        size = sum(map(len, self.puts)) + sum(map(len, self.puts.values()))
        size += sum(map(len, self.deletes))
        return size + sum(len(start) + len(end) for start, end in self.range_deletes)

    def _drop_rows_in(self, ranges: Sequence[Range]) -> None:
        """Forget single changes inside ``ranges`` (sorted, disjoint): a later delete hides them."""
        if not ranges:
            return
        if any(_is_cut(block, ranges) for block in self.blocks):
            self.unfold()
        self.blocks = [block for block in self.blocks if not range_covering(ranges, block.start)]
        if not (self.puts or self.deletes):
            return
        # The hull test is cheap and true for few keys, as a rule: expired windows lie together.
        low, high = ranges[0][0], ranges[-1][1]
        for key in [key for key in self.puts if low <= key < high]:
            if range_covering(ranges, key):
                del self.puts[key]
        for key in [key for key in self.deletes if low <= key < high]:
            if range_covering(ranges, key):
                self.deletes.discard(key)


def _is_cut(block: RowBlock, ranges: Sequence[Range]) -> bool:
    """Return whether some keys of a block may lie in ``ranges`` and others not."""
    at = bisect_right(ranges, block.start, key=_start) - 1
    if at >= 0 and block.start < ranges[at][1]:
        return block.end > ranges[at][1]
    return at + 1 < len(ranges) and ranges[at + 1][0] < block.end


def merge_ranges(ranges: Iterable[Range]) -> list[Range]:
    """Return the same set of keys as sorted, disjoint ranges; empty ranges vanish.

    >>> merge_ranges([(b"c", b"e"), (b"a", b"b"), (b"b", b"d"), (b"x", b"x")])
    [(b'a', b'e')]
    """
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def range_covering(ranges: Sequence[Range], key: bytes) -> bool:
    """Return whether ``key`` lies in one of ``ranges``, which are sorted and disjoint.

    >>> range_covering([(b"a", b"c"), (b"x", b"z")], b"b")
    True
    >>> range_covering([(b"a", b"c"), (b"x", b"z")], b"c")
    False
    """
    if not ranges:
        return False
    at = bisect_right(ranges, key, key=_start) - 1
    return at >= 0 and key < ranges[at][1]


def _start(span: Range) -> bytes:
    return span[0]
