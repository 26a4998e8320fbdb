"""Kafka record batches (format v2) by aiokafka's record classes and the libraries around them.

A batch is checked, decompressed and bounded here; aiokafka's compiled classes then walk the
records of its plain body. They know nothing of limits, CRCs in hardware or quick lz4.
"""

# lz4 and aiokafka's compiled classes have no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

from __future__ import annotations

import struct
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

import crc32c
import lz4.frame
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from riverrun.engine.batch import RawRecords
from riverrun.engine.batch_header import HEADER_BYTES, LENGTH_END, read_header
from riverrun.engine.byte_columns import as_list
from riverrun.engine.errors import BatchTooLargeError, CorruptBatchError
from riverrun.engine.log import EncodedBatch

from .decompression import CODEC_LZ4, CODEC_MASK, decompress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiokafka.record._protocols import DefaultRecordBatchBuilderProtocol

    from riverrun.engine.batch_header import BatchHeader
    from riverrun.engine.byte_columns import ByteColumn, Integers
    from riverrun.engine.log import Chunk

_LENGTH_AT = 8
_CRC_AT = 17
_ATTRIBUTES_AT = 21  # the CRC covers everything from here
_TIMESTAMPS_AT = 27
_TIMESTAMPS = struct.Struct(">qq")  # first, largest
_CONTROL_KEY = struct.Struct(">hh")  # version, type
_CONTROL_ABORT = 0

Headers = list[tuple[str, bytes | None]]


class _Columns:
    """What has been decoded of a chunk so far."""

    __slots__ = ("headers", "keys", "offsets", "timestamps", "values")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.timestamps: list[int | None] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: dict[int, Headers] = {}  # only those that have any, by index

    def add_batch(self, header: BatchHeader, plain_batch: bytes) -> None:
        """Add the records of one uncompressed batch."""
        # One record object lives at a time, which lets aiokafka reuse its memory. What need not
        # be asked of each record is not: an attribute costs about 25 ns of 200.
        is_dense = header.last_offset_delta + 1 == header.record_count
        offsets = self.offsets
        add_offset, add_timestamp = offsets.append, self.timestamps.append
        add_key, add_value, values = self.keys.append, self.values.append, self.values
        for record in DefaultRecordBatch(plain_batch):
            if not is_dense:
                add_offset(record.offset)
            headers = record.headers
            if headers:
                self.headers[len(values)] = headers
            add_timestamp(record.timestamp)
            add_key(record.key)
            add_value(record.value)
        if is_dense:
            offsets.extend(range(header.base_offset, header.base_offset + header.record_count))

    def drop_below(self, offset: int) -> None:
        """Drop the records at the front that are below ``offset``."""
        count = bisect_left(self.offsets, offset)
        for column in (self.offsets, self.timestamps, self.keys, self.values):
            del column[:count]
        self.headers = {i - count: headers for i, headers in self.headers.items() if i >= count}

    def headers_column(self) -> list[Headers] | None:
        """Return the headers of each record, None if no record has any."""
        if not self.headers:
            return None
        find = self.headers.get
        return [find(i, []) for i in range(len(self.values))]


class _AbortedTransactions:
    """Tells which batches belong to aborted transactions, going forwards through a chunk."""

    def __init__(self, aborted: Sequence[tuple[int, int]]) -> None:
        self._ahead = sorted(((first, producer) for producer, first in aborted), reverse=True)
        self._open: set[int] = set()

    def covers(self, header: BatchHeader) -> bool:
        """Whether a transactional batch is to be left out. Call it for each batch, in order."""
        while self._ahead and self._ahead[-1][0] < header.next_offset:
            self._open.add(self._ahead.pop()[1])
        return header.is_transactional and header.producer_id in self._open

    def end(self, producer_id: int) -> None:
        """Note the abort marker of a producer: its later batches are another transaction's."""
        self._open.discard(producer_id)


