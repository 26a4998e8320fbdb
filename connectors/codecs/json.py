"""Json: the values of a topic as JSON documents."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from riverrun.engine.codec import EncodeError
from riverrun.engine.reference.json_projector import ReferenceJsonProjector
from riverrun.engine.reference.json_writer import ReferenceJsonWriter, not_finite
from riverrun.engine.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from riverrun.engine.batch import Batch
    from riverrun.engine.byte_columns import ByteColumn
    from riverrun.engine.codec import DecodedValues
    from riverrun.engine.plane import JsonProjector, JsonWriter, Plane

T = TypeVar("T")

_UNTYPED = Schema(None, {})


@dataclass(frozen=True, slots=True)
class Json(Generic[T]):
    """Values as JSON documents, one object each. Equal to another of the same type.

    Decoding is strict: a missing field, a wrong type, an integer beyond 64 bits or NaN make that
    record a failure, for the error policy of the source. Unknown fields are ignored. Encoding
    writes times as ISO 8601 and bytes as base64; a value of None is written as a tombstone.

    Args:
        record_type: Record, dataclass, msgspec.Struct, TypedDict or pydantic model that values
            are; None for dicts of whatever the documents hold, and columns inferred from them.

    Raises:
        TopologyError: If ``record_type`` is none of these.

    Example:
        >>> from riverrun.engine.schema import Record
        >>> class Order(Record):
        ...     user: str
        ...     amount: float
        >>> Json(Order).decode([b'{"user": "ada", "amount": 2.5}']).rows
        [Order(user='ada', amount=2.5)]
    """

    record_type: type[T] | None = None
    projector: JsonProjector | None = field(default=None, repr=False, compare=False)
    writer: JsonWriter = field(default=ReferenceJsonWriter(), repr=False, compare=False)
    schema: Schema | None = field(init=False, repr=False, compare=False)
    _projector: JsonProjector = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive the schema, where a type that is none should be found."""
        schema = None if self.record_type is None else Schema.of(self.record_type)
        object.__setattr__(self, "schema", schema)
        projector = self.projector or ReferenceJsonProjector(schema or _UNTYPED)
        object.__setattr__(self, "_projector", projector)

    def with_plane(self, plane: Plane) -> Json[T]:
        """Return the same codec on the seats of ``plane``; called when a task starts."""
        writer = plane.json_writer()
        if self.schema is None:
            return replace(self, writer=writer)
        return replace(self, projector=plane.json_projector(self.schema), writer=writer)

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Decode documents; bad ones, tombstones too, are told one by one, never raised."""
        return self._projector.project(values)

    def encode(self, batch: Batch) -> ByteColumn:
        """Encode the values of a batch, in order.

        Raises:
            EncodeError: Naming the index of the first value that has no JSON form.
        """
        is_whole = batch.schema is None or batch.schema.columns_are_whole
        if is_whole and batch.is_columnar and not batch.has_rows:
            return _encode_columns(batch.values_frame(), self.writer)
        return _encode_rows(batch.rows(), may_hold_floats=_may_hold_floats(batch.schema))


def _encode_columns(frame: pl.DataFrame, writer: JsonWriter) -> ByteColumn:
    written = writer.write(frame)
    if written is not None:
        return written
    names = frame.columns
    columns = [series.to_list() for series in frame.get_columns()]
    if not columns:
        return [b"{}"] * frame.height
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return _encode_rows(rows, may_hold_floats=_may_hold_floats(Schema(None, frame.schema)))


def _encode_rows(rows: Sequence[Any], *, may_hold_floats: bool) -> list[bytes | None]:
    encode = msgspec.json.Encoder(enc_hook=_encode_unknown).encode
    try:
        documents = cast("list[bytes | None]", list(map(encode, rows)))
    except Exception:
        raise _first_unencodable(rows, encode) from None
    # msgspec writes NaN as null, so where it wrote no null nothing needs a closer look.
    if b"null" not in b",".join(cast("list[bytes]", documents)):
        return documents
    for index, row in enumerate(rows):
        if row is None:
            documents[index] = None
        elif may_hold_floats and b"null" in cast("bytes", documents[index]):
            number = _find_not_finite(msgspec.to_builtins(row, enc_hook=_encode_unknown))
            if number is not None:
                raise EncodeError(index, not_finite(number))
    return documents


def _first_unencodable(rows: Sequence[Any], encode: Any) -> EncodeError:
    for index, row in enumerate(rows):
        try:
            encode(row)
        except Exception as error:
            return EncodeError(index, f"{type(row).__name__} has no JSON form: {error}")
    raise AssertionError("a batch could not be encoded, and each of its values could")


def _encode_unknown(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        # By alias, since that is what pydantic reads.
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"nothing is known about {type(value).__name__}")


def _may_hold_floats(schema: Schema | None) -> bool:
    if schema is None or not schema.fields:
        return True
    return any(
        dtype is None or dtype.is_float() or dtype.is_nested() for dtype in schema.fields.values()
    )


def _find_not_finite(value: Any) -> float | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    if isinstance(value, dict):
        inner = cast("dict[Any, Any]", value).values()
    elif isinstance(value, (list, tuple)):
        inner = cast("list[Any]", value)
    else:
        return None
    return next((found for found in map(_find_not_finite, inner) if found is not None), None)
