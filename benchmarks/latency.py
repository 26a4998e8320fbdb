"""Latency: steady loads, and how long after its scheduled creation each record is readable."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from riverrun.engine.log import TopicPartition

from .engine import Engine, Run
from .load import Load, apply
from .orders import new_topic

if TYPE_CHECKING:
    from riverrun.engine.log import Log


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
        plane: Data plane that the worker said it ran on.
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
    plane: str = ""


async def measure(
    log: Log,
    broker: str,
    guarantee: str,
    *,
    rate: int,
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
    load = Load("orders", rate, int((warm_up_s + seconds) * rate))
    with Engine(run) as engine:
        engine.start()
        await wait_ready(log, engine)
        loaded = await apply(load, engine, broker, warm_up_s)
        plane = engine.plane
        if len(command) > 1:
            engine.stop()  # a profiler has to write down what it has seen
    found_ms = loaded.latencies_ms
    p50, p95, p99, p999 = np.percentile(found_ms, (50, 95, 99, 99.9))
    return Latency(
        guarantee=guarantee,
        rate=rate,
        seconds=seconds,
        records=len(found_ms),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        p999_ms=float(p999),
        max_ms=float(found_ms.max()),
        cpu_cores=loaded.cpu_cores,
        plane=plane,
    )


async def wait_ready(log: Log, engine: Engine) -> None:
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
