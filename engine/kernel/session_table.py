"""Sessions in native code, for numbers of types that are declared."""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import polars as pl

from riverrun._kernel import SessionRows as NativeRows
from riverrun.engine.batch import KEY, key_series
from riverrun.engine.cache_budget import CacheBudget
from riverrun.engine.keys import key_from_state, key_to_state
from riverrun.engine.labels import key_type
from riverrun.engine.plane import OutOfScopeError, SessionResults, SessionRows

from .keys import keys_and_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from riverrun._kernel import Sessions
    from riverrun.engine.cache_budget import CacheShare
    from riverrun.engine.plane import AggregateKind
    from riverrun.state import Delta, StateReader

_FRAME_ROWS_MAX = 100_000
_LOADED_ROWS_MAX = 10_000  # rows read from the store at a time

# Beyond all state keys with a prefix: neither a tag nor a time begins with so many.
_BEYOND = b"\xff" * 9

NativeKind = tuple["AggregateKind", bool]
"""A kind of aggregate, and whether its values are floats."""


def native_kinds(
    aggregates: Mapping[str, AggregateKind], input_types: Mapping[str, pl.DataType]
) -> dict[str, NativeKind] | None:
    """Return aggregates as the kernel keeps them, None if it does not know one.

    Example:
        >>> native_kinds({"total": "sum"}, {"total": pl.Float32()})
        {'total': ('sum', True)}
        >>> native_kinds({"name": "max"}, {"name": pl.String()})
    """
    kinds: dict[str, NativeKind] = {}
    for name, kind in aggregates.items():
        dtype = input_types.get(name)
        if kind in ("count", "count_values"):
            kinds[name] = kind, False
        elif kind == "mean":
            kinds[name] = kind, True
        elif dtype is None:
            return None
        elif dtype.is_float() or (dtype.is_decimal() and kind == "sum"):
            kinds[name] = kind, True
        elif _is_int64(dtype) or (kind == "sum" and (dtype == pl.Boolean or dtype.is_integer())):
            kinds[name] = kind, False
        else:
            return None
    return kinds


def _is_int64(dtype: pl.DataType) -> bool:
    """Return whether all numbers of a type are Int64."""
    return dtype.is_integer() and not isinstance(dtype, (pl.UInt64, pl.Int128, pl.UInt128))


