"""Scaling over processes: the same job, drained by one worker and by several.

Once with all of the machine, which one worker and the broker may fill already. And once with a
limit on the processor time of each worker, as containers have it: then a worker that is added
brings what it takes, and it shows whether its throughput comes with it.

The workers are ready, with their tasks, before the first record is there: they are stopped by a
signal while the topic is filled, and go on together. So neither starting nor sharing out the tasks
is part of the time, and filling does not take the machine from them.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.kafka_broker import free_port

from .cpu_limit import cpu_limit
from .engine import Engine, Run
from .orders import OrderStream, fill, new_topic, start_of_day_before_ms
from .throughput import DRAIN_TIMEOUT_S, check

if TYPE_CHECKING:
    from riverrun.engine.log import Log

PARTITIONS = 4
CORES_EACH = 0.25
"""The limit: four workers and the broker have room on two cores."""
STEPS: tuple[tuple[float | None, int], ...] = (
    (CORES_EACH, 1),
    (CORES_EACH, 2),
    (CORES_EACH, 4),
    (None, 1),
    (None, 2),
)
"""Cores of each worker, None without a limit, and how many workers."""
SESSION_TIMEOUT = "300s"
"""Longer than filling the topic takes: the group must not miss workers that are stopped."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a number of processes does.

    Attributes:
        processes: How many.
        records: Records drained.
        wall_s: From when they went on until all was committed.
        cpu_s: CPU of all of them in that time.
        plane: Data plane that ran.
        cores_each: Cores that each worker may take; None for no limit.
    """

    processes: int
    records: int
    wall_s: float
    cpu_s: float
    plane: str
    cores_each: float | None = None

    @property
    def per_wall_s(self) -> float:
        """Records per second of wall time."""
        return self.records / self.wall_s

    @property
    def per_cpu_s(self) -> float:
        """Records per second of CPU of a worker."""
        return self.records / self.cpu_s

    @property
    def sum_of_cores_s(self) -> float:
        """Records per second of CPU, of all processes together: what they do with a core each."""
        return self.per_cpu_s * self.processes

    @property
    def cores(self) -> float:
        """Cores that the workers had, of those that they share with the broker."""
        return self.cpu_s / self.wall_s


async def measure(
    log: Log, broker: str, processes: int, records: int, keys: int, cores_each: float | None
) -> Scaling:
    """Drain ``window`` with a number of workers, and check what came out.

    Raises:
        NoLimitError: If the processor time of processes cannot be limited here.
        WrongOutputError: If a result is missing, twice, or not what it should be.
        EngineFailedError: If a worker ends by itself or takes too long.
    """
    run = Run.new("window", broker, "")
    run = Run("window", broker, run.job, f"{run.job}-input", run.sink)
    stream = OrderStream(records, keys, 10_000, start_of_day_before_ms(), PARTITIONS)
    await new_topic(log, run.source, PARTITIONS)
    # The limits go after the workers: only empty groups can be removed.
    with ExitStack() as limits, ExitStack() as stack:
        engines: list[Engine] = []
        ports = [free_port() for _ in range(processes)]
        for port in ports:
            options = ("--http", f"127.0.0.1:{port}", "--session-timeout", SESSION_TIMEOUT)
            engine = stack.enter_context(Engine(run, options=options))
            engine.start()
            engines.append(engine)
        for engine, port in zip(engines, ports, strict=True):
            await engine.ready(port, PARTITIONS // processes)
        for engine in engines:
            engine.send(signal.SIGSTOP)
        await fill(log, run.source, stream)
        if cores_each is not None:
            for engine in engines:
                limits.enter_context(cpu_limit(cores_each))(engine.pid)
        before_s = [engine.usage().cpu_s for engine in engines]
        began_s = time.monotonic()
        for engine in engines:
            engine.send(signal.SIGCONT)
        for engine in engines:
            await engine.wait_committed(log, PARTITIONS, DRAIN_TIMEOUT_S)
        wall_s = time.monotonic() - began_s
        cpu_s = sum(engine.usage().cpu_s for engine in engines) - sum(before_s)
        plane = engines[0].plane
    await check(log, run, stream)
    return Scaling(processes, records, wall_s, cpu_s, plane, cores_each)
