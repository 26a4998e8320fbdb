"""Kafka record batches (format v2) by aiokafka's record classes and the libraries around them.

A batch is checked, decompressed and bounded here; aiokafka's compiled classes then walk the
records of its plain body. They know nothing of limits, CRCs in hardware or quick lz4.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import crc32c
import lz4.frame
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from riverrun.engine.batch import RawRecords
from riverrun.engine.errors import BatchTooLargeError, CorruptBatchError
from riverrun.engine.log import EncodedBatch

from .decompression import CODEC_LZ4, CODEC_MASK, decompress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from riverrun.engine.log import Chunk

_HEADER = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and largest
timestamp, producer id and epoch, base sequence, record count."""

_PREFIX_BYTES = 12  # base offset and length, which the length does not count
_CRC_AT = 17
_ATTRIBUTES_AT = 21  # the CRC covers everything from here
_LENGTH_AT = 8
_TIMESTAMPS_AT = 27
_TIMESTAMPS = struct.Struct(">qq")  # first, largest
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
_CONTROL_KEY = struct.Struct(">hh")  # version, type
_CONTROL_ABORT = 0

Headers = list[tuple[str, bytes | None]]


class _Header(NamedTuple):
    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta


class _Columns:
    """What has been decoded of a chunk so far."""

    __slots__ = ("has_headers", "headers", "keys", "offsets", "timestamps", "values")

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.timestamps: list[int | None] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []
        self.has_headers = False

    def add_batch(self, plain_batch: bytes, from_offset: int) -> None:
        """Add the records of one uncompressed batch, except those below ``from_offset``."""
        # One record object lives at a time: aiokafka then reuses its memory, and a list of the
        # records followed by a comprehension for each column is slower (300 against 250 ns).
        add_offset, add_timestamp = self.offsets.append, self.timestamps.append
        add_key, add_value = self.keys.append, self.values.append
        add_headers = self.headers.append
        any_headers = False
        for record in DefaultRecordBatch(plain_batch):
            if record.offset < from_offset:
                continue
            add_offset(record.offset)
            add_timestamp(record.timestamp)
            add_key(record.key)
            add_value(record.value)
            headers = record.headers
            add_headers(headers)
            if headers:
                any_headers = True
        self.has_headers |= any_headers


