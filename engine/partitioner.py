"""Which partition a key belongs to: Kafka's own rule, so that other producers agree with us."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from .byte_columns import as_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .byte_columns import ByteColumn

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK_32 = 0xFFFFFFFF

_CACHED_KEYS_MAX = 100_000
_COLUMN_KEY_BYTES_MAX = 256
"""Longer keys are hashed one by one and not cached: a column costs its longest key in steps."""
_COLUMN_KEYS_MIN = 32
"""Below, setting up a column costs more than hashing the keys one by one."""


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit hash of ``data``.

    Example:
        >>> hex(murmur2(b"21"))
        '0xc5f2f8ec'
    """
    words = len(data) >> 2
    mixed = _SEED ^ len(data)
    for word in struct.unpack_from(f"<{words}I", data):
        product = (word * _MULTIPLIER) & _MASK_32
        product = ((product ^ (product >> 24)) * _MULTIPLIER) & _MASK_32
        mixed = ((mixed * _MULTIPLIER) & _MASK_32) ^ product
    if rest := data[words * 4 :]:
        mixed = ((mixed ^ int.from_bytes(rest, "little")) * _MULTIPLIER) & _MASK_32
    mixed = ((mixed ^ (mixed >> 13)) * _MULTIPLIER) & _MASK_32
    return mixed ^ (mixed >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of ``key`` among ``partitions``, as Kafka's default partitioner does.

    Example:
        >>> partition_of(b"ada", 1)
        0
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class KeylessTurns:
    """Which partition records without a key go to: all of a call to one, of the next to the next.

    So batches are few and large, and all partitions have their turn.

    Args:
        partitions: Number of partitions of the topic.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, partitions: int) -> None:
        if partitions < 1:
            raise ValueError(f"a topic has at least one partition, got {partitions}")
        self._partitions = partitions
        self.partition = 0

    def next_turn(self) -> None:
        """Let the next call go to the next partition."""
        self.partition = (self.partition + 1) % self._partitions


class Partitioner:
    """Partitions of whole columns of keys, with a bounded cache of those seen before.

    Records without a key go where ``KeylessTurns`` says.

    Args:
        partitions: Number of partitions of the topic.

    Example:
        >>> partitioner = Partitioner(4)
        >>> partitioner.partitions([None, None]), partitioner.partitions([None])
        ([0, 0], [1])
    """

    def __init__(self, partitions: int) -> None:
        self._without_key = KeylessTurns(partitions)
        self._partitions = partitions
        self._cache: dict[bytes, int] = {}

    def partitions(self, keys: ByteColumn) -> list[int]:
        """Return the partition of each key."""
        keys = as_list(keys) if isinstance(keys, pl.Series) else keys
        find = self._cache.get
        found = [None if key is None else find(key) for key in keys]
        if None not in found:
            return found  # pyright: ignore[reportReturnType]
        fresh = {key for key, partition in zip(keys, found, strict=True) if partition is None}
        known: dict[bytes | None, int] = {
            **self._hash({key for key in fresh if key is not None}),
        }
        if None in fresh:
            known[None] = self._without_key.partition
            self._without_key.next_turn()
        return [
            known[key] if partition is None else partition
            for key, partition in zip(keys, found, strict=True)
        ]

    def _hash(self, keys: set[bytes]) -> dict[bytes, int]:
        short = [key for key in keys if len(key) <= _COLUMN_KEY_BYTES_MAX]
        if len(short) >= _COLUMN_KEYS_MIN:
            hashes = (_murmur2_column(short) & np.uint32(0x7FFFFFFF)) % np.uint32(self._partitions)
            result = dict(zip(short, hashes.tolist(), strict=True))
        else:
            result = {key: partition_of(key, self._partitions) for key in short}
        if len(self._cache) + len(result) > _CACHED_KEYS_MAX:
            self._cache.clear()
        if len(result) <= _CACHED_KEYS_MAX:
            self._cache.update(result)
        if len(short) < len(keys):
            for key in keys:
                if len(key) > _COLUMN_KEY_BYTES_MAX:
                    result[key] = partition_of(key, self._partitions)
        return result


def _murmur2_column(keys: Sequence[bytes]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """Return the hash of each key: the steps of ``murmur2``, each over all keys at once."""
    multiplier = np.uint32(_MULTIPLIER)
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    starts = np.cumsum(lengths) - lengths
    # Three bytes more, so that the rest of the last key can be read like any other.
    data = np.frombuffer(b"".join(keys) + bytes(3), np.uint8).astype(np.uint32)
    mixed = lengths.astype(np.uint32) ^ np.uint32(_SEED)
    for at in range(0, int(lengths.max(initial=0)) & ~3, 4):
        rows = np.flatnonzero(lengths >= at + 4)
        first = starts[rows] + at
        product = data[first] | data[first + 1] << 8 | data[first + 2] << 16 | data[first + 3] << 24
        product *= multiplier
        product ^= product >> 24
        product *= multiplier
        mixed[rows] = (mixed[rows] * multiplier) ^ product
    rest = lengths & 3
    rows = np.flatnonzero(rest)
    rest = rest[rows]
    first = starts[rows] + (lengths[rows] - rest)
    tail = data[first]
    tail |= np.where(rest > 1, data[first + 1], 0) << 8
    tail |= np.where(rest > 2, data[first + 2], 0) << 16
    mixed[rows] = (mixed[rows] ^ tail) * multiplier
    mixed ^= mixed >> 13
    mixed *= multiplier
    mixed ^= mixed >> 15
    return mixed
