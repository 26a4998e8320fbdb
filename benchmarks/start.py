"""A worker with nothing to do: how soon it is ready and gives a result, and its memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from riverrun.engine.log import TopicPartition
from tests.kafka_broker import free_port

from .engine import Engine, Run
from .held import next_values
from .machine import memory_mb
from .orders import OrderStream, new_topic, preload, start_of_day_before_ms

if TYPE_CHECKING:
    from riverrun.engine.log import Log

IDLE_S = 2.0
TOPIC = "few-orders"


@dataclass(frozen=True, slots=True)
class Start:
    """Fresh starts.

    Attributes:
        ready_s: From the start of the process until ``/readyz`` says yes; the middle one.
        first_result_s: The same until its first result is readable.
        idle_mb: Resident memory when it is ready and has processed the few records there are.
        all_s: All starts, ready and first result.
        plane: Data plane that ran.
    """

    ready_s: float
    first_result_s: float
    idle_mb: float
    all_s: tuple[tuple[float, float], ...]
    plane: str


async def measure(log: Log, broker: str, times: int = 3) -> Start:
    """Start ``filter`` on a topic with a few records, several times.

    Raises:
        EngineFailedError: If a worker ends, or gives no result.
    """
    await preload(log, TOPIC, OrderStream(2_000, start_ms=start_of_day_before_ms()))
    taken: list[tuple[float, float]] = []
    idle_mb: list[float] = []
    plane = ""
    for _ in range(times):
        run = Run.new("filter", broker, TOPIC)
        await new_topic(log, run.sink)
        reader = await log.open_reader({TopicPartition(run.sink, 0): 0})
        port = free_port()
        with Engine(run, options=("--http", f"127.0.0.1:{port}")) as engine:
            engine.start()
            ready = asyncio.create_task(_ready_s(engine, port))
            await next_values(reader, engine)
            first_s = time.monotonic() - engine.started_s
            taken.append((await ready, first_s))
            await asyncio.sleep(IDLE_S)
            idle_mb.append(memory_mb(engine.pid))
            plane = engine.plane
        await reader.close()
    ready_s, first_result_s = (statistics.median(each) for each in zip(*taken, strict=True))
    return Start(ready_s, first_result_s, statistics.median(idle_mb), tuple(taken), plane)


async def _ready_s(engine: Engine, port: int) -> float:
    await engine.ready(port)
    return time.monotonic() - engine.started_s
