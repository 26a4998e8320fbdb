"""The reference plane, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from riverrun.engine.cache_budget import DEFAULT_BYTES, CacheBudget
from riverrun.engine.partitioner import Partitioner

from .json_projector import ReferenceJsonProjector
from .json_writer import ReferenceJsonWriter
from .record_batches import ReferenceRecordBatchCodec
from .window_table import ReferenceWindowTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from riverrun.engine.plane import AggregateKind
    from riverrun.engine.schema import Schema
    from riverrun.state import StateReader


class ReferencePlane:
    """Python over well-kept libraries: always there, and the specification of the kernel.

    Args:
        cached_bytes: What its window tables may take together for rows that the store has too.

    Example:
        >>> ReferencePlane().name
        'reference'
    """

    def __init__(self, cached_bytes: int = DEFAULT_BYTES) -> None:
        self._cache = CacheBudget(cached_bytes)
        self._record_batches = ReferenceRecordBatchCodec()

    @property
    def name(self) -> str:
        """``reference``."""
        return "reference"

    @property
    def record_batches(self) -> ReferenceRecordBatchCodec:
        """Decode and encode of record batches."""
        return self._record_batches

    def json_projector(self, schema: Schema) -> ReferenceJsonProjector:
        """Return a projector for one schema."""
        return ReferenceJsonProjector(schema)

    def json_writer(self) -> ReferenceJsonWriter:
        """Return what writes columns as documents."""
        return ReferenceJsonWriter()

    def partitioner(self, partitions: int) -> Partitioner:
        """Return what tells the partitions of keys in a topic of so many."""
        return Partitioner(partitions)

    def window_table(
        self, aggregates: Mapping[str, AggregateKind], prefix: bytes, reader: StateReader
    ) -> ReferenceWindowTable:
        """Return a table for the named aggregates, keeping its rows below ``prefix``."""
        return ReferenceWindowTable(aggregates, prefix, reader, self._cache.new_share())

    def session_table(
        self,
        aggregates: Mapping[str, AggregateKind],
        input_types: Mapping[str, pl.DataType],
        spans_ms: tuple[int, int],
        prefixes: tuple[bytes, bytes],
        reader: StateReader,
    ) -> None:
        """Return None: the operator keeps sessions in Python, and that is the specification."""
