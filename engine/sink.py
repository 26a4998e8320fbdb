"""The tails of a chain: records to an output topic, or to the task that owns their key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import polars as pl

from . import frames
from .byte_columns import as_list, gather, longest
from .codec import EncodeError, on_plane
from .errors import BatchTooLargeError, RecordError, TopologyError
from .operator import OperatorLogic
from .schema import Schema

if TYPE_CHECKING:
    from .batch import Batch
    from .byte_columns import ByteColumn
    from .failures import StepFailures
    from .graph import RepartitionNode, SinkNode
    from .operator import Collector
    from .output import OutputBuffer
    from .plane import Plane
    from .watermarks import InputWatermark

FRAME_ROWS_MAX = 20_000
"""Rows in one frame: bounds the memory of a reader, and keeps a frame below the topic's limit."""

_PLAIN = (dict, list, tuple, str, int, float, bool, bytes, type(None))
"""What msgpack carries without knowing a type."""

FRAME_BYTES_MAX = 700_000
"""Bytes of one frame before compression; the broker takes 1 MiB after it."""


class SinkLogic(OperatorLogic):
    """Encodes values and writes them, keyed and timed as they are.

    Args:
        node: The sink.
        output: Where records of the epoch are collected.
        failures: What to do with values that cannot be written.
        plane: Encodes values, and tells whether a large one fits after compression.
    """

    def __init__(
        self,
        node: SinkNode,
        output: OutputBuffer,
        failures: StepFailures,
        plane: Plane,
    ) -> None:
        self._node = node
        self._encoder = on_plane(node.codec, plane)
        self._output = output
        self._failures = failures
        self._record_batches = plane.record_batches
        self._max_bytes = output.max_batch_bytes(node.topic)

    def on_batch(self, batch: Batch, out: Collector) -> None:
        """Encode and collect a batch."""
        del out
        batch, values = self._encoded(batch)
        keys = batch.wire_keys()
        self._drop_too_large(batch, keys, values)

    def _encoded(self, batch: Batch) -> tuple[Batch, ByteColumn]:
        try:
            return batch, self._encode(batch)
        except (RecordError, MemoryError):
            raise
        except Exception:
            pass
        # Rare: tell the bad ones from the good ones, one by one.
        kept: list[int] = []
        values: list[bytes | None] = []
        for index in range(len(batch)):
            try:
                values.extend(as_list(self._encode(batch.take([index]))))
                kept.append(index)
            except RecordError:
                raise
            except EncodeError as error:
                self._failures.record_failed(batch, index, error)
            except Exception as error:
                told = EncodeError(index, f"{self._codec()} raised {type(error).__name__}: {error}")
                told.__cause__ = error
                self._failures.record_failed(batch, index, told)
        return batch.take(kept), values

    def _encode(self, batch: Batch) -> ByteColumn:
        values = self._encoder.encode(batch)
        if len(values) != len(batch):
            # Which of them are missing cannot be told, so it is no failure of a record.
            raise RecordError(
                f"{self._codec()} gave {len(values)} values for {len(batch)} records: encode must "
                "return one for each"
            )
        return values

    def _codec(self) -> str:
        return f"the codec {self._node.codec!r} of topic {self._node.topic!r}"

    def _drop_too_large(self, batch: Batch, keys: ByteColumn, values: ByteColumn) -> None:
        limit = self._max_bytes - 1_000  # headers of record and batch
        if longest(values) > limit:
            kept = [i for i in range(len(values)) if self._fits(batch, i, keys[i], values[i])]
            keys, values = gather(keys, kept), gather(values, kept)
            batch = batch.take(kept)
        if len(values):
            in_columns = isinstance(values, pl.Series)
            times = batch.time_column() if in_columns else batch.times()
            self._output.write(self._node.topic, keys, values, times)

    def _fits(self, batch: Batch, index: int, key: bytes | None, value: bytes | None) -> bool:
        if value is None or len(value) <= self._max_bytes - 1_000:
            return True
        try:
            self._record_batches.encode([key], [value], [0], None, self._max_bytes)
        except BatchTooLargeError as error:
            self._failures.record_failed(
                batch,
                index,
                BatchTooLargeError(
                    f"the output of {len(value)} bytes is larger than topic {self._node.topic!r} "
                    f"takes ({self._max_bytes} bytes): raise its max.message.bytes ({error})"
                ),
            )
            return False
        return True


