"""JSON documents to rows of a declared type, by msgspec."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from riverrun.engine.codec import DecodedValues
from riverrun.engine.models import to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from riverrun.engine.schema import Schema

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS = b"0" * 19  # the shortest number beyond 64 bits


class ReferenceJsonProjector:
    """Documents to objects of a schema's record type, or to dicts where it has none.

    What is no JSON, lacks a field, has a wrong type, or an integer beyond 64 bits in a field that
    has a column or anywhere in a dict, is a failure of that document alone. So are NaN, infinite
    numbers and documents nested beyond the interpreter's depth.

    Args:
        schema: Says which type; its column types say what a row must fit.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._decode = _decoder(schema.record_type)
        self._is_typed = schema.record_type is not None
        columns = schema.columns if self._is_typed else {}
        self._int_fields = [name for name, dtype in columns.items() if dtype == pl.Int64]
        self._nested_int_fields = [
            name for name, dtype in columns.items() if dtype.is_nested() and _holds_int(dtype)
        ]

    def project(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Decode documents to rows; bad ones are isolated with position and reason."""
        try:
            rows = list(map(self._decode, typing.cast("Sequence[bytes]", values)))
        except Exception:
            # Most batches have no bad document; which one it was costs a second pass.
            return self._project_one_by_one(values)
        columns = self._int_columns(rows)
        if columns is None or self._may_hold_large_nested_ints(values):
            return self._project_one_by_one(values)
        return DecodedValues(rows=rows, columns=columns)

    def _project_one_by_one(self, values: Sequence[bytes | None]) -> DecodedValues:
        rows: list[Any] = []
        kept: list[int] = []
        failures: list[tuple[int, Exception]] = []
        for index, value in enumerate(values):
            try:
                if value is None:
                    raise ValueError("a tombstone: the record has no value")
                row = self._decode(value)
                self._check_ints(row, value)
            except Exception as error:
                # Its traceback would keep all values of the batch alive.
                failures.append((index, error.with_traceback(None)))
            else:
                rows.append(row)
                kept.append(index)
        return DecodedValues(rows=rows, kept=kept if failures else None, failures=failures)

    # msgspec reads integers of any size, and a column has 64 bits.

    def _int_columns(self, rows: list[Any]) -> dict[str, pl.Series] | None:
        """Return the columns of integers, None if one does not fit in 64 bits."""
        columns: dict[str, pl.Series] = {}
        for name in self._int_fields:
            try:
                # The quickest check of many ints there is, None among them included.
                columns[name] = self._schema.to_column(rows, name)
            except TypeError:
                return None
        return columns

    def _may_hold_large_nested_ints(self, values: Sequence[bytes | None]) -> bool:
        if self._is_typed and not self._nested_int_fields:
            return False
        return _may_be_large(b",".join(typing.cast("Sequence[bytes]", values)))

    def _check_ints(self, row: Any, document: bytes) -> None:
        if not _may_be_large(document):
            return
        if not self._is_typed and _holds_large_int(row):
            raise ValueError(
                "an integer beyond 64 bits; declare a record class, or send it as text"
            )
        for name in self._int_fields + self._nested_int_fields:
            (value,) = self._schema.column_values([row], name)
            if _holds_large_int(msgspec.to_builtins(value, enc_hook=to_plain)):
                raise ValueError(f"an integer beyond 64 bits - at `$.{name}`")


def _may_be_large(documents: bytes) -> bool:
    return _MANY_DIGITS in documents.translate(_DIGITS_TO_ZERO)


def _decoder(record_type: type | None) -> Callable[[bytes], Any]:
    if record_type is None:
        return msgspec.json.Decoder(dict[str, Any]).decode
    validate = getattr(record_type, "model_validate_json", None)
    if validate is None:
        return msgspec.json.Decoder(record_type, strict=True).decode
    check = msgspec.json.Decoder().decode

    def decode(value: bytes) -> Any:
        # pydantic takes NaN, infinite numbers and more that is not JSON; msgspec does not.
        check(value)
        return validate(value)

    return decode


def _holds_int(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _holds_int(typing.cast("pl.DataType", dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_holds_int(typing.cast("pl.DataType", field.dtype)) for field in dtype.fields)
    return dtype == pl.Int64


def _holds_large_int(value: Any) -> bool:
    if isinstance(value, int):
        return not _INT64_MIN <= value <= _INT64_MAX
    if isinstance(value, list):
        return any(map(_holds_large_int, typing.cast("list[Any]", value)))
    if isinstance(value, dict):
        return any(map(_holds_large_int, typing.cast("dict[str, Any]", value).values()))
    return False
