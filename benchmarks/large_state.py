"""State of far more keys than a worker keeps in memory at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from .engine import Engine, Run
from .orders import OrderStream, parse, preload, read_all, start_of_day_before_ms
from .throughput import WrongOutputError

if TYPE_CHECKING:
    from riverrun.engine.log import Log

RECORDS_PER_KEY = 1.2
"""The last sixth of the records finds keys that were written long before."""
TIMEOUT_S = 400.0


@dataclass(frozen=True, slots=True)
class LargeState:
    """What a worker does whose keys do not fit into its caches.

    Attributes:
        keys: Distinct keys.
        state_memory: What the worker may take to have state in memory.
        records: Records processed.
        per_cpu_s: Records per second of CPU, start-up included.
        per_wall_s: Records per second of wall time, start-up included.
        peak_mb: Largest resident memory.
        state_mb: Size of the state on disk, where it is compressed.
        plane: Data plane that ran.
    """

    keys: int
    state_memory: str
    records: int
    per_cpu_s: float
    per_wall_s: float
    peak_mb: float
    state_mb: float
    plane: str


async def measure(log: Log, broker: str, keys: int, state_memory: str) -> LargeState:
    """Count records per key, and check the counts of a sample of the keys.

    Args:
        log: Where the topics are.
        broker: Its address.
        keys: Distinct keys.
        state_memory: What the worker may take to have state in memory.

    Raises:
        WrongOutputError: If a count is missing or wrong.
        EngineFailedError: If the worker ends by itself or takes too long.
    """
    records = int(keys * RECORDS_PER_KEY)
    stream = OrderStream(records, keys, 10_000, start_of_day_before_ms(), in_turn=True)
    run = Run.new("large-state", broker, f"orders-{keys}-in-turn")
    await preload(log, run.source, stream)
    with Engine(run, options=("--state-memory", state_memory)) as engine:
        engine.start()
        await engine.wait_committed(log, 1, TIMEOUT_S)
        wall_s = time.monotonic() - engine.started_s
        usage, plane = engine.usage(), engine.plane
        engine.stop()  # what is in memory goes to disk too
        state_mb = engine.state_bytes() / 1e6
    values = await read_all(log, run.sink)
    await asyncio.to_thread(_check, stream, values)
    return LargeState(
        keys,
        state_memory,
        records,
        records / usage.cpu_s,
        records / wall_s,
        usage.peak_mb,
        state_mb,
        plane,
    )


def _check(stream: OrderStream, values: list[bytes]) -> None:
    expected = stream.expected_counts()
    # Each update of a count comes out; the last one is the count.
    found = last_of_each(parse(values, expected))
    if not found.equals(expected):
        missing = expected.join(found, on=expected.columns, how="anti")
        raise WrongOutputError(
            f"{missing.height} of {expected.height} counts are missing or wrong, "
            f"like {missing.head(2).to_dicts()}"
        )


def last_of_each(updates: pl.DataFrame) -> pl.DataFrame:
    """Return the last of the updates of each user, in order of user."""
    return updates.group_by("user").agg(pl.col("orders").last()).sort("user")
