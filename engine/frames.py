"""Frames: how records travel through a repartition topic.

A record of the topic is a frame: many records of the stream in columns, or a watermark. So the
cost of the topic is paid per batch, and watermarks of every upstream task travel in-band.

Layout, little endian: magic ``RF``, version, kind, upstream task (u32), CRC-32C of the payload
(u32), then the payload: an Arrow IPC file (columns), msgpack (rows), or watermark (i64) and idle
flag (u8). The checksum is there because Polars trusts what it reads: bytes that are no IPC file can
end the process.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import crc32c
import msgspec
import polars as pl

from .batch import POSITION, TIME, Batch
from .errors import CorruptBatchError
from .models import from_plain, to_plain
from .watermarks import InputWatermark

if TYPE_CHECKING:
    from .schema import Schema

_HEAD = struct.Struct("<2sBBII")
_WATERMARK = struct.Struct("<qB")
_MAGIC, _VERSION = b"RF", 1
_COLUMNS, _ROWS, _MARK = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame: records, or the watermark of an upstream task."""

    upstream: int
    batch: Batch | None = None
    watermark: InputWatermark | None = None


def encode_columns(upstream: int, frame: pl.DataFrame) -> bytes:
    """Return a frame of columns; ``POSITION`` is left out, it means nothing elsewhere."""
    buffer = io.BytesIO()
    if POSITION in frame.columns:
        frame = frame.drop(POSITION)
    frame.write_ipc(buffer, compression="uncompressed")
    return _frame(_COLUMNS, upstream, buffer.getbuffer())


def encode_rows(upstream: int, rows: list[Any], times: list[int], keys: list[Any]) -> bytes:
    """Return a frame of Python objects.

    Raises:
        TypeError: If a value has no msgpack form.
    """
    body = msgspec.msgpack.encode((keys, times, rows), enc_hook=to_plain)
    return _frame(_ROWS, upstream, body)


def encode_watermark(upstream: int, watermark: InputWatermark) -> bytes:
    """Return a frame with the watermark of an upstream task."""
    return _frame(_MARK, upstream, _WATERMARK.pack(watermark.value_ms, watermark.idle))


def _frame(kind: int, upstream: int, body: bytes | memoryview) -> bytes:
    head = _HEAD.pack(_MAGIC, _VERSION, kind, upstream, crc32c.crc32c(body))
    return b"".join((head, body))


def decode(data: bytes, schema: Schema | None) -> Frame:
    """Return what a frame holds.

    Raises:
        CorruptBatchError: If it is not a frame, or of a newer version.
    """
    if len(data) < _HEAD.size or data[:2] != _MAGIC:
        raise CorruptBatchError(
            "a record of a repartition topic is not a frame; only riverrun may write there"
        )
    _, version, kind, upstream, checksum = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise CorruptBatchError(
            f"a frame has version {version}, this riverrun reads {_VERSION}; upgrade this worker"
        )
    body = data[_HEAD.size :]
    if crc32c.crc32c(body) != checksum:
        raise CorruptBatchError("a frame of a repartition topic is damaged: its checksum differs")
    try:
        if kind == _MARK:
            value, idle = _WATERMARK.unpack(body)
            return Frame(upstream, watermark=InputWatermark(value, bool(idle)))
        if kind == _COLUMNS:
            return Frame(upstream, batch=Batch.of_frame(_decode_columns(body), schema=schema))
        if kind == _ROWS:
            return Frame(upstream, batch=_decode_rows(body, schema))
        raise ValueError(f"unknown kind {kind}")
    except CorruptBatchError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        raise CorruptBatchError(f"a frame of a repartition topic is damaged: {error}") from error


def _decode_columns(body: bytes) -> pl.DataFrame:
    frame = pl.read_ipc(body)
    times = frame.get_column(TIME)
    if times.dtype != pl.Int64 or times.has_nulls() or not len(times):
        raise ValueError("it has records without times, or none at all")
    return frame


def _decode_rows(body: bytes, schema: Schema | None) -> Batch:
    value_type: Any = Any if schema is None or schema.record_type is None else schema.record_type
    keys: list[Any]
    times: list[int]
    rows: list[Any]
    decoded: Any = msgspec.msgpack.decode(
        body, type=tuple[list[Any], list[int], list[value_type]], dec_hook=from_plain
    )
    keys, times, rows = decoded
    if not rows or not len(rows) == len(times) == len(keys):
        raise ValueError(f"it has {len(rows)} values, {len(times)} times, {len(keys)} keys")
    keys = [_tuples(cast("list[Any]", key)) if isinstance(key, list) else key for key in keys]
    return Batch.of_rows(rows, times, keys=keys, schema=schema)


def _tuples(key: list[Any]) -> tuple[Any, ...]:
    return tuple(
        _tuples(cast("list[Any]", each)) if isinstance(each, list) else each for each in key
    )


def concat(batches: list[Batch], schema: Schema | None) -> list[Batch]:
    """Return the same records in as few batches as their forms allow, in order."""
    if len(batches) <= 1:
        return batches
    if all(batch.is_columnar for batch in batches):
        frames = [batch.frame() for batch in batches]
        if all(frame.schema == frames[0].schema for frame in frames):
            return [Batch.of_frame(pl.concat(frames, rechunk=True), schema=schema)]
        return batches
    if any(batch.is_columnar for batch in batches):
        return batches
    return [
        Batch.of_rows(
            [row for batch in batches for row in batch.rows()],
            [time for batch in batches for time in batch.times()],
            keys=[key for batch in batches for key in batch.keys()],
            schema=schema,
        )
    ]
