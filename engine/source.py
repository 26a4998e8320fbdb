"""The head of a chain: raw records of a topic to batches with keys and event times."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import orjson
import polars as pl

from .batch import Batch, RawRecords
from .errors import RecordError
from .labels import POSITION, TIME, KeyLabel, Label
from .schema import Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .codec import Codec, DecodedValues
    from .failures import StepFailures
    from .graph import KeyFormat, SourceNode
    from .labels import TextSource

EVENT_TIME_MAX_MS = 253_402_300_799_999
"""The last millisecond of the year 9999; what is later is a mistake, such as microseconds."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_NO_SCHEMA = Schema(None, {})


def _int_key(raw: bytes) -> int:
    return _in_range(int(raw))


def _json_key(raw: bytes) -> Any:
    key = orjson.loads(raw)
    if isinstance(key, list):
        parts = cast("list[Any]", key)
        if not parts:
            raise ValueError("an empty array")
        return tuple(map(_json_key_part, parts))
    return None if key is None else _json_key_part(key)


def _json_key_part(part: Any) -> Any:
    if isinstance(part, str):
        return part
    if isinstance(part, int):
        return _in_range(part)
    raise ValueError("keys are text, integers of 64 bits, booleans or arrays of them")


def _in_range(key: int) -> int:
    if not -(1 << 63) <= key < 1 << 63:
        raise ValueError("an integer beyond 64 bits")
    return key


