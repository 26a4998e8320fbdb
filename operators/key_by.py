"""Key by: put records under another key.

State      none
Watermark  forwarded unchanged
Order      kept
Emits      one record per record, except those without a usable key, which are failures
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from riverrun.engine.operator import OperatorLogic

from .callables import call_each
from .expressions import Expressions, is_one_of, isolate

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Collector, Failures, OperatorContext


@dataclass(frozen=True, slots=True)
class KeyBy:
    """Put records under the key that fields, an expression or a function give.

    Args:
        key: Names of fields (more than one: a composite key), a Polars expression, or a function
            of the value.
    """

    key: tuple[str, ...] | pl.Expr | Callable[[Any], Any]

    def build(self, context: OperatorContext) -> OperatorLogic:
        """Return the logic for one task."""
        key = self.key
        if callable(key):
            return _KeyByFunctionLogic(key, context.failures)
        return _KeyByColumnsLogic(key, context.failures)


class _KeyByColumnsLogic(OperatorLogic):
    def __init__(self, key: tuple[str, ...] | pl.Expr, failures: Failures) -> None:
        self._failures = failures
        self._fields: tuple[str, ...] | None = None
        self._what = "the key expression"
        if isinstance(key, pl.Expr):
            parts = [key]
        else:
            parts = [pl.col(name) for name in key]
            self._fields = key
            self._what = ", ".join(repr(name) for name in key)
        self._expressions = Expressions([part.alias(f"f{i}") for i, part in enumerate(parts)])

    def on_batch(self, batch: Batch, out: Collector) -> None:
        if self._fields is not None and batch.schema is None and not batch.is_columnar:
            # What columns there are would have to be found out from all fields of all rows.
            _emit_with_keys(self._key_of_row, batch, self._failures, out)
            return
        for part, keys in isolate(batch, self._keys, self._failures):
            keyed = self._with_keys(part, keys)
            if keyed is not None:
                out.emit(keyed)

    def _key_of_row(self, row: Any) -> Any:
        assert self._fields is not None
        parts: list[Any]
        if isinstance(row, dict):
            fields = cast("dict[str, Any]", row)
            parts = [fields.get(name) for name in self._fields]
        else:
            parts = [getattr(row, name) for name in self._fields]
        if None in parts:
            raise ValueError(f"the record has no key: {self._what} is null")
        key: Any = parts[0] if len(parts) == 1 else tuple(parts)
        if not is_key(key):
            raise TypeError(
                f"a key of {self._what} = {key!r} cannot be used; keys are text, integers, "
                "booleans or bytes"
            )
        return key

    def _keys(self, batch: Batch) -> pl.DataFrame:
        columns = self._expressions.evaluate(batch).get_columns()
        if len(columns) > 1 and pl.Binary in [column.dtype for column in columns]:
            raise TypeError("bytes cannot be a part of a composite key")
        return pl.DataFrame([_key_column(column) for column in columns])

    def _with_keys(self, batch: Batch, keys: pl.DataFrame) -> Batch | None:
        if any(column.null_count() for column in keys.get_columns()):
            missing = keys.select(pl.any_horizontal(pl.all().is_null())).to_series()
            for index in missing.arg_true().to_list():
                error = ValueError(f"the record has no key: {self._what} is null")
                self._failures.record_failed(batch, index, error)
            kept = (~missing).arg_true().to_list()
            if not kept:
                return None
            batch, keys = batch.take(kept), keys[kept]
        return batch.with_keys(keys.to_series() if keys.width == 1 else keys.to_struct())


def _key_column(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    if is_one_of(dtype, pl.String, pl.Int64, pl.Boolean, pl.Binary, pl.Null):
        return column
    if dtype.is_integer():
        return column.cast(pl.Int64)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    raise TypeError(
        f"a key of type {dtype} cannot be used; keys are text, integers, booleans or bytes"
    )


def _emit_with_keys(
    function: Callable[[Any], Any], batch: Batch, failures: Failures, out: Collector
) -> None:
    keys, kept = call_each(function, batch.rows(), batch, failures)
    if kept is not None:
        batch = batch.take(kept)
    if keys:
        out.emit(batch.with_keys(keys))


class _KeyByFunctionLogic(OperatorLogic):
    def __init__(self, function: Callable[[Any], Any], failures: Failures) -> None:
        self._function = function
        self._failures = failures

    def on_batch(self, batch: Batch, out: Collector) -> None:
        _emit_with_keys(self._key, batch, self._failures, out)

    def _key(self, value: Any) -> Any:
        key = self._function(value)
        if (type(key) is str and key.isascii()) or is_key(key):
            return key
        if key is None:
            raise ValueError("the record has no key: the key function returned None")
        raise TypeError(
            f"the key function returned {key!r}; keys are str, int, bool, bytes or tuples of them, "
            "text in Unicode and integers in 64 bits"
        )


def is_key(value: Any) -> bool:
    """Return whether a value has stable bytes as a key."""
    if isinstance(value, tuple):
        # Bytes have no place in the JSON array that a composite key is written as.
        parts = cast("tuple[Any, ...]", value)
        return bool(parts) and all(not isinstance(p, (tuple, bytes)) and is_key(p) for p in parts)
    if isinstance(value, str):
        return value.isascii() or _is_unicode(value)
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return isinstance(value, bytes)


def _is_unicode(text: str) -> bool:
    """Return whether text is without lone surrogates, which have no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