class ReferenceRecordBatchCodec:
    """Kafka record batches to columns of bytes and back. Stateless; safe on any thread.

    Reads batches that are plain or compressed by gzip, lz4, and, with the extra
    ``riverrun[codecs]``, snappy and zstd. Writes lz4, or plain where lz4 saves nothing.
    """

    def decode(self, chunk: Chunk) -> RawRecords:
        """Decode all record batches of a chunk; control and aborted batches are left out.

        Raises:
            CorruptBatchError: A CRC does not match, or a batch cannot be parsed. The message names
                topic, partition and offset.
        """
        columns = _Columns()
        aborted = _AbortedTransactions(chunk.aborted)
        for header, start, end in _batches(chunk):
            is_aborted = aborted.covers(header)
            if header.next_offset <= chunk.offset or not header.record_count:
                # Compaction leaves batches without records to keep a producer's last sequence.
                continue
            if header.is_control:
                if _is_abort_marker(_decode_batch(chunk, header, start, end)):
                    aborted.end(header.producer_id)
            elif not is_aborted:
                plain = _plain_batch(chunk, header, start, end)
                _add_records(columns, chunk, header, plain)
        columns.drop_below(chunk.offset)
        timestamps = columns.timestamps
        if None in timestamps:
            # aiokafka tells the timestamp -1, "none", as None.
            timestamps = [-1 if stamp is None else stamp for stamp in timestamps]
        return RawRecords(
            topic=chunk.partition.topic,
            partition=chunk.partition.partition,
            offsets=columns.offsets,
            timestamps_ms=timestamps,  # pyright: ignore[reportArgumentType]
            keys=columns.keys,
            values=columns.values,
            headers=columns.headers_column(),
        )

    def encode(
        self,
        keys: ByteColumn,
        values: ByteColumn,
        timestamps_ms: Integers,
        headers: Sequence[Sequence[tuple[str, bytes | None]]] | None,
        max_batch_bytes: int,
    ) -> list[EncodedBatch]:
        """Encode records in order as lz4 batches of at most ``max_batch_bytes`` each.

        A batch is filled up to that size before compression, so that it holds whatever lz4 does.

        Raises:
            BatchTooLargeError: If one record alone is larger.
        """
        # aiokafka takes a first timestamp of -1 for "not set yet"; time only counts from the first
        # record on the wire, so negative times are moved up here, and back in the header.
        keys, values, timestamps_ms = as_list(keys), as_list(values), list(timestamps_ms)
        shift_ms = max(0, -min(timestamps_ms, default=0))
        if shift_ms:
            timestamps_ms = [timestamp + shift_ms for timestamp in timestamps_ms]
        batches: list[EncodedBatch] = []
        no_headers: Headers = []
        builder = _new_builder(max_batch_bytes)
        append = builder.append
        count = 0
        for index, (timestamp, key, value) in enumerate(
            zip(timestamps_ms, keys, values, strict=True)
        ):
            row_headers = no_headers if headers is None else list(headers[index])
            if append(count, timestamp, key, value, row_headers) is None:
                batches.append(_finish(builder, count, index - count, max_batch_bytes, shift_ms))
                builder = _new_builder(max_batch_bytes)
                append = builder.append
                count = 0
                # The first record of a builder is taken whatever its size.
                append(count, timestamp, key, value, row_headers)
            count += 1
        if count:
            first_index = len(values) - count
            batches.append(_finish(builder, count, first_index, max_batch_bytes, shift_ms))
        return batches


# --- decoding --------------------------------------------------------------------------------


def _batches(chunk: Chunk) -> Iterator[tuple[BatchHeader, int, int]]:
    """Yield the header, start and end of each batch of a chunk, its CRC having been checked."""
    payload = chunk.payload
    view = memoryview(payload)
    start = 0
    expected = 0
    while start < len(payload):
        try:
            header = read_header(payload, start)
        except CorruptBatchError as error:
            raise _corrupt(chunk, max(expected, chunk.offset), str(error)) from None
        end = start + header.size_bytes
        if end > len(payload):
            raise _corrupt(chunk, header.base_offset, f"a length of {header.batch_length} bytes")
        crc = crc32c.crc32c(view[start + _ATTRIBUTES_AT : end])
        if crc != header.crc:
            raise _corrupt(
                chunk,
                header.base_offset,
                f"CRC-32C is {crc:#010x} and should be {header.crc:#010x}",
            )
        if header.base_offset < expected or header.record_count < 0:
            raise _corrupt(
                chunk,
                header.base_offset,
                f"{header.record_count} records from there on, behind offset {expected - 1}",
            )
        yield header, start, end
        start = end
        expected = header.next_offset


