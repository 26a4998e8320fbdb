"""What each step of the data plane costs a record: ``python benchmarks/plane.py``.

Each step is timed beside the plain way to do it, in turns, so that both see the same machine. The
figures are medians of processor time, all threads together; the ratio is plain over ours.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import struct
import time
from typing import TYPE_CHECKING, Any

import polars as pl
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from riverrun.connectors.codecs import Json
from riverrun.engine.batch import KEY, TIME, Batch
from riverrun.engine.log import Chunk, TopicPartition
from riverrun.engine.partitioner import Partitioner, partition_of
from riverrun.engine.planes import PLANES, select_plane
from riverrun.engine.schema import Record
from riverrun.state import Delta
from riverrun.state.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.plane import Plane

KEYS = 10_000
BATCH_RECORDS = 10_000
DRAIN_EVERY = 3  # batches, so each 30,000 records
WINDOW_MS = 60_000
MAX_BATCH_BYTES = 1 << 20
LZ4 = 3

Step = tuple[str, "Callable[[], Any]", str, "Callable[[], Any]"]


class Order(Record):
    """A row of about 120 bytes as JSON."""

    user: str
    amount: float
    ts: int
    item: str
    country: str
    qty: int


class Workload:
    """Records in every form that a step takes or gives."""

    def __init__(self, plane: Plane, records: int) -> None:
        chance = random.Random(7)
        self.plane = plane
        self.codec = Json(Order).with_plane(plane)
        self.rows = [
            Order(
                f"user-{chance.randrange(KEYS)}",
                round(chance.random() * 1000, 2),
                1_700_000_000_000 + i,
                f"item-{chance.randrange(1000)}",
                "de",
                chance.randrange(9),
            )
            for i in range(records)
        ]
        self.times = [row.ts for row in self.rows]
        self.keys = [row.user.encode() for row in self.rows]
        self.values = [json.dumps(vars_of(row)).encode() for row in self.rows]
        encoded = plane.record_batches.encode(
            self.keys, self.values, self.times, None, MAX_BATCH_BYTES
        )
        self.chunks: list[Chunk] = []
        base = 0
        for batch in encoded:
            payload = struct.pack(">q", base) + batch.payload[8:]
            base += batch.record_count
            self.chunks.append(Chunk(TopicPartition("orders", 0), 0, base, payload))
        frame = self.codec.schema.to_frame(self.rows) if self.codec.schema else pl.DataFrame()
        self.frame = frame.with_columns(pl.Series(TIME, self.times))
        self.window_frame = frame.select(
            pl.col("user").alias(KEY),
            pl.Series(TIME, self.times),
            pl.col("amount").alias("total"),
            pl.col("amount").alias("low"),
            pl.col("amount").alias("high"),
        )

    # --- record batches ---

    def decode(self) -> None:
        """Record batches to columns of bytes."""
        for chunk in self.chunks:
            self.plane.record_batches.decode(chunk)

    def decode_plainly(self) -> None:
        """The same by aiokafka, CRC included, and a tuple per record."""
        for chunk in self.chunks:
            records = MemoryRecords(chunk.payload)
            batch = records.next_batch()
            assert batch is not None
            assert batch.validate_crc()
            for r in batch:
                _ = (r.offset, r.timestamp, r.key, r.value, r.headers)

    def encode(self) -> None:
        """Columns of bytes to record batches."""
        self.plane.record_batches.encode(self.keys, self.values, self.times, None, MAX_BATCH_BYTES)

    def encode_plainly(self) -> None:
        """The same by aiokafka."""
        for at in range(0, len(self.rows), 8000):
            builder = DefaultRecordBatchBuilder(2, LZ4, 0, -1, -1, -1, 1 << 30)
            some = slice(at, at + 8000)
            for i, (stamp, key, value) in enumerate(
                zip(self.times[some], self.keys[some], self.values[some], strict=True)
            ):
                builder.append(i, stamp, key, value, [])
            builder.build()

    # --- JSON ---

    def project(self) -> None:
        """Documents to rows."""
        for at in range(0, len(self.values), BATCH_RECORDS):
            self.codec.decode(self.values[at : at + BATCH_RECORDS])

    def project_to_columns(self) -> None:
        """Documents to rows to columns."""
        for at in range(0, len(self.values), BATCH_RECORDS):
            decoded = self.codec.decode(self.values[at : at + BATCH_RECORDS])
            if decoded.frame is None and self.codec.schema is not None:
                self.codec.schema.to_frame(decoded.rows or [])

    def project_plainly(self) -> None:
        """Documents to dicts by the standard library."""
        for value in self.values:
            json.loads(value)

    def columns_plainly(self) -> None:
        """Documents to columns by Polars."""
        for at in range(0, len(self.values), BATCH_RECORDS):
            pl.read_ndjson(b"\n".join(self.values[at : at + BATCH_RECORDS]))

    def write_rows(self) -> None:
        """Rows to documents."""
        self.codec.encode(Batch.of_rows(self.rows, self.times, schema=self.codec.schema))

    def write_columns(self) -> None:
        """Columns to documents."""
        for at in range(0, self.frame.height, BATCH_RECORDS):
            some = self.frame.slice(at, BATCH_RECORDS)
            self.codec.encode(Batch.of_frame(some, schema=self.codec.schema))

    def write_plainly(self) -> None:
        """Rows to documents by the standard library."""
        for row in self.rows:
            json.dumps(vars_of(row)).encode()

    # --- windows ---

    def windows(self) -> None:
        """Count, sum, min and max per key and minute, drained at each barrier, then read."""
        kinds: dict[str, Any] = {"n": "count", "total": "sum", "low": "min", "high": "max"}
        table = self.plane.window_table(kinds, b"pppp", MemoryStore())
        for number, at in enumerate(range(0, self.window_frame.height, BATCH_RECORDS)):
            some = self.window_frame.slice(at, BATCH_RECORDS)
            table.update(some, some.get_column(TIME) // WINDOW_MS * WINDOW_MS)
            if number % DRAIN_EVERY == DRAIN_EVERY - 1:
                table.drain_delta(Delta())

    def windows_plainly(self) -> None:
        """The same in a dict of lists, encoded at each barrier."""
        state: dict[tuple[int, str], list[Any]] = {}
        dirty: set[tuple[int, str]] = set()
        for at in range(0, len(self.rows), BATCH_RECORDS * DRAIN_EVERY):
            for row in self.rows[at : at + BATCH_RECORDS * DRAIN_EVERY]:
                place = (row.ts // WINDOW_MS * WINDOW_MS, row.user)
                found = state.get(place)
                if found is None:
                    state[place] = [1, row.amount, row.amount, row.amount]
                else:
                    found[0] += 1
                    found[1] += row.amount
                    found[2] = min(found[2], row.amount)
                    found[3] = max(found[3], row.amount)
                dirty.add(place)
            delta = Delta()
            for place in dirty:
                key = struct.pack(">q", place[0]) + place[1].encode()
                delta.put(key, struct.pack("<qddd", *state[place]))
            dirty.clear()

    # --- partitions ---

    def partition(self) -> None:
        """Keys to partitions, none seen before."""
        partitioner = Partitioner(12)
        for at in range(0, len(self.keys), BATCH_RECORDS):
            partitioner.partitions(self.keys[at : at + BATCH_RECORDS])

    def partition_plainly(self) -> None:
        """The same, one by one."""
        for key in self.keys:
            partition_of(key, 12)

    def steps(self) -> list[Step]:
        """Return each step, with the plain way beside it."""
        return [
            ("record batches, decode", self.decode, "aiokafka records", self.decode_plainly),
            ("record batches, encode", self.encode, "aiokafka builder", self.encode_plainly),
            ("JSON to rows", self.project, "json.loads", self.project_plainly),
            ("JSON to columns", self.project_to_columns, "polars NDJSON", self.columns_plainly),
            ("rows to JSON", self.write_rows, "json.dumps", self.write_plainly),
            ("columns to JSON", self.write_columns, "json.dumps", self.write_plainly),
            ("windows, 4 aggregates", self.windows, "dict of lists", self.windows_plainly),
            ("partitions", self.partition, "one by one", self.partition_plainly),
        ]


def vars_of(row: Order) -> dict[str, Any]:
    """Return a row as a dict."""
    return {name: getattr(row, name) for name in row.__struct_fields__}


def time_ns(step: Callable[[], Any]) -> int:
    """Return the processor time that a step takes once."""
    gc.collect()
    began = time.process_time_ns()
    step()
    return time.process_time_ns() - began


def main() -> None:
    """Print nanoseconds of processor time per record for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=90_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plane", choices=PLANES, help="default: as riverrun itself chooses")
    arguments = parser.parse_args()
    plane = select_plane(arguments.plane)
    workload = Workload(plane, arguments.records)
    print(f"plane {plane.name}: {arguments.records:,} records, {KEYS:,} keys, lz4")
    print(
        f"{'step':<26}{'ns/record':>10}{'best':>8}   {'plain way':<18}{'ns/record':>10}{'ratio':>8}"
    )
    gc.freeze()
    for name, ours, plain_name, plain in workload.steps():
        ours()
        plain()
        pairs = [(time_ns(ours), time_ns(plain)) for _ in range(arguments.rounds)]
        mine = [pair[0] / arguments.records for pair in pairs]
        others = [pair[1] / arguments.records for pair in pairs]
        ratio = statistics.median(other / own for own, other in zip(mine, others, strict=True))
        print(
            f"{name:<26}{statistics.median(mine):>10.0f}{min(mine):>8.0f}   "
            f"{plain_name:<18}{statistics.median(others):>10.0f}{ratio:>7.1f}x"
        )


if __name__ == "__main__":
    main()
