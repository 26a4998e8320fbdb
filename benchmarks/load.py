"""A steady load in an open loop, and when each of its records came out of the engine.

Records are created by a schedule that is kept whatever the engine does, so that a stall counts for
every record that it holds up. Producer and consumer are processes of their own. What is sent is
rendered before the schedule begins, so that rendering is no part of any latency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from riverrun.connectors.kafka import KafkaLog
from riverrun.engine.log import TopicPartition
from riverrun.engine.planes import select_plane

from .engine import ROOT, Engine
from .jobs import AMOUNT_MIN
from .orders import BATCH_BYTES, TIMEOUT_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
    Integers = np.ndarray[tuple[int], np.dtype[np.int64]]
    Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]

KEYS = 10_000
TICK_S = 0.002
"""How often the producer sends what is due; part of the latency."""
BEHIND_MAX_S = 1.0
"""A producer that is later than this does not keep its schedule."""
DRAIN_TIMEOUT_S = 30.0
RENDER_S_PER_RECORD = 3e-6
"""Time to render and to start; the schedule begins after it."""
FEW = 256
"""Records up to which looping over them is quicker than a column."""
LIVE = 800_000
"""Number of the first user of the visits, which are none of those that the state is made of."""
PAYLOAD = "x" * 60


class LoadNotKeptError(Exception):
    """The producer could not keep its schedule, or records are missing: nothing was measured."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and how to tell from a result which of the records it comes from.

    Attributes:
        kind: ``orders``, for the job ``filter``, or ``visits``, for the job ``state``.
        rate: Records created per second.
        count: Records in all.
    """

    kind: str
    rate: int
    count: int

    def render(self, start_ms: int) -> pl.DataFrame:
        """Return all records as columns ``key``, ``value`` and ``ts``."""
        order = np.arange(self.count)
        users = order * 7919 % KEYS if self.kind == "orders" else order % KEYS + LIVE
        frame = pl.DataFrame({"o": order, "u": users}).with_columns(
            ts=start_ms + pl.col("o") * 1000 // self.rate,
            user=pl.format("user-{}", pl.col("u").cast(pl.String).str.zfill(6)),
        )
        if self.kind == "orders":
            product = (pl.col("o") % 1000).cast(pl.String).str.zfill(4)
            value = pl.struct(
                pl.col("user"),
                pl.col("o").alias("order"),
                (pl.col("o") * 7 % 1000).cast(pl.Float64).alias("amount"),
                pl.col("ts"),
                pl.format("product-{}", product).alias("product"),
            )
        else:
            value = pl.struct(pl.col("user"), pl.lit(PAYLOAD).alias("payload"), pl.col("ts"))
        return frame.select(
            pl.col("user").cast(pl.Binary).alias("key"),
            value.struct.json_encode().cast(pl.Binary).alias("value"),
            pl.col("ts"),
        )

    def wanted(self) -> Flags:
        """Return for each record whether a result has to come of it by itself.

        Visits of a user that are processed together come out as one result, the last one's.
        """
        order = np.arange(self.count)
        if self.kind == "orders":
            return order * 7 % 1000 >= AMOUNT_MIN
        return order >= self.count - KEYS

    def orders_of(self, values: Sequence[bytes]) -> Integers:
        """Return from which record each result comes."""
        if len(values) <= FEW:
            if self.kind == "orders":
                return np.array([_decode_kept(v).order for v in values], dtype=np.int64)
            found = [_decode_counted(v) for v in values]
            users = np.array([int(each.user[5:]) for each in found], dtype=np.int64)
            visits = np.array([each.visits for each in found], dtype=np.int64)
        else:
            texts = pl.Series("", values, dtype=pl.Binary).cast(pl.String)
            if self.kind == "orders":
                return _numbers(texts, r'"order":(\d+)')
            users = _numbers(texts, r'"user":"user-(\d+)"')
            visits = _numbers(texts, r'"visits":(\d+)')
        return (visits - 1) * KEYS + users - LIVE

    def arrivals(self, orders: Integers, arrived_s: Floats) -> Floats:
        """Return when the result of each record could be read, not a number where none came.

        What came twice counts from its first arrival.
        """
        first = np.full(self.count, np.inf)
        np.minimum.at(first, orders, arrived_s)
        if self.kind == "visits":
            # What came out together with a later visit of its user was there by then.
            missing = -self.count % KEYS
            rounds = np.append(first, np.full(missing, np.inf)).reshape(-1, KEYS)
            rounds = np.minimum.accumulate(rounds[::-1])[::-1]
            first = rounds.reshape(-1)[: self.count]
        return np.where(np.isinf(first), np.nan, first)


class _Kept(msgspec.Struct):
    order: int


class _Counted(msgspec.Struct):
    user: str
    visits: int


_decode_kept = msgspec.json.Decoder(_Kept).decode
_decode_counted = msgspec.json.Decoder(_Counted).decode


def _numbers(texts: pl.Series, pattern: str) -> Integers:
    return texts.str.extract(pattern, 1).cast(pl.Int64).to_numpy()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load that was kept.

    Attributes:
        created_s: Scheduled creation of each record that was measured; the system's monotonic
            clock.
        latencies_ms: From there until its result could be read.
        cpu_cores: CPU that the worker used per second.
    """

    created_s: Floats
    latencies_ms: Floats
    cpu_cores: float