def _plain_batch(chunk: Chunk, header: BatchHeader, start: int, end: int) -> bytes:
    """Return a batch without compression; its length and CRC fields are as they were."""
    payload = chunk.payload
    if not header.attributes & CODEC_MASK:
        # A copy, of bytes: the C code may read one byte beyond a damaged record, and that byte
        # is the zero that ends every bytes object, which stops it.
        return payload[start:end]
    try:
        body = decompress(header.attributes, payload[start + HEADER_BYTES : end])
    except Exception as error:
        raise _corrupt(chunk, header.base_offset, str(error)) from error
    plain_header = bytearray(payload[start : start + HEADER_BYTES])
    plain_header[_ATTRIBUTES_AT + 1] &= ~CODEC_MASK
    return bytes(plain_header) + body


def _add_records(columns: _Columns, chunk: Chunk, header: BatchHeader, plain: bytes) -> None:
    before = len(columns.offsets)
    try:
        columns.add_batch(header, plain)
    except Exception as error:
        # Whatever bytes can make the parser do (CorruptRecordException, UnicodeDecodeError of a
        # header's name, OverflowError and MemoryError of absurd lengths) means the same.
        raise _corrupt(chunk, header.base_offset, f"{type(error).__name__}: {error}") from error
    # In order and inside of the batch, or the position would go astray and records be lost.
    offsets = columns.offsets[before:]
    if (
        offsets[0] < header.base_offset
        or offsets[-1] >= header.next_offset
        or (
            len(offsets) != header.next_offset - header.base_offset
            and any(later <= earlier for earlier, later in pairwise(offsets))
        )
    ):
        raise _corrupt(chunk, header.base_offset, "its records have impossible offsets")


def _decode_batch(chunk: Chunk, header: BatchHeader, start: int, end: int) -> _Columns:
    columns = _Columns()
    _add_records(columns, chunk, header, _plain_batch(chunk, header, start, end))
    return columns


def _is_abort_marker(control: _Columns) -> bool:
    key = control.keys[0] if control.keys else None
    if key is None or len(key) < _CONTROL_KEY.size:
        return False
    return _CONTROL_KEY.unpack_from(key)[1] == _CONTROL_ABORT


def _corrupt(chunk: Chunk, offset: int, reason: str) -> CorruptBatchError:
    topic, partition = chunk.partition
    return CorruptBatchError(
        f"topic {topic}, partition {partition}, offset {offset}: the record batch is damaged or "
        f"cannot be read: {reason}"
    )


# --- encoding --------------------------------------------------------------------------------


def _new_builder(max_batch_bytes: int) -> DefaultRecordBatchBuilderProtocol:
    return DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=max_batch_bytes,
    )


def _finish(
    builder: DefaultRecordBatchBuilderProtocol,
    count: int,
    first_index: int,
    max_batch_bytes: int,
    shift_ms: int,
) -> EncodedBatch:
    """Return what was built as a batch, compressed by lz4."""
    plain = builder.build()
    body = memoryview(plain)[HEADER_BYTES:]
    # aiokafka compresses at level 9, eight times slower. Kafka's own readers know no linked blocks.
    packed = lz4.frame.compress(body, compression_level=0, block_linked=False, store_size=False)
    if len(packed) < len(body):
        attributes = CODEC_LZ4
        batch = plain[:HEADER_BYTES] + packed
    else:
        attributes = 0
        batch = bytearray(plain)
    if len(batch) > max_batch_bytes:
        raise BatchTooLargeError(
            f"record {first_index} takes {len(batch)} bytes as a record batch, and the topic takes "
            f"at most {max_batch_bytes}: make the record smaller or raise max.message.bytes"
        )
    struct.pack_into(">i", batch, _LENGTH_AT, len(batch) - LENGTH_END)
    struct.pack_into(">h", batch, _ATTRIBUTES_AT, attributes)
    first_ms, max_ms = _TIMESTAMPS.unpack_from(batch, _TIMESTAMPS_AT)
    max_ms -= shift_ms
    _TIMESTAMPS.pack_into(batch, _TIMESTAMPS_AT, first_ms - shift_ms, max_ms)
    struct.pack_into(">I", batch, _CRC_AT, crc32c.crc32c(memoryview(batch)[_ATTRIBUTES_AT:]))
    return EncodedBatch(bytes(batch), count, max_ms)
