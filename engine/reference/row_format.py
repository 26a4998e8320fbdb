"""Rows of a window table as bytes.

A row is: version (1 byte), length of the tags (2 bytes, big endian), tags of the aggregates'
types (text, separated by commas), the fixed fields of all aggregates in order (little endian,
packed), and, if any aggregate holds Python objects, those as one MessagePack array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np

from .column_types import from_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .accumulators import Accumulator, Array, Part

_VERSION = 1
_HEADER_BYTES = 3
_HEADER = "header"


def encode_rows(
    accumulators: Sequence[Accumulator], tags: Sequence[str], parts: Sequence[Part]
) -> list[bytes]:
    """Return the rows that parts are, one part per aggregate, all of one length."""
    text = ",".join(tags).encode()
    header = bytes([_VERSION]) + len(text).to_bytes(2, "big") + text
    layout, object_fields = _layout(accumulators, tags, len(header))
    count = len(parts[0][0])
    fixed = np.empty(count, dtype=layout)
    fixed[_HEADER] = np.void(header)
    tails: list[list[Any]] = []
    for index, (accumulator, tag, part) in enumerate(zip(accumulators, tags, parts, strict=True)):
        for at, (field, array) in enumerate(zip(accumulator.fields(tag), part, strict=True)):
            if field is object:
                # The first array tells what there is; what stands in for the rest means nothing.
                held = zip(array.tolist(), part[0].tolist(), strict=True)
                tails.append([value if has else None for value, has in held])
            else:
                fixed[f"{index}.{at}"] = array
    # Seen as plain bytes, numpy makes the list of them at once.
    rows: list[bytes] = fixed.view(np.dtype((np.void, layout.itemsize))).tolist()
    if not object_fields:
        return rows
    encode = msgspec.msgpack.Encoder().encode
    return [
        row + encode(values) for row, values in zip(rows, zip(*tails, strict=True), strict=True)
    ]


def decode_rows(
    accumulators: Sequence[Accumulator], rows: Sequence[bytes]
) -> tuple[list[str], list[Part]]:
    """Return the tags and parts of rows that all have the header of the first.

    Raises:
        ValueError: They are not rows of these aggregates.
    """
    header = row_header(rows[0])
    tags = header[_HEADER_BYTES:].decode().split(",") if len(header) > _HEADER_BYTES else []
    if len(tags) != len(accumulators):
        raise ValueError(
            f"a stored row has {len(tags)} aggregates, the window has {len(accumulators)}: "
            "the step changed; give it another name, or start from other state"
        )
    layout, object_fields = _layout(accumulators, tags, len(header))
    end = layout.itemsize
    fixed = np.frombuffer(b"".join([row[:end] for row in rows]), dtype=layout)
    tails: list[tuple[Any, ...]] = []
    if object_fields:
        decode = msgspec.msgpack.Decoder(tuple[Any, ...]).decode
        tails = list(zip(*[decode(row[end:]) for row in rows], strict=True))
    parts: list[Part] = []
    for index, (accumulator, tag) in enumerate(zip(accumulators, tags, strict=True)):
        arrays: list[Array] = []
        for at, field in enumerate(accumulator.fields(tag)):
            if field is object:
                arrays.append(from_stored(tails[object_fields.index((index, at))], tag))
            else:
                arrays.append(fixed[f"{index}.{at}"].astype(field))
        parts.append(tuple(arrays))
    return tags, parts


def row_header(row: bytes) -> bytes:
    """Return the header of a row: equal headers, equal layout.

    Raises:
        ValueError: It is no row of this version.
    """
    if len(row) < _HEADER_BYTES or row[0] != _VERSION:
        raise ValueError("a stored row of a window table has an unknown format")
    return row[: _HEADER_BYTES + int.from_bytes(row[1:_HEADER_BYTES], "big")]


def _layout(
    accumulators: Sequence[Accumulator], tags: Sequence[str], header_bytes: int
) -> tuple[np.dtype[Any], list[tuple[int, int]]]:
    """Return the type of header and fixed fields, and where the fields are that hold objects."""
    fixed: list[tuple[str, Any]] = [(_HEADER, np.dtype((np.void, header_bytes)))]
    object_fields: list[tuple[int, int]] = []
    for index, (accumulator, tag) in enumerate(zip(accumulators, tags, strict=True)):
        for at, field in enumerate(accumulator.fields(tag)):
            if field is object:
                object_fields.append((index, at))
            else:
                fixed.append((f"{index}.{at}", np.dtype(field).newbyteorder("<")))
    return np.dtype(cast("Any", fixed)), object_fields