async def apply(load: Load, engine: Engine, broker: str, warm_up_s: float) -> Loaded:
    """Put a worker under a load; what was created in the first seconds is not measured.

    Raises:
        LoadNotKeptError: If the load was not what it should be, or a record is missing.
        EngineFailedError: If the worker ends by itself.
    """
    seconds = load.count / load.rate - warm_up_s
    what = (load.kind, str(load.rate), str(load.count))
    with tempfile.TemporaryDirectory() as folder:
        arrivals = Path(folder) / "arrivals.npy"
        consumer = _process("consume", broker, engine.run.sink, *what, "--file", str(arrivals))
        producer = _process("produce", broker, engine.run.source, *what)
        try:
            start_s = json.loads(await _line(producer))["start_s"]
            await asyncio.sleep(start_s + warm_up_s - time.monotonic())
            before, began_s = engine.usage(), time.monotonic()
            await asyncio.sleep(seconds)
            after, ended_s = engine.usage(), time.monotonic()
            behind_s = json.loads(await _output(producer))["behind_s"]
            if behind_s > BEHIND_MAX_S:
                raise LoadNotKeptError(f"the producer fell {behind_s:.1f} s behind")
            await _output(consumer)
        finally:
            for process in (producer, consumer):
                process.kill()
                process.wait()
        orders, arrived_s = np.load(arrivals)
    arrived_s = load.arrivals(orders.astype(np.int64), arrived_s)
    wanted = load.wanted()
    if missing := int(np.isnan(arrived_s[wanted]).sum()):
        raise LoadNotKeptError(f"{missing} of {wanted.sum()} results did not arrive")
    created_s = start_s + np.arange(load.count) / load.rate
    kept = ~np.isnan(arrived_s) & (created_s >= start_s + warm_up_s)
    return Loaded(
        created_s[kept],
        (arrived_s[kept] - created_s[kept]) * 1000,
        (after.cpu_s - before.cpu_s) / (ended_s - began_s),
    )


def _process(role: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.load", role, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


async def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    if not line:
        raise LoadNotKeptError("the producer failed")
    return line


async def _output(process: subprocess.Popen[bytes]) -> bytes:
    try:
        output, _ = await asyncio.to_thread(process.communicate, None, DRAIN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise LoadNotKeptError("the load was not through in time") from None
    if process.returncode != 0:
        raise LoadNotKeptError("a process of the load failed")
    return output


# --- the processes beside the engine -------------------------------------------------------------


async def produce(load: Load, broker: str, topic: str) -> dict[str, float]:
    """Send all records on schedule; print when it begins, return how late it was at worst."""
    log = KafkaLog(broker)
    await log.start(TIMEOUT_MS)
    writer = await log.open_writer("", transactional=False, timeout_ms=TIMEOUT_MS)
    encode = select_plane().record_batches.encode
    lead_s = 0.5 + load.count * RENDER_S_PER_RECORD
    start_s, start_ms = time.monotonic() + lead_s, time.time_ns() // 1_000_000 + lead_s * 1000
    print(json.dumps({"start_s": start_s}), flush=True)
    records = load.render(int(start_ms))
    sent, behind_s = 0, 0.0
    while sent < load.count:
        now_s = time.monotonic()
        due = min(int((now_s - start_s) * load.rate) + 1, load.count)
        # As any Kafka producer: what is due while a request is under way goes with the next one.
        if due > sent and not writer.pending_bytes():
            behind_s = max(behind_s, now_s - start_s - sent / load.rate)
            part = records.slice(sent, due - sent)
            for batch in encode(part["key"], part["value"], part["ts"], None, BATCH_BYTES):
                writer.append(topic, 0, batch)
            sent = due
        await asyncio.sleep(max(TICK_S - (time.monotonic() - now_s), 0))
    await writer.flush(TIMEOUT_MS)
    await writer.close()
    await log.close()
    return {"behind_s": behind_s}


async def consume(load: Load, broker: str, topic: str, path: str) -> None:
    """Read committed records until all are there that must be; save numbers and arrival times."""
    log = KafkaLog(broker)
    await log.start(TIMEOUT_MS)
    sink = TopicPartition(topic, 0)
    reader = await log.open_reader({sink: (await log.offsets([sink]))[sink].end})
    codec = select_plane().record_batches
    missing = load.wanted()
    left = int(missing.sum())
    orders: list[Integers] = []
    arrived_s: list[Floats] = []
    while left:
        chunks = await reader.poll(1_000)
        now_s = time.monotonic()
        for chunk in chunks:
            values: Any = codec.decode(chunk).values
            found = load.orders_of(values)
            orders.append(found)
            arrived_s.append(np.full(len(found), now_s))
            fresh = np.unique(found[missing[found]])
            missing[fresh] = False
            left -= len(fresh)
    await reader.close()
    await log.close()
    np.save(path, np.array([np.concatenate(orders), np.concatenate(arrived_s)]))


def main() -> None:
    """Run a producer or a consumer; started by ``apply``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("role", choices=("produce", "consume"))
    parser.add_argument("broker")
    parser.add_argument("topic")
    parser.add_argument("kind", choices=("orders", "visits"))
    parser.add_argument("rate", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--file", default="")
    given = parser.parse_args()
    load = Load(given.kind, given.rate, given.count)
    if given.role == "produce":
        print(json.dumps(asyncio.run(produce(load, given.broker, given.topic))))
    else:
        asyncio.run(consume(load, given.broker, given.topic, given.file))


if __name__ == "__main__":
    main()
