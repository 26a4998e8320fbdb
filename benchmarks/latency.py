"""Latency: a steady load, and how long after its scheduled creation each record is readable.

Open loop: the producer keeps to its schedule whatever the engine does, so that a stall is counted
for every record that it holds up. Producer and consumer are processes of their own.
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
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from riverrun.connectors.kafka import KafkaLog
from riverrun.engine.log import TopicPartition
from riverrun.engine.reference.record_batches import ReferenceRecordBatchCodec

from .engine import ROOT, Engine, Run
from .jobs import AMOUNT_MIN
from .orders import BATCH_BYTES, TIMEOUT_MS, new_topic

if TYPE_CHECKING:
    from riverrun.engine.log import Log

RATE = 10_000
KEYS = 10_000
TICK_S = 0.002
"""How often the producer sends what is due; part of the latency."""
DRAIN_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of one load.

    Attributes:
        guarantee: Of the job.
        rate: Records created per second.
        seconds: How long it was measured, warm-up cut off.
        records: Records counted.
        p50_ms: Half were quicker.
        p95_ms: 95 of 100 were quicker.
        p99_ms: 99 of 100 were quicker.
        p999_ms: 999 of 1000 were quicker.
        max_ms: The slowest.
        cpu_cores: CPU that the worker used per second.
    """

    guarantee: str
    rate: int
    seconds: float
    records: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_cores: float


class LoadNotKeptError(Exception):
    """The producer could not keep its schedule, or records are missing: nothing was measured."""


async def measure(
    log: Log,
    broker: str,
    guarantee: str,
    *,
    rate: int = RATE,
    warm_up_s: float = 4.0,
    seconds: float = 15.0,
    command: tuple[str, ...] = (sys.executable,),
) -> Latency:
    """Run ``filter`` under a steady load and return its latencies.

    Raises:
        LoadNotKeptError: If the load was not what it should be, or a record is missing.
        EngineFailedError: If the worker ends by itself.
    """
    run = Run.new("filter", broker, "")
    source = f"{run.job}-input"
    run = Run("filter", broker, run.job, source, run.sink, guarantee, command)
    await new_topic(log, source)
    await new_topic(log, run.sink)
    count = int((warm_up_s + seconds) * rate)
    with Engine(run) as engine, tempfile.TemporaryDirectory() as folder:
        engine.start()
        await _wait_ready(log, engine)
        arrivals = Path(folder) / "arrivals.npy"
        consumer = _process("consume", broker, run.sink, str(_expected(count)), str(arrivals))
        producer = _process("produce", broker, source, str(count), str(rate))
        await asyncio.sleep(warm_up_s)
        before, began_s = engine.usage(), time.monotonic()
        await asyncio.sleep(seconds)
        after, ended_s = engine.usage(), time.monotonic()
        produced = json.loads(await _output(producer, DRAIN_TIMEOUT_S))
        await _output(consumer, DRAIN_TIMEOUT_S)
        orders, arrived_s = np.load(arrivals)
        if len(command) > 1:
            engine.stop()
    if produced["behind_s"] > 1.0:
        raise LoadNotKeptError(f"the producer fell {produced['behind_s']:.1f} s behind")
    if len(np.unique(orders)) != _expected(count):
        raise LoadNotKeptError(f"{len(np.unique(orders))} of {_expected(count)} records arrived")
    _, first = np.unique(orders, return_index=True)  # at least once: the first arrival counts
    orders, arrived_s = orders[first], arrived_s[first]
    measured = orders >= warm_up_s * rate
    created_s = produced["start_s"] + orders[measured] / rate
    latencies_ms = (arrived_s[measured] - created_s) * 1000
    p50, p95, p99, p999 = np.percentile(latencies_ms, (50, 95, 99, 99.9))
    return Latency(
        guarantee=guarantee,
        rate=rate,
        seconds=seconds,
        records=int(measured.sum()),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        p999_ms=float(p999),
        max_ms=float(latencies_ms.max()),
        cpu_cores=(after.cpu_s - before.cpu_s) / (ended_s - began_s),
    )


def _amount(order: int) -> float:
    return float(order * 7 % 1000)


def _expected(count: int) -> int:
    return sum(_amount(order) >= AMOUNT_MIN for order in range(count))