class _AbortedTransactions:
    """Tells which batches belong to aborted transactions, going forwards through a chunk."""

    def __init__(self, aborted: Sequence[tuple[int, int]]) -> None:
        self._ahead = sorted(((first, producer) for producer, first in aborted), reverse=True)
        self._open: set[int] = set()

    def covers(self, header: _Header) -> bool:
        """Whether a transactional batch is to be left out. Call it for each batch, in order."""
        while self._ahead and self._ahead[-1][0] <= header.last_offset:
            self._open.add(self._ahead.pop()[1])
        return bool(header.attributes & _TRANSACTIONAL) and header.producer_id in self._open

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
            if header.last_offset < chunk.offset or not header.record_count:
                # Compaction leaves batches without records to keep a producer's last sequence.
                continue
            if header.attributes & _CONTROL:
                if _is_abort_marker(_decode_batch(chunk, header, start, end)):
                    aborted.end(header.producer_id)
            elif not is_aborted:
                plain = _plain_batch(chunk, header, start, end)
                _add_records(columns, chunk, header, plain)
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
            headers=columns.headers if columns.has_headers else None,
        )

    def encode(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
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


def _batches(chunk: Chunk) -> Iterator[tuple[_Header, int, int]]:
    """Yield the header, start and end of each batch of a chunk, its CRC having been checked."""
    payload = chunk.payload
    view = memoryview(payload)
    start = 0
    while start < len(payload):
        if start + _HEADER.size > len(payload):
            raise _corrupt(chunk, chunk.offset, f"{len(payload) - start} stray bytes at the end")
        header = _Header._make(_HEADER.unpack_from(payload, start))
        end = start + _PREFIX_BYTES + header.length
        if header.magic != 2:
            raise _corrupt(
                chunk,
                header.base_offset,
                f"message format {header.magic}, and only format 2 (Kafka 0.11 and later) is read",
            )
        if end < start + _HEADER.size or end > len(payload):
            raise _corrupt(chunk, header.base_offset, f"a length of {header.length} bytes")
        crc = crc32c.crc32c(view[start + _ATTRIBUTES_AT : end])
        if crc != header.crc:
            raise _corrupt(
                chunk,
                header.base_offset,
                f"CRC-32C is {crc:#010x} and should be {header.crc:#010x}",
            )
        if header.record_count < 0 or header.last_offset_delta < 0:
            raise _corrupt(chunk, header.base_offset, "a negative record count")
        yield header, start, end
        start = end


def _plain_batch(chunk: Chunk, header: _Header, start: int, end: int) -> bytes:
    """Return a batch without compression; its length and CRC fields are as they were."""
    payload = chunk.payload
    if not header.attributes & CODEC_MASK:
        # A copy, of bytes: the C code may read one byte beyond a damaged record, and that byte
        # is the zero that ends every bytes object, which stops it.
        return payload[start:end]
    try:
        body = decompress(header.attributes, payload[start + _HEADER.size : end])
    except Exception as error:
        raise _corrupt(chunk, header.base_offset, str(error)) from error
    plain_header = bytearray(payload[start : start + _HEADER.size])
    plain_header[_ATTRIBUTES_AT + 1] &= ~CODEC_MASK
    return bytes(plain_header) + body


def _add_records(columns: _Columns, chunk: Chunk, header: _Header, plain: bytes) -> None:
    before = len(columns.offsets)
    try:
        columns.add_batch(plain, chunk.offset)
    except Exception as error:
        # Whatever bytes can make the parser do (CorruptRecordException, UnicodeDecodeError of a
        # header's name, OverflowError and MemoryError of absurd lengths) means the same.
        raise _corrupt(chunk, header.base_offset, f"{type(error).__name__}: {error}") from error
    offsets = columns.offsets
    if len(offsets) > before and (
        offsets[before] < header.base_offset or offsets[-1] > header.last_offset
    ):
        raise _corrupt(chunk, header.base_offset, "records with offsets outside of the batch")


def _decode_batch(chunk: Chunk, header: _Header, start: int, end: int) -> _Columns:
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


def _new_builder(max_batch_bytes: int) -> DefaultRecordBatchBuilder:
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
    builder: DefaultRecordBatchBuilder,
    count: int,
    first_index: int,
    max_batch_bytes: int,
    shift_ms: int,
) -> EncodedBatch:
    """Return what was built as a batch, compressed by lz4."""
    plain = builder.build()
    body = memoryview(plain)[_HEADER.size :]
    # aiokafka compresses at level 9, eight times slower. Kafka's own readers know no linked blocks.
    packed = lz4.frame.compress(body, compression_level=0, block_linked=False, store_size=False)
    if len(packed) < len(body):
        attributes = CODEC_LZ4
        batch = plain[: _HEADER.size] + packed
    else:
        attributes = 0
        batch = bytearray(plain)
    if len(batch) > max_batch_bytes:
        raise BatchTooLargeError(
            f"record {first_index} takes {len(batch)} bytes as a record batch, and the topic takes "
            f"at most {max_batch_bytes}: make the record smaller or raise max.message.bytes"
        )
    struct.pack_into(">i", batch, _LENGTH_AT, len(batch) - _PREFIX_BYTES)
    struct.pack_into(">h", batch, _ATTRIBUTES_AT, attributes)
    first_ms, max_ms = _TIMESTAMPS.unpack_from(batch, _TIMESTAMPS_AT)
    max_ms -= shift_ms
    _TIMESTAMPS.pack_into(batch, _TIMESTAMPS_AT, first_ms - shift_ms, max_ms)
    struct.pack_into(">I", batch, _CRC_AT, crc32c.crc32c(memoryview(batch)[_ATTRIBUTES_AT:]))
    return EncodedBatch(bytes(batch), count, max_ms)
