"""Input of the throughput runs: made from a seed, written to a topic, and computed again.

Amounts are multiples of a quarter, so that sums are the same in whatever order they are added.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec
from riverrun.engine.partitioner import partition_of
from riverrun.engine.planes import select_plane

from .jobs import AMOUNT_MIN, SAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.engine.log import Log

SLICE_RECORDS = 100_000
BATCH_BYTES = 128 * 1024
"""About 1,000 records before compression: what a producer with a linger of some ms sends."""
JITTER_MS = 1_000
"""How far out of order records are; the topologies allow as much."""
WINDOW_MS = 60_000
GAP_MS = 2_000
"""Of the sessions of ``session``."""
STRIDE = 6_700_417
"""From one user to the next where users order in turn; prime, so that none is left out."""
WINDOW_COLUMNS = ("user", "window_start", "window_end", "total", "orders")
PENDING_BYTES_MAX = 16 * 1024 * 1024
TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True)
class OrderStream:
    """Orders by number, the same ones for the same arguments.

    Attributes:
        count: How many.
        keys: How many users.
        rate: Records per second of event time.
        start_ms: Event time of the first, a multiple of a minute.
        partitions: Partitions of the topic.
        in_turn: Whether each user has one order before any has a second one; else they order by
            chance. Neighbours in the topic are far from each other in the order of the keys.
        seed: For chance.
    """

    count: int
    keys: int = 10_000
    rate: int = 10_000
    start_ms: int = 0
    partitions: int = 1
    in_turn: bool = False
    seed: int = 1

    def slices(self) -> Iterator[pl.DataFrame]:
        """Yield the orders in columns."""
        for first in range(0, self.count, SLICE_RECORDS):
            # By slice, so that a shorter stream is the beginning of a longer one.
            chance = np.random.default_rng((self.seed, first))
            numbers = np.arange(first, min(first + SLICE_RECORDS, self.count))
            users = chance.integers(0, self.keys, SLICE_RECORDS)[: len(numbers)]
            if self.in_turn:
                users = numbers * STRIDE % self.keys
            quarters = chance.integers(0, 4_000, SLICE_RECORDS)[: len(numbers)]
            jitter_ms = chance.integers(0, JITTER_MS, SLICE_RECORDS)[: len(numbers)]
            products = chance.integers(0, 1_000, SLICE_RECORDS)[: len(numbers)]
            times = self.start_ms + numbers * 1000 // self.rate + JITTER_MS - jitter_ms
            frame = pl.DataFrame({"u": users, "p": products})
            yield frame.select(
                user=pl.format("user-{}", pl.col("u").cast(pl.String).str.zfill(6)),
                order=pl.Series(numbers),
                amount=pl.Series(quarters / 4),
                ts=pl.Series(times),
                product=pl.format("product-{}", pl.col("p").cast(pl.String).str.zfill(4)),
            )

    def all(self) -> pl.DataFrame:
        """Return all orders."""
        return pl.concat(self.slices())

    def closing_ms(self) -> int:
        """Return an event time past the last window of the orders, and past the watermark."""
        return self.start_ms + self.count * 1000 // self.rate + 2 * WINDOW_MS

    def expected_filter(self) -> pl.DataFrame:
        """Return what ``filter_project`` has to put out, in order of the order number."""
        kept = self.all().filter(pl.col("amount") >= AMOUNT_MIN)
        return kept.select("user", "order", "amount").sort("order")

    def expected_window(self, amount_min: float = 0.0) -> pl.DataFrame:
        """Return what ``window`` has to put out, in order of window and user."""
        starts = (pl.col("ts") // WINDOW_MS * WINDOW_MS).alias("window_start")
        results = (
            self.all()
            .filter(pl.col("amount") >= amount_min)
            .group_by("user", starts)
            .agg(total=pl.col("amount").sum(), orders=pl.len().cast(pl.Int64))
            .with_columns(window_end=pl.col("window_start") + WINDOW_MS)
        )
        return results.select(WINDOW_COLUMNS).sort("window_start", "user")

    def expected_sessions(self) -> pl.DataFrame:
        """Return what ``session`` has to put out, in order of start and user."""
        orders = self.all().sort("user", "ts")
        # The first of a user is further than any gap from the last of the one before.
        is_first = pl.col("ts").diff().over("user").fill_null(GAP_MS) >= GAP_MS
        results = orders.group_by("user", is_first.cum_sum().alias("session")).agg(
            window_start=pl.col("ts").min(),
            window_end=pl.col("ts").max() + GAP_MS,
            total=pl.col("amount").sum(),
            orders=pl.len().cast(pl.Int64),
        )
        return results.select(WINDOW_COLUMNS).sort("window_start", "user")

    def expected_counts(self) -> pl.DataFrame:
        """Return how many orders the users of the sample have, in order of user."""
        sample = (slice_.filter(pl.col("user").str.ends_with(SAMPLE)) for slice_ in self.slices())
        counted = pl.concat(sample).group_by("user").agg(orders=pl.len().cast(pl.Int64))
        return counted.sort("user")


def start_of_day_before_ms() -> int:
    """Return the start of a minute a day ago: any time that is not in the future does."""
    return (time.time_ns() // 1_000_000 - 86_400_000) // WINDOW_MS * WINDOW_MS


async def new_topic(log: Log, name: str, partitions: int = 1) -> None:
    """Create a topic that keeps records whatever their event time."""
    await log.create_topics([TopicSpec(name, partitions, FOREVER_MS)])


async def preload(log: Log, topic: str, stream: OrderStream) -> int:
    """Create a topic and write all orders, and behind them what closes all windows.

    Returns:
        The size of the values in bytes.
    """
    await new_topic(log, topic, stream.partitions)
    return await fill(log, topic, stream)


async def fill(log: Log, topic: str, stream: OrderStream) -> int:
    """Write all orders, and behind them one per partition that closes all windows.

    Returns:
        The size of the values in bytes.
    """
    codec = select_plane().record_batches
    writer = await log.open_writer("", transactional=False, timeout_ms=TIMEOUT_MS)
    owners = _owners(stream) if stream.partitions > 1 else {}
    size = 0
    for frame in stream.slices():
        if stream.partitions == 1:
            parts = [(0, frame)]
        else:
            owner = frame["user"].replace_strict(owners, return_dtype=pl.Int64)
            parts = [(p, frame.filter(owner == p)) for p in range(stream.partitions)]
        for partition, part in parts:
            keys = part["user"].cast(pl.Binary)
            values = part.select(pl.struct(pl.all()).struct.json_encode().cast(pl.Binary))
            documents = values.to_series()
            size += int(documents.bin.size().sum())
            for batch in codec.encode(keys, documents, part["ts"], None, BATCH_BYTES):
                writer.append(topic, partition, batch)
        if writer.pending_bytes() > PENDING_BYTES_MAX:
            await writer.flush(TIMEOUT_MS)
    for partition in range(stream.partitions):
        value = (
            b'{"user":"closing","order":-1,"amount":0.0,"ts":%d,"product":""}' % stream.closing_ms()
        )
        for batch in codec.encode([b"closing"], [value], [stream.closing_ms()], None, BATCH_BYTES):
            writer.append(topic, partition, batch)
    await writer.flush(TIMEOUT_MS)
    await writer.close()
    return size


def _owners(stream: OrderStream) -> dict[str, int]:
    users = (f"user-{user:06}" for user in range(stream.keys))
    return {user: partition_of(user.encode(), stream.partitions) for user in users}


async def read_all(log: Log, topic: str, partitions: int = 1) -> list[bytes]:
    """Return the values that a read_committed reader finds in a topic now."""
    wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
    spans = await log.offsets(wanted)
    reader = await log.open_reader({where: spans[where].start for where in wanted})
    codec = select_plane().record_batches
    values: list[bytes] = []
    try:
        while any(reader.position(where) < spans[where].end for where in wanted):
            for chunk in await reader.poll(1_000):
                values.extend(value for value in codec.decode(chunk).values if value is not None)
    finally:
        await reader.close()
    return values


def parse(values: list[bytes], like: pl.DataFrame) -> pl.DataFrame:
    """Return JSON documents as a frame of the same columns as another, in the same order."""
    if not values:
        return like.clear()
    return pl.read_ndjson(b"\n".join(values), schema=like.schema).select(like.columns)
