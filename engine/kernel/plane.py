"""The kernel plane, put together; importing it raises ImportError where no kernel was built."""

from __future__ import annotations

from typing import TYPE_CHECKING

# The seats load it too; here it is for the error of a package without it.
from riverrun import _kernel as _kernel
from riverrun.engine.cache_budget import DEFAULT_BYTES, CacheBudget
from riverrun.engine.reference.json_projector import ReferenceJsonProjector

from .json_projector import KernelJsonProjector, projects
from .json_writer import KernelJsonWriter
from .partitioner import KernelPartitioner
from .record_batches import KernelRecordBatchCodec
from .session_table import KernelSessionTable, native_kinds
from .window_table import KernelWindowTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from riverrun.engine.plane import (
        AggregateKind,
        JsonProjector,
        JsonWriter,
        Partitioning,
        RecordBatchCodec,
        SessionTable,
        WindowTable,
    )
    from riverrun.engine.schema import Schema
    from riverrun.state import StateReader


class KernelPlane:
    """Native code for what it is certain of, the reference plane for the rest.

    Args:
        cached_bytes: What its window tables may take together for rows that the store has too.

    Example:
        >>> KernelPlane().name
        'kernel'
    """

    def __init__(self, cached_bytes: int = DEFAULT_BYTES) -> None:
        self._cache = CacheBudget(cached_bytes)
        self._record_batches = KernelRecordBatchCodec()

    @property
    def name(self) -> str:
        """``kernel``."""
        return "kernel"

    @property
    def record_batches(self) -> RecordBatchCodec:
        """Decode and encode of record batches."""
        return self._record_batches

    def json_projector(self, schema: Schema) -> JsonProjector:
        """Return a projector for one schema; a class with rules of its own gets the reference's."""
        if projects(schema):
            return KernelJsonProjector(schema)
        return ReferenceJsonProjector(schema)

    def json_writer(self) -> JsonWriter:
        """Return what writes columns as documents."""
        return KernelJsonWriter()

    def partitioner(self, partitions: int) -> Partitioning:
        """Return what tells the partitions of keys in a topic of so many."""
        return KernelPartitioner(partitions)

    def window_table(
        self, aggregates: Mapping[str, AggregateKind], prefix: bytes, reader: StateReader
    ) -> WindowTable:
        """Return a table for the named aggregates, keeping its rows below ``prefix``."""
        return KernelWindowTable(aggregates, prefix, reader, self._cache.new_share())

    def session_table(
        self,
        aggregates: Mapping[str, AggregateKind],
        input_types: Mapping[str, pl.DataType],
        spans_ms: tuple[int, int],
        prefixes: tuple[bytes, bytes],
        reader: StateReader,
    ) -> SessionTable | None:
        """Return a table for sessions whose aggregates are of numbers, of a type that is known."""
        kinds = native_kinds(aggregates, input_types)
        if kinds is None:
            return None
        return KernelSessionTable(kinds, spans_ms, prefixes, reader, self._cache.new_share())
