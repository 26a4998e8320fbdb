"""Kafka record batches (format v2) by the native kernel.

The kernel answers where it is certain. For the rest (damage, exotic forms, records with headers to
write, whatever raises) the reference is asked, so that results and errors are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import polars as pl

from riverrun._kernel import Column, decode_record_batches, encode_record_batches
from riverrun.engine.batch import RawRecords
from riverrun.engine.log import EncodedBatch
from riverrun.engine.reference import decompression
from riverrun.engine.reference.record_batches import ReferenceRecordBatchCodec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.byte_columns import ByteColumn, Integers
    from riverrun.engine.log import Chunk

_REFERENCE = ReferenceRecordBatchCodec()


class KernelRecordBatchCodec:
    """Equals ``ReferenceRecordBatchCodec``, record for record and error for error.

    Two differences: records come as columns, which are sequences that share their memory; and
    snappy and zstd are read without the extra ``riverrun[codecs]``. Stateless; safe on any thread,
    and the interpreter runs on meanwhile.
    """

    def decode(self, chunk: Chunk) -> RawRecords:
        """Decode all record batches of a chunk; control and aborted batches are left out.

        Raises:
            CorruptBatchError: As the reference tells it.
        """
        decoded = decode_record_batches(
            chunk.payload, chunk.offset, chunk.aborted, decompression.BODY_BYTES_MAX
        )
        if decoded is None:
            return _REFERENCE.decode(chunk)
        offsets, timestamps_ms, keys, values, headers = decoded
        return RawRecords(
            topic=chunk.partition.topic,
            partition=chunk.partition.partition,
            offsets=cast("Sequence[int]", offsets),
            timestamps_ms=cast("Sequence[int]", timestamps_ms),
            keys=cast("Sequence[bytes | None]", keys),
            values=cast("Sequence[bytes | None]", values),
            headers=headers,
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

        The batches hold the same records as the reference's; their bytes differ.

        Raises:
            BatchTooLargeError: If one record alone is larger.
        """
        encoded = None
        if headers is None:
            encoded = encode_record_batches(
                Column.of(keys) if isinstance(keys, pl.Series) else keys,
                Column.of(values) if isinstance(values, pl.Series) else values,
                Column.of(timestamps_ms) if isinstance(timestamps_ms, pl.Series) else timestamps_ms,
                max_batch_bytes,
            )
        if encoded is None:
            return _REFERENCE.encode(keys, values, timestamps_ms, headers, max_batch_bytes)
        return [EncodedBatch(*batch) for batch in encoded]