_KEY_READERS: dict[KeyFormat, Callable[[bytes], Any]] = {
    "text": bytes.decode,
    "int": _int_key,
    "bytes": bytes,
    "json": _json_key,
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
        codec: The node's codec, on the data plane of the task.
    """

    def __init__(
        self, node: SourceNode, failures: StepFailures, codec: Codec | None = None
    ) -> None:
        self._node = node
        self._codec = codec or node.codec
        self._failures = failures
        self._read_key = _KEY_READERS[node.key_format]

    def to_batch(self, records: RawRecords, now_ms: int) -> Batch | None:
        """Return the records that can be read, None if none of them can.

        Raises:
            RecordError: If one cannot be and the source's policy is ``fail``.
        """
        if not len(records):
            return None
        decoded = self._codec.decode(records.values)
        self._check_complete(records, decoded)
        if callable(self._node.event_time) and decoded.rows is None:
            # The function reads rows; columns are there still for who reads those.
            decoded = replace(decoded, rows=self._rows(decoded))
        for index, error in decoded.failures:
            self._failures.raw_failed(records, index, error)
        batch = self._all_good(records, decoded, now_ms)
        if batch is not None:
            return batch
        positions = list(range(len(records))) if decoded.kept is None else decoded.kept
        if not positions:
            return None
        return self._checked(records, decoded, positions, now_ms)

    def _check_complete(self, records: RawRecords, decoded: DecodedValues) -> None:
        """A codec that loses values is no matter of policy: it says nothing of which ones."""
        values = decoded.rows if decoded.rows is not None else decoded.frame
        found = 0 if values is None else len(values)
        expected = len(records) if decoded.kept is None else len(decoded.kept)
        if decoded.kept is None and decoded.failures:
            expected -= len(decoded.failures)
        if found != expected:
            raise RecordError(
                f"step {self._node.name!r}: codec {type(self._node.codec).__name__} of topic "
                f"{self._node.topic!r} decoded {found} of {expected} values and told no failure "
                "of the others; its decode must return one row per value, or name it in failures"
            )

    # --- the usual case: nothing is wrong, and no record is looked at by itself ---------------

    def _all_good(self, records: RawRecords, decoded: DecodedValues, now_ms: int) -> Batch | None:
        """Return a batch of all that was decoded, None if something may be wrong with any of it."""
        if decoded.kept is not None:
            if not decoded.kept:
                return None
            records_kept = _pick(records, decoded.kept)
        else:
            records_kept = records
        columns = dict(decoded.columns)
        if decoded.frame is not None:
            columns = {column.name: column for column in decoded.frame.get_columns()}
        keys = self._key_label(records_kept.keys)
        times = self._time_column(records_kept, decoded, columns, self._latest_ms(now_ms))
        if keys is None or times is None:
            return None
        positions = range(len(times)) if decoded.kept is None else decoded.kept
        return Batch(
            self._node.schema,
            Label(TIME, column=times),
            columns=columns,
            rows=decoded.rows,
            keys=keys,
            positions=Label(POSITION, positions),
            origin=records,
        )

    def _key_label(self, raw: Sequence[bytes | None]) -> KeyLabel | None:
        if self._node.key_format == "bytes":
            return KeyLabel(list(raw))
        nulls = raw.count(None)
        if nulls == len(raw):
            return KeyLabel([None] * nulls)
        if not nulls and self._node.key_format == "text":
            if not isinstance(raw, list):
                # A column of bytes that knows by itself how to become one of text.
                text = cast("TextSource", raw)
                return KeyLabel(text=text) if text.is_text() else None
            keys = cast("Sequence[bytes]", raw)
            if b"".join(keys).isascii():
                # Each by itself is text then, and text is written as it is read.
                return KeyLabel(wire=list(keys))
        try:
            return KeyLabel([None if key is None else self._read_key(key) for key in raw])
        except ValueError:
            return None

    def _time_column(
        self,
        records: RawRecords,
        decoded: DecodedValues,
        columns: dict[str, pl.Series],
        latest_ms: int,
    ) -> pl.Series | None:
        """Return event times, all of them valid; a column made for that is added to ``columns``."""
        where, schema = self._node.event_time, self._node.schema
        try:
            if where is None:
                times = pl.Series("", records.timestamps_ms, dtype=pl.Int64)
            elif not isinstance(where, str):
                times = pl.Series(list(map(where, self._rows(decoded))), strict=True)
            elif where in columns:
                times = columns[where]
            elif decoded.rows is None:
                return None
            elif schema is not None and where in schema.columns:
                times = columns[where] = schema.to_column(decoded.rows, where)
            else:
                times = pl.Series(self._field(decoded.rows, where), strict=True)
        except Exception:
            # Whatever a user's function raises, or that it gave no number: told one by one.
            return None
        if isinstance(times.dtype, pl.Datetime):
            times = times.dt.epoch("ms")
        if times.dtype != pl.Int64 or times.null_count():
            return None
        earliest, latest = cast("int", times.min()), cast("int", times.max())
        return times.alias(TIME) if earliest >= 0 and latest <= latest_ms else None

    def _latest_ms(self, now_ms: int) -> int:
        """Return the latest event time that is not a mistake."""
        future_ms = self._node.watermark.max_future_ms
        return (
            EVENT_TIME_MAX_MS if future_ms is None else min(EVENT_TIME_MAX_MS, now_ms + future_ms)
        )

    # --- one by one ---------------------------------------------------------------------------

    def _keys(self, records: RawRecords, positions: list[int]) -> list[Any]:
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
            return self._field(decoded.rows or [], where)
        times: list[Any] = []
        for row in self._rows(decoded):
            try:
                times.append(where(row))
            except Exception as error:
                times.append(_Bad(error))
        return times

    def _field(self, rows: list[Any], name: str) -> list[Any]:
        return (self._node.schema or _NO_SCHEMA).column_values(rows, name)

    def _checked(
        self, records: RawRecords, decoded: DecodedValues, positions: list[int], now_ms: int
    ) -> Batch | None:
        """Return the records whose key and event time can be used; account for the others."""
        keys = self._keys(records, positions)
        times = self._times(records, decoded, positions)
        bound = self._latest_ms(now_ms)
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
        rows = self._rows(decoded)
        if len(kept) < len(times):
            rows, times = [rows[i] for i in kept], [times[i] for i in kept]
            keys, positions = [keys[i] for i in kept], [positions[i] for i in kept]
        return Batch.of_rows(
            rows, times, keys=keys, positions=positions, schema=self._node.schema, origin=records
        )

    def _rows(self, decoded: DecodedValues) -> list[Any]:
        if decoded.rows is not None:
            return decoded.rows
        assert decoded.frame is not None
        schema = self._node.schema
        return decoded.frame.to_dicts() if schema is None else schema.to_rows(decoded.frame)


class _Bad:
    """Stands for a key or time that could not be read until its record is accounted for."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _pick(records: RawRecords, indices: list[int]) -> RawRecords:
    """Return the labels of some records; their values have been decoded."""
    return replace(
        records,
        offsets=[records.offsets[i] for i in indices],
        timestamps_ms=[records.timestamps_ms[i] for i in indices],
        keys=[records.keys[i] for i in indices],
        values=(),
        headers=None,
    )


def _event_time(value: Any, bound: int, now_ms: int) -> int:
    if isinstance(value, _Bad):
        raise value.error
    if isinstance(value, dt.datetime):
        zoned = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        value = (zoned - _EPOCH) // _MILLISECOND
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
