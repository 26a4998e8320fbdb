"""Columns of keys to and from the bytes that state is kept under."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from riverrun.engine.batch import key_series, keys_to_list
from riverrun.engine.keys import key_from_state, key_to_state
from riverrun.engine.labels import key_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SLICE_BYTES = 8

_SLICE = struct.Struct(">Q")
_SIGN = 1 << 63


def slice_to_state(start: int) -> bytes:
    """Return a slice start as 8 bytes that sort like the number.

    Example:
        >>> slice_to_state(-1) < slice_to_state(0) < slice_to_state(256)
        True
    """
    return _SLICE.pack(start + _SIGN)


def slice_starts_of(state_keys: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the slice starts that state keys begin with."""
    stored = np.frombuffer(b"".join([key[:SLICE_BYTES] for key in state_keys]), dtype=">u8")
    return (stored.astype(np.uint64) ^ np.uint64(_SIGN)).view(np.int64)


def slice_start_of(state_key: bytes) -> int:
    """Return the slice start that a state key begins with."""
    return _SLICE.unpack_from(state_key)[0] - _SIGN


def state_keys_of(keys: pl.Series) -> list[bytes]:
    """Return each key as ``key_to_state`` does, text and numbers in bulk.

    Raises:
        TypeError: A key is null, or of a type that has no stable bytes.
    """
    if keys.null_count() == 0:
        if keys.dtype == pl.String:
            return [b"s" + key for key in keys.cast(pl.Binary).to_list()]
        if keys.dtype == pl.Int64:
            return [b"j%d" % key for key in keys.to_list()]
    return [key_to_state(key) for key in keys_to_list(keys)]


def split_by_type(name: str, state_keys: list[bytes]) -> list[tuple[list[bytes], pl.Series]]:
    """Return state keys and the keys themselves, those of one type together.

    The order of the types does not depend on what other keys there are.
    """
    try:
        return [(state_keys, state_keys_to_series(name, state_keys))]
    except TypeError:
        groups: dict[Any, list[bytes]] = {}
        for key in state_keys:
            groups.setdefault(key_type(key_from_state(key)), []).append(key)
        if len(groups) == 1:
            raise
        ordered = sorted(groups.items(), key=lambda group: (group[1][0][:1], repr(group[0])))
        return [(alike, state_keys_to_series(name, alike)) for _, alike in ordered]


def state_keys_to_series(name: str, state_keys: list[bytes]) -> pl.Series:
    """Return the keys that ``state_keys_of`` was given.

    Raises:
        TypeError: If they are of several types.
    """
    tags = {key[:1] for key in state_keys}
    if tags == {b"s"}:
        stored = pl.Series(name, state_keys, dtype=pl.Binary)
        return stored.cast(pl.String).str.slice(1)
    if tags == {b"j"}:
        text = pl.Series(name, state_keys, dtype=pl.Binary).cast(pl.String).str.slice(1)
        numbers = text.cast(pl.Int64, strict=False)
        if not numbers.null_count():  # true and false are written as the same kind
            return numbers
    return key_series([key_from_state(key) for key in state_keys]).alias(name)
