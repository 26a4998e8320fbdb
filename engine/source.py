"""The head of a chain: raw records of a topic to batches with keys and event times."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl

from .batch import KEY, POSITION, TIME, Batch, RawRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .codec import DecodedValues
    from .failures import StepFailures
    from .graph import KeyFormat, SourceNode

EVENT_TIME_MAX_MS = 253_402_300_799_999
"""The last millisecond of the year 9999; what is later is a mistake, such as microseconds."""

_KEY_READERS: dict[KeyFormat, Callable[[bytes], Any]] = {
    "text": bytes.decode,
    "int": int,
    "bytes": bytes,
    "json": orjson.loads,
}


class BadTimestampError(ValueError):
    """An event time is missing, negative, or too far in the future."""


class BadKeyError(ValueError):
    """A key is not in the source's key format."""


class SourceHead:
    """Decodes the records of one source in one task. Runs on the batch thread.

    Args:
        node: The source.
        failures: What to do with records that cannot be read.
    """

    def __init__(self, node: SourceNode, failures: StepFailures) -> None:
        self._node = node
        self._failures = failures
        self._read_key = _KEY_READERS[node.key_format]

    def to_batch(self, records: RawRecords, now_ms: int) -> Batch | None:
        """Return the records that can be read, None if none of them can.

        Raises:
            RecordError: If one cannot be and the source's policy is ``fail``.
        """
        if not len(records):
            return None
        decoded = self._node.codec.decode(records.values)
        for index, error in decoded.failures:
            self._failures.raw_failed(records, index, error)
        positions = list(range(len(records))) if decoded.kept is None else decoded.kept
        if not positions:
            return None
        batch = self._assemble(records, decoded, positions)
        return self._checked(records, batch, now_ms)

    def _assemble(self, records: RawRecords, decoded: DecodedValues, positions: list[int]) -> Batch:
        keys = self._keys(records, positions)
        times = self._times(records, decoded, positions)
        schema = self._node.schema
        if decoded.frame is not None:
            extra = [
                pl.Series(TIME, times, dtype=pl.Int64),
                pl.Series(POSITION, positions, dtype=pl.UInt32),
            ]
            if keys is not None:
                extra.append(pl.Series(KEY, keys))
            return Batch(schema, frame=decoded.frame.with_columns(extra), origin=records)
        assert decoded.rows is not None
        return Batch.of_rows(
            decoded.rows, times, keys=keys, positions=positions, schema=schema, origin=records
        )

    def _keys(self, records: RawRecords, positions: list[int]) -> list[Any] | None:
        raw: Sequence[bytes | None] = records.keys
        if len(positions) != len(records):
            raw = [raw[i] for i in positions]
        read = self._read_key
        try:
            keys = [None if key is None else read(key) for key in raw]
        except (ValueError, UnicodeDecodeError):
            keys = [self._one_key(key) for key in raw]
        return keys

    def _one_key(self, key: bytes | None) -> Any:
        try:
            return None if key is None else self._read_key(key)
        except (ValueError, UnicodeDecodeError) as error:
            return _Bad(BadKeyError(f"key {key!r:.80} is not {self._node.key_format}: {error}"))

    def _times(
        self, records: RawRecords, decoded: DecodedValues, positions: list[int]
    ) -> list[Any]:
        where = self._node.event_time
        if where is None:
            stamps = records.timestamps_ms
            return (
                list(stamps) if len(positions) == len(records) else [stamps[i] for i in positions]
            )
        if isinstance(where, str):
            if decoded.frame is not None:
                return _column_ms(decoded.frame.get_column(where))
            rows = decoded.rows or []
            if self._is_mapping():
                return [row.get(where) for row in rows]
            return [getattr(row, where) for row in rows]
        rows = decoded.rows
        if rows is None:
            assert decoded.frame is not None
            schema = self._node.schema
            rows = schema.to_rows(decoded.frame) if schema else decoded.frame.to_dicts()
        times: list[Any] = []
        for row in rows:
            try:
                times.append(where(row))
            except Exception as error:
                times.append(_Bad(error))
        return times

    def _is_mapping(self) -> bool:
        schema = self._node.schema
        return schema is None or schema.record_type is None or issubclass(schema.record_type, dict)

    def _checked(self, records: RawRecords, batch: Batch, now_ms: int) -> Batch | None:
        times = batch.times()
        bound = EVENT_TIME_MAX_MS
        if self._node.watermark.max_future_ms is not None:
            bound = min(bound, now_ms + self._node.watermark.max_future_ms)
        keys = batch.keys()
        good_keys = not any(type(key) is _Bad for key in keys)
        if good_keys and _all_within(times, bound):
            return batch
        positions = batch.positions()
        assert positions is not None
        kept: list[int] = []
        for index, time in enumerate(times):
            try:
                times[index] = _event_time(time, bound, now_ms)
                if type(keys[index]) is _Bad:
                    raise keys[index].error
            except Exception as error:
                times[index] = 0
                self._failures.raw_failed(records, positions[index], error)
            else:
                kept.append(index)
        if not kept:
            return None
        fixed = Batch.of_rows(
            batch.rows(),
            times,
            keys=keys,
            positions=positions,
            schema=batch.schema,
            origin=records,
        )
        return fixed if len(kept) == len(times) else fixed.take(kept)


class _Bad:
    """Stands for a key or time that could not be read until its record is accounted for."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _all_within(times: list[Any], bound: int) -> bool:
    try:
        array = np.asarray(times)
    except (ValueError, OverflowError):
        return False
    return array.dtype == np.int64 and bool(array.min() >= 0) and bool(array.max() <= bound)


def _event_time(value: Any, bound: int, now_ms: int) -> int:
    if isinstance(value, _Bad):
        raise value.error
    if isinstance(value, dt.datetime):
        zoned = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        value = int(zoned.timestamp() * 1000)
    if value is None:
        raise BadTimestampError("the event time is missing")
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadTimestampError(
            f"the event time {value!r} is a {type(value).__name__}, not milliseconds or a datetime"
        )
    if value < 0:
        raise BadTimestampError(f"the event time {value} is negative")
    if value > bound:
        raise BadTimestampError(
            f"the event time {value} is {(value - now_ms) / 1000:.0f} s ahead of the clock, more "
            "than the watermark's max_future; it would close windows before their records come"
        )
    return value


def _column_ms(series: pl.Series) -> list[Any]:
    if isinstance(series.dtype, pl.Datetime):
        return series.dt.epoch("ms").to_list()
    return series.to_list()
