"""Which partition a key belongs to, by the native kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from riverrun._kernel import Column, key_partitions
from riverrun.engine.byte_columns import as_list
from riverrun.engine.partitioner import KeylessTurns

if TYPE_CHECKING:
    from riverrun.engine.byte_columns import ByteColumn, Integers


class KernelPartitioner:
    """Equals ``Partitioner``, without its cache: hashing a key costs less than finding it.

    Records without a key go where ``KeylessTurns`` says.

    Args:
        partitions: Number of partitions of the topic.

    Example:
        >>> partitioner = KernelPartitioner(4)
        >>> partitioner.partitions([None, None]), partitioner.partitions([None])
        ([0, 0], [1])
    """

    def __init__(self, partitions: int) -> None:
        self._without_key = KeylessTurns(partitions)
        self._partitions = partitions

    def partitions(self, keys: ByteColumn) -> Integers:
        """Return the partition of each key: a Series for a Series, a list for other sequences."""
        is_series = isinstance(keys, pl.Series)
        taken = Column.of(keys) if is_series else keys
        hashed = key_partitions(taken, self._partitions, self._without_key.partition)
        if hashed is None:
            # A sequence that is neither list nor tuple, or a Series of another type.
            hashed = key_partitions(as_list(keys), self._partitions, self._without_key.partition)
        if hashed is None:
            raise TypeError("keys are bytes or None")
        found, has_null = hashed
        if has_null:
            self._without_key.next_turn()
        return pl.Series(found) if is_series else found.to_list()