class RepartitionLogic(OperatorLogic):
    """Writes records as frames to the partitions that own their keys.

    Args:
        node: The repartition.
        topic: Its internal topic.
        upstream: Partition number of this task, which frames carry.
        output: Where frames of the epoch are collected.
    """

    def __init__(
        self, node: RepartitionNode, topic: str, upstream: int, output: OutputBuffer
    ) -> None:
        self._node = node
        self._topic = topic
        self._upstream = upstream
        self._output = output
        self._told: InputWatermark | None = None

    def on_batch(self, batch: Batch, out: Collector) -> None:
        """Cut a batch by partition and collect the frames."""
        del out
        columnar = _travels_as_columns(batch)
        count = self._output.partition_count(self._topic)
        if count == 1:
            self._write(0, batch, columnar)
            return
        targets = self._output.partitioner(self._topic).partitions(batch.wire_keys())
        if columnar:
            wanted = pl.Series(targets)
            for partition in wanted.unique().sort().to_list():
                self._write(partition, batch.where(wanted == partition), True)
            return
        members: dict[int, list[int]] = {}
        for index, partition in enumerate(targets):
            members.setdefault(partition, []).append(index)
        for partition, indices in members.items():
            self._write(partition, batch.take(indices), False)

    def _write(self, partition: int, batch: Batch, columnar: bool) -> None:
        count = len(batch)
        if count > FRAME_ROWS_MAX:
            self._split(partition, batch, columnar)
            return
        if columnar:
            data = frames.encode_columns(self._upstream, batch.frame())
        else:
            data = self._encode_rows(batch)
        if len(data) > FRAME_BYTES_MAX and count > 1:
            self._split(partition, batch, columnar)
            return
        time = max(batch.max_time(), 0)
        self._output.write(self._topic, [None], [data], [time], partitions=[partition])

    def _split(self, partition: int, batch: Batch, columnar: bool) -> None:
        middle = len(batch) // 2
        self._write(partition, batch.take(list(range(middle))), columnar)
        self._write(partition, batch.take(list(range(middle, len(batch)))), columnar)

    def _encode_rows(self, batch: Batch) -> bytes:
        rows: list[Any] = batch.rows()
        schema = self._node.schema
        first: Any = rows[0]
        if (schema is None or schema.record_type is None) and not isinstance(first, _PLAIN):
            raise RecordError(
                f"step {self._node.name!r} moves values of type {type(first).__name__} to other "
                "tasks, which cannot know that type: annotate the return type of the map before it"
            )
        return frames.encode_rows(self._upstream, rows, batch.times(), batch.keys())

    def write_watermark(self, watermark: InputWatermark) -> bool:
        """Tell all partitions the watermark, if it is news; called at each barrier."""
        if watermark == self._told:
            return False
        self._told = watermark
        data = frames.encode_watermark(self._upstream, watermark)
        time = max(watermark.value_ms, 0)
        for partition in range(self._output.partition_count(self._topic)):
            self._output.write(self._topic, [None], [data], [time], partitions=[partition])
        return True


def _travels_as_columns(batch: Batch) -> bool:
    if batch.schema is not None and not batch.schema.columns_are_whole:
        return False
    return batch.is_columnar or _has_columns(batch)


def _has_columns(batch: Batch) -> bool:
    """Return whether all of the values can travel as columns.

    Records of a class that the topology was not told, as a lambda returns them, travel as columns
    too: there they are dicts to Python functions, and the same as ever to expressions.
    """
    schema = batch.schema
    first: Any = batch.rows()[0]
    if schema is None and not isinstance(first, _PLAIN):
        try:
            schema = Schema.of(cast("type[Any]", type(first)))
        except TopologyError:
            return False
    return (
        schema is not None
        and bool(schema.fields)
        and all(dtype is not None for dtype in schema.fields.values())
    )
