"""Deltas as bytes, for the changelog topic.

A delta travels as one or more pieces, each a record value:

    u8 version | lz4 frame with content size and checksum, of:
        u32 puts, u32 deletes, u32 range deletes
        u32 length of each: put keys, put values, deleted keys, range starts, range ends
        the bytes of each, in the same order

or, for a row block, which its record batch compresses,

    u8 version | u16 length of start, start | u16 length of end, end | u32 rows | data of the block

All numbers are little-endian. Columns of like things compress better than rows, and decode without
a loop over fields. Pieces are applied in their order: range deletes are in the first ones, row
blocks are the last.
"""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any

import lz4.frame

from .delta import Delta
from .errors import StateError
from .row_block import RowBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FORMAT_VERSION = 1
BLOCK_VERSION = 2
PIECE_BYTES = 512 * 1024
"""Default limit of a piece; brokers take 1 MiB batches by default."""
BODY_BYTES_MAX = 256 * 1024 * 1024
"""Most that a piece may decompress to: what a damaged or hostile one can make us allocate."""

_COUNTS = struct.Struct("<III")
_SHORT = struct.Struct("<H")
_WORD = struct.Struct("<I")
_LENGTH_BYTES = 4
# A piece is written when it holds this share of the limit, by the compression seen so far: hitting
# the limit means compressing again.
_FILL = 0.9

_Row = tuple[int, bytes, bytes]
_RANGE, _DELETE, _PUT = range(3)