class KernelSessionTable:
    """Keyed sessions; see ``riverrun.engine.plane.SessionTable`` for what it does.

    Args:
        kinds: Aggregate by name, in the order of the result's columns.
        spans_ms: The gap that ends a session, and the allowed lateness.
        prefixes: What the state keys of rows and of timers begin with.
        reader: The committed state.
        cache: Says how much memory rows may take that the store has too.
    """

    def __init__(
        self,
        kinds: Mapping[str, NativeKind],
        spans_ms: tuple[int, int],
        prefixes: tuple[bytes, bytes],
        reader: StateReader,
        cache: CacheShare | None = None,
    ) -> None:
        self._kinds = dict(kinds)
        self._prefixes = prefixes
        self._reader = reader
        self._cache = cache or CacheBudget().new_share()
        self._native = NativeRows(list(kinds.values()), *spans_ms, *prefixes)
        self._is_open = False

    def _open(self) -> NativeRows:
        # At the first use: a table is made before its task has restored the state.
        if not self._is_open:
            stored = (self._reader.scan(prefix, prefix + _BEYOND) for prefix in self._prefixes)
            if any(next(iter(rows), None) is not None for rows in stored):
                self._native.open_stored()
            self._is_open = True
        return self._native

    # --- records -----------------------------------------------------------------------------

    def add(
        self,
        keys: pl.Series | Sequence[Any],
        times: pl.Series,
        inputs: pl.DataFrame,
        watermark_ms: int,
        *,
        tells_changed: bool,
    ) -> tuple[Sequence[int], Iterator[SessionResults]]:
        """Add records; return the indices of late ones, and the sessions that changed.

        Raises:
            OutOfScopeError: An input is of another type than declared, a row in the store is not
                one of this table, or a time or sum might not fit in 64 bits.
        """
        native = self._open()
        if isinstance(keys, pl.Series):
            column, form = keys_and_form(keys)
        else:
            column, form = pl.Series(KEY, list(map(key_to_state, keys)), dtype=pl.Binary), "state"
        columns = [self._input(name, inputs) for name in self._kinds]
        self._take_rows(native.prepare(column, form, times, columns))
        added = native.apply(watermark_ms, tells_changed)
        if added is None:
            raise OutOfScopeError("a time or a sum might not fit in 64 bits")
        late, changed = added
        return late, self._results(changed)

    def _input(self, name: str, inputs: pl.DataFrame) -> pl.Series | None:
        """Return what an aggregate reads, None for nothing."""
        kind, is_float = self._kinds[name]
        if kind == "count":
            return None
        column = inputs.get_column(name)
        if kind == "count_values":
            return column.is_not_null() if column.null_count() else None
        if column.null_count() == len(column):
            return None
        dtype = column.dtype
        if not (dtype.is_float() if is_float else _is_int64(dtype)):
            raise OutOfScopeError(f"{kind} of {name!r} reads {dtype}, which was not declared")
        return column.cast(pl.Float64 if is_float else pl.Int64)

    def _take_rows(self, names: list[bytes]) -> None:
        for at in range(0, len(names), _LOADED_ROWS_MAX):
            some = names[at : at + _LOADED_ROWS_MAX]
            if not self._native.take_rows(some, self._reader.get_many(some)):
                raise OutOfScopeError("a row of sessions is not of the declared types")

    # --- ends --------------------------------------------------------------------------------

    def end(self, watermark_ms: int) -> Iterator[SessionResults]:
        """Remove the sessions that have ended; yield them in order of their ends, then of keys.

        Raises:
            OutOfScopeError: A row in the store is not one of this table.
        """
        native = self._open()
        missing = native.missing_timers(watermark_ms)
        if missing is not None:
            scan = iter(self._reader.scan(*missing))
            while some := [name for name, _ in islice(scan, _LOADED_ROWS_MAX)]:
                if not native.take_timers(some):
                    raise OutOfScopeError("a timer of sessions cannot be read")
            native.timers_taken(watermark_ms)
        self._take_rows(native.prepare_end(watermark_ms))
        return self._results(native.end(watermark_ms))

    def _results(self, found: Sessions | None) -> Iterator[SessionResults]:
        if found is None:
            return
        keys, are_state_keys, starts, ends, columns = found
        frame = pl.DataFrame(
            [pl.Series(each).alias(name) for name, each in zip(self._kinds, columns, strict=True)]
        )
        bounds = pl.Series(starts), pl.Series(ends)
        at = 0
        for part in _by_type(pl.Series(keys), are_state_keys=are_state_keys):
            for begin in range(0, len(part), _FRAME_ROWS_MAX):
                some = part.slice(begin, _FRAME_ROWS_MAX).alias(KEY)
                yield SessionResults(
                    frame.slice(at, len(some)).insert_column(0, some),
                    *(bound.slice(at, len(some)) for bound in bounds),
                )
                at += len(some)

    # --- state -------------------------------------------------------------------------------

    def export(self) -> SessionRows:
        """Return what the last two epochs changed; the store has all else."""
        return SessionRows(*self._native.export())

    def drain_delta(self, delta: Delta) -> None:
        """Add what changed since the last call to ``delta``."""
        puts, deletes = self._native.drain(self._cache.limit_bytes())
        # No block of a delta is of this table, so that none has to give way.
        delta.puts.update(puts)
        delta.deletes.update(deletes)
        self._cache.held_bytes = self._native.size


def _by_type(keys: pl.Series, *, are_state_keys: bool) -> Iterator[pl.Series]:
    """Yield keys, in order, as columns of keys of one type."""
    if not are_state_keys:
        yield keys
        return
    for _, alike in groupby(map(key_from_state, keys.to_list()), key=key_type):
        yield key_series(list(alike))
