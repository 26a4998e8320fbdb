"""The flights of 2013, from topic to topic: every row equal to what Polars finds in the file."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl
import pytest

from examples.flights.data import load_flights
from examples.flights.expected import HOUR_MS, expected_delays
from riverrun.connectors.kafka import KafkaLog
from riverrun.connectors.local import LocalLog
from riverrun.engine.log import FOREVER_MS, Log, TopicPartition, TopicSpec
from riverrun.engine.planes import select_plane
from riverrun.engine.restore import read_range

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4
DEADLINE_S = 180
DAY_MS = 24 * HOUR_MS
CODEC = select_plane().record_batches


async def load(log: Log) -> None:
    """Write the flights, in the order of their departure, and what ends the year."""
    await log.create_topics([TopicSpec("flights", PARTITIONS, retention_ms=FOREVER_MS)])
    writer = await log.open_writer("flights-loader", transactional=True, timeout_ms=30_000)
    table = load_flights()
    last_ms = table["time_hour"].max()
    assert isinstance(last_ms, int)
    # Nothing is late any more, three days later: without it the last day would stay open.
    end = {"origin": "END", "dep_delay": None, "time_hour": last_ms + 3 * DAY_MS}
    for partition in range(PARTITIONS):
        rows = table.gather_every(PARTITIONS, partition).to_dicts()
        values: list[bytes | None] = [orjson.dumps(row) for row in [*rows, end]]
        times = [row["time_hour"] for row in [*rows, end]]
        for batch in CODEC.encode([None] * len(values), values, times, None, 900_000):
            writer.append("flights", partition, batch)
    await writer.commit(60_000)
    await writer.close()


async def read_delays(log: Log) -> list[dict[str, Any]]:
    """Return what is committed in the output topic."""
    info = await log.describe_topic("delays")
    if info is None:
        return []
    wanted = [TopicPartition("delays", number) for number in range(info.partitions)]
    rows: list[dict[str, Any]] = []
    for where, span in (await log.offsets(wanted)).items():
        async for records in read_range(log, where, span.start, span.end, CODEC):
            rows.extend(orjson.loads(value) for value in records.values if value is not None)
    return rows


def start_worker(address: str, state: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "riverrun", "worker", "examples.flights.topology"]
    command += ["--broker", address, "--state-dir", str(state)]
    with output.open("wb") as sink:
        return subprocess.Popen(command, cwd=ROOT, stdout=sink, stderr=sink)


async def run_and_compare(open_log: Callable[[], Log], address: str, state: Path) -> None:
    expected = expected_delays()
    log = open_log()
    await log.start(30_000)
    await load(log)
    output = state.with_name("worker.log")
    worker = start_worker(address, state, output)
    try:
        rows: list[dict[str, Any]] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(rows) < expected.height and time.monotonic() < deadline:
            assert worker.poll() is None, output.read_text()
            rows = await read_delays(log)
        worker.terminate()
        assert worker.wait(60) == 0, output.read_text()
        rows = await read_delays(log)
    finally:
        worker.kill()
        worker.wait(10)
        await log.close()
    assert len(rows) == expected.height, output.read_text()
    found = pl.DataFrame(rows, infer_schema_length=None)
    assert (found["window_end"] - found["window_start"] == HOUR_MS).all()
    found = found.select(expected.columns).sort("window_start", "origin")
    assert found.equals(expected)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_flights_on_the_embedded_log_equal_polars(tmp_path: Path) -> None:
    path = tmp_path / "log"
    await run_and_compare(lambda: LocalLog(path), f"local:{path}", tmp_path / "state")


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.timeout(300)
async def test_flights_on_kafka_equal_polars(kafka: str, tmp_path: Path) -> None:
    await run_and_compare(lambda: KafkaLog(kafka), f"kafka://{kafka}", tmp_path / "state")