async def _wait_ready(log: Log, engine: Engine) -> None:
    """Wait for the first commit: the task runs."""
    deadline_s = time.monotonic() + 30
    changelog = TopicPartition(engine.run.changelog, 0)
    while time.monotonic() < deadline_s:
        engine.check()
        if await log.describe_topic(changelog.topic) is not None:
            span = (await log.offsets([changelog]))[changelog]
            if span.end > span.start:
                return
        await asyncio.sleep(0.05)
    raise engine.failed("was not ready within 30 s")


def _process(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.latency", *arguments], cwd=ROOT, stdout=subprocess.PIPE
    )


async def _output(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    try:
        output, _ = await asyncio.to_thread(process.communicate, None, timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise LoadNotKeptError(f"{process.args} did not end in time") from None
    if process.returncode != 0:
        raise LoadNotKeptError(f"{process.args} failed")
    return output


# --- the processes beside the engine -------------------------------------------------------------


async def produce(broker: str, topic: str, count: int, rate: int) -> dict[str, float]:
    """Send ``count`` records on schedule; return when it began and how late it was at worst."""
    log = KafkaLog(broker)
    await log.start(TIMEOUT_MS)
    writer = await log.open_writer("", transactional=False, timeout_ms=TIMEOUT_MS)
    codec = ReferenceRecordBatchCodec()
    sent, behind_s = 0, 0.0
    start_s, start_ms = time.monotonic() + 0.2, time.time_ns() // 1_000_000 + 200
    while sent < count:
        now_s = time.monotonic()
        due = min(int((now_s - start_s) * rate) + 1, count)
        # As any Kafka producer: what is due while a request is under way goes with the next one.
        if due > sent and not writer.pending_bytes():
            behind_s = max(behind_s, now_s - start_s - sent / rate)
            orders = range(sent, due)
            users = [b"user-%06d" % (order * 7919 % KEYS) for order in orders]
            times = [start_ms + order * 1000 // rate for order in orders]
            values = [
                b'{"user":"%b","order":%d,"amount":%.2f,"ts":%d,"product":"product-%04d"}'
                % (user, order, _amount(order), ts, order % 1000)
                for user, order, ts in zip(users, orders, times, strict=True)
            ]
            for batch in codec.encode(users, values, times, None, BATCH_BYTES):
                writer.append(topic, 0, batch)
            sent = due
        await asyncio.sleep(max(TICK_S - (time.monotonic() - now_s), 0))
    await writer.flush(TIMEOUT_MS)
    await writer.close()
    await log.close()
    return {"start_s": start_s, "behind_s": behind_s}


async def consume(broker: str, topic: str, count: int, path: str) -> None:
    """Read committed records until there are ``count``; save order numbers and arrival times."""
    log = KafkaLog(broker)
    await log.start(TIMEOUT_MS)
    reader = await log.open_reader({TopicPartition(topic, 0): 0})
    codec = ReferenceRecordBatchCodec()
    decode = msgspec.json.Decoder(_Arrived).decode
    orders: list[int] = []
    arrived_s: list[float] = []
    seen: set[int] = set()
    while len(seen) < count:
        chunks = await reader.poll(1_000)
        now_s = time.monotonic()
        for chunk in chunks:
            found = [decode(value).order for value in codec.decode(chunk).values if value]
            orders.extend(found)
            arrived_s.extend([now_s] * len(found))
            seen.update(found)
    await reader.close()
    await log.close()
    np.save(path, np.array([orders, arrived_s]))


class _Arrived(msgspec.Struct):
    order: int


def main() -> None:
    """Run a producer or a consumer; started by ``measure``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    for role, last in (("produce", "rate"), ("consume", "path")):
        sub = roles.add_parser(role)
        sub.add_argument("broker")
        sub.add_argument("topic")
        sub.add_argument("count", type=int)
        sub.add_argument(last, type=int if last == "rate" else str)
    arguments = parser.parse_args()
    if arguments.role == "produce":
        result = asyncio.run(
            produce(arguments.broker, arguments.topic, arguments.count, arguments.rate)
        )
        print(json.dumps(result))
    else:
        asyncio.run(consume(arguments.broker, arguments.topic, arguments.count, arguments.path))


if __name__ == "__main__":
    main()