def encode_delta(delta: Delta, *, piece_bytes: int = PIECE_BYTES) -> list[bytes]:
    """Return ``delta`` as pieces of at most ``piece_bytes``; none for an empty delta.

    A row that exceeds the limit by itself is a piece by itself, larger than the limit.

    Raises:
        StateError: One row is larger than any piece may be.
    """
    rows: list[_Row] = [(_RANGE, start, end) for start, end in delta.range_deletes]
    rows += [(_DELETE, key, b"") for key in delta.deletes]
    rows += [(_PUT, key, value) for key, value in delta.puts.items()]
    pieces: list[bytes] = []
    budget = piece_bytes  # of the body; grows with the compression that is seen
    begin = 0
    while begin < len(rows):
        end = _fill(rows, begin, min(budget, BODY_BYTES_MAX // 2))
        body = _encode_body(rows[begin:end])
        if len(body) > BODY_BYTES_MAX:
            raise StateError(
                f"a state row of {len(body)} bytes, key {rows[begin][1][:64]!r}, is larger than "
                f"{BODY_BYTES_MAX} bytes; keep less under one key"
            )
        piece = bytes([FORMAT_VERSION]) + _compress(body)
        if len(piece) > piece_bytes and end - begin > 1:
            budget = max(len(body) // 2, 1)
            continue
        pieces.append(piece)
        begin = end
        budget = max(int(piece_bytes * _FILL * len(body) / len(piece)), 1)
    return pieces + [_encode_block(block) for block in delta.blocks]


def decode_delta(pieces: Iterable[bytes]) -> Delta:
    """Return the delta that was encoded as ``pieces``, which are all of it and in order.

    Raises:
        StateError: A piece is damaged or of a format that this version does not know.
    """
    delta = Delta()
    for number, piece in enumerate(pieces):
        try:
            if piece[:1] == bytes([BLOCK_VERSION]):
                delta.blocks.append(_decode_block(piece))
            else:
                _decode_body(_decompress(piece), delta)
        except (ValueError, RuntimeError, EOFError, MemoryError) as error:
            raise StateError(
                f"changelog piece {number} of {len(piece)} bytes cannot be decoded: {error}. If it "
                "was written by a newer version, use that; otherwise restore from a snapshot."
            ) from error
    return delta


def _encode_block(block: RowBlock) -> bytes:
    sizes = _SHORT.pack(len(block.start)), _SHORT.pack(len(block.end))
    head = bytes([BLOCK_VERSION]), sizes[0], block.start, sizes[1], block.end
    return b"".join((*head, _WORD.pack(block.rows), block.data))


def _decode_block(piece: bytes) -> RowBlock:
    """Return the block that a piece is.

    Raises:
        ValueError: It is damaged.
    """
    at = 1
    bounds: list[bytes] = []
    try:
        for _ in range(2):
            (size,) = _SHORT.unpack_from(piece, at)
            at += _SHORT.size
            bounds.append(piece[at : at + size])
            at += size
        (rows,) = _WORD.unpack_from(piece, at)
    except struct.error as error:
        raise ValueError("a row block is cut off") from error
    start, end = bounds
    block = RowBlock(start, end, rows, piece[at + _WORD.size :])
    keys, _ = block.columns()
    if any(not start <= key < end for key in keys):
        raise ValueError("a row block has keys beyond its range")
    return block


def _fill(rows: Sequence[_Row], begin: int, budget: int) -> int:
    """Return the end of the longest run of rows from ``begin`` that fits; at least one row."""
    left = budget - _COUNTS.size
    for at in range(begin, len(rows)):
        left -= len(rows[at][1]) + len(rows[at][2]) + 2 * _LENGTH_BYTES
        if left < 0:
            return max(at, begin + 1)
    return len(rows)


def _encode_body(rows: Sequence[_Row]) -> bytes:
    puts = [row for row in rows if row[0] == _PUT]
    deletes = [row for row in rows if row[0] == _DELETE]
    ranges = [row for row in rows if row[0] == _RANGE]
    columns = (
        [key for _, key, _ in puts],
        [value for _, _, value in puts],
        [key for _, key, _ in deletes],
        [start for _, start, _ in ranges],
        [end for _, _, end in ranges],
    )
    lengths = array("I", chain.from_iterable(map(len, column) for column in columns))
    if sys.byteorder == "big":
        lengths.byteswap()
    counts = _COUNTS.pack(len(puts), len(deletes), len(ranges))
    return b"".join((counts, lengths.tobytes(), *chain.from_iterable(columns)))


def _decode_body(body: bytes, delta: Delta) -> None:
    """Add what ``body`` says to ``delta``.

    Raises:
        ValueError: The lengths do not add up.
    """
    if len(body) < _COUNTS.size:
        raise ValueError(f"body of {len(body)} bytes has no header")
    puts, deletes, ranges = _COUNTS.unpack_from(body)
    fields = 2 * puts + deletes + 2 * ranges
    data_at = _COUNTS.size + fields * _LENGTH_BYTES
    if data_at > len(body):
        raise ValueError(f"{fields} fields announced in a body of {len(body)} bytes")
    lengths = array("I")
    lengths.frombytes(body[_COUNTS.size : data_at])
    if sys.byteorder == "big":
        lengths.byteswap()
    ends = list(accumulate(lengths, initial=data_at))
    if ends[-1] != len(body):
        raise ValueError(f"fields end at byte {ends[-1]} of a body of {len(body)} bytes")
    cells = [body[start:end] for start, end in pairwise(ends)]
    starts_at = 2 * puts + deletes
    for start, end in zip(
        cells[starts_at : starts_at + ranges], cells[starts_at + ranges :], strict=True
    ):
        delta.range_deletes.append((start, end))
    delta.deletes.update(cells[2 * puts : starts_at])
    delta.puts.update(zip(cells[:puts], cells[puts : 2 * puts], strict=True))
    if not delta.deletes.isdisjoint(delta.puts):
        raise ValueError("a key is both put and deleted")


def _compress(body: bytes) -> bytes:
    return _lz4.compress(body, compression_level=0, content_checksum=True, store_size=True)


def _decompress(piece: bytes) -> bytes:
    """Return the body of ``piece``, having allocated no more than it announces.

    Raises:
        ValueError: It is no piece of this format.
        RuntimeError: The frame is damaged.
    """
    if not piece or piece[0] != FORMAT_VERSION:
        raise ValueError(f"format version {piece[0] if piece else None}, not {FORMAT_VERSION}")
    frame = piece[1:]
    size: int = _lz4.get_frame_info(frame)["content_size"]
    if not _COUNTS.size <= size <= BODY_BYTES_MAX:
        raise ValueError(f"announces a body of {size} bytes")
    decompressor = _lz4.LZ4FrameDecompressor()
    body: bytes = decompressor.decompress(frame, max_length=size)
    # The checksum follows the last byte, so the end is reached only if a further read finds none.
    if not decompressor.eof:
        rest: bytes = decompressor.decompress(b"", max_length=1)
        if rest or not decompressor.eof:
            raise ValueError("the frame does not end where it should")
    if len(body) != size or decompressor.unused_data:
        raise ValueError(f"body of {len(body)} bytes, {size} announced, or trailing bytes")
    return body


_lz4: Any = lz4.frame  # its parts come without types
