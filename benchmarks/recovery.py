"""Recovery after ``kill -9`` by size of state, and what making a snapshot of it costs meanwhile."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tests.s3_server import s3_server

from .held import HeldState
from .load import Load, apply

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from riverrun.engine.log import Log

    from .load import Floats

LOCAL, SNAPSHOT = "local disk kept", "bare, snapshot in S3"
BUCKET = "benchmarks"

RATE = 10_000
"""Records per second while snapshots are made."""
LOOK_S = 0.003
LEAD_S = 0.5
"""Before its directory can be seen a checkpoint has flushed what is in memory already."""
TRAIL_S = 0.1
WARM_UP_S = 3.0
INTERVAL = "8s"
"""Long enough that the first snapshot, of everything, comes after the warm-up."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Restarts after ``kill -9``.

    Attributes:
        source: Where the state came from, ``LOCAL`` or ``SNAPSHOT``.
        state_mb: Size of the payloads that the state is made of.
        build_s: How long it took to fill it.
        first_result_s: From the start of the new process until its first new result is readable.
        all_s: All restarts; ``first_result_s`` is the middle one.
        plane: Data plane that the worker said it ran on.
    """

    source: str
    state_mb: float
    build_s: float
    first_result_s: float
    all_s: tuple[float, ...]
    plane: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What records see of snapshots.

    Attributes:
        state_mb: Size of the state.
        rate: Records created per second meanwhile; at least once, so that no commit is part of
            their latency.
        snapshots: How many were made.
        snapshot_s: How long the longest took, from the checkpoint to the end of its upload.
        p99_during_ms: Of records created while a snapshot was made.
        p99_between_ms: Of the others.
        pause_p99_ms: ``p99_during_ms`` less the median of the others: what stands still for a
            snapshot, and all else that happens to be slow meanwhile.
        pause_ms: The slowest record of a snapshot, less the median of the others: the middle of
            all snapshots.
        pause_max_ms: The same of the worst of them.
    """

    state_mb: float
    rate: int
    snapshots: int
    snapshot_s: float
    p99_during_ms: float
    p99_between_ms: float
    pause_p99_ms: float
    pause_ms: float
    pause_max_ms: float


@dataclass(frozen=True, slots=True)
class Found:
    """What one size of state was measured for; None and empty if it was not."""

    recoveries: list[Recovery]
    checkpoint: Checkpoint | None


async def measure(
    log: Log,
    broker: str,
    state_mb: int,
    *,
    recovery: bool,
    checkpoint_s: float = 0.0,
    times: int = 3,
) -> Found:
    """Build state, then restart from the local disk, load it, and restart from a snapshot.

    Args:
        log: Where the topics are.
        broker: The same, ``host:port``.
        state_mb: How much state.
        recovery: Whether restarts are measured.
        checkpoint_s: How long it is measured what snapshots cost; 0 for not at all.
        times: Restarts from the local disk; from the snapshot there is one less.

    Raises:
        WrongOutputError: If a result after a restart does not follow from all visits before it.
        LoadNotKeptError: If the load was not kept.
        EngineFailedError: If the worker ends by itself, or is not done in time.
    """
    found: list[Recovery] = []
    checkpoint = None
    with HeldState(log, broker, state_mb) as held:
        await held.build()
        if recovery:
            taken = [await held.restart() for _ in range(times)]
            found.append(_recovery(LOCAL, held, taken))
        if checkpoint_s:
            with tempfile.TemporaryDirectory(prefix="riverrun-bench-") as folder:
                checkpoint = await _checkpoint(held, broker, folder, checkpoint_s)
        if recovery:
            with s3_server(BUCKET) as settings:
                held.snapshots_to(f"s3://{BUCKET}/state", settings, "1s")
                before = await held.snapshot_id()
                await held.restart()
                await held.wait_snapshot(before)
                held.snapshots_to(f"s3://{BUCKET}/state", settings, "1h")
                taken = [await held.restart(bare=True) for _ in range(times - 1)]
            found.append(_recovery(SNAPSHOT, held, taken))
    return Found(found, checkpoint)


def _recovery(source: str, held: HeldState, taken: Sequence[float]) -> Recovery:
    middle_s, plane = statistics.median_low(taken), held.engine.plane
    return Recovery(source, held.size_mb, held.build_s, middle_s, tuple(taken), plane)


async def _checkpoint(held: HeldState, broker: str, folder: str, seconds: float) -> Checkpoint:
    """Make snapshots of a worker under load, and see which of its records they hold up."""
    engine = held.engine
    held.snapshots_to(f"file://{folder}", {}, INTERVAL)
    exactly_once = engine.run
    engine.run = replace(exactly_once, guarantee="at_least_once")
    await held.restart()
    # What building the state wrote, a gigabyte each for broker and store, is no snapshot's.
    await asyncio.to_thread(os.sync)
    load = Load("visits", RATE, int((WARM_UP_S + seconds) * RATE))
    seen: list[tuple[float, float]] = []
    watch = asyncio.create_task(_watch(engine.state_dir / "checkpoints", seen))
    loaded = await apply(load, engine, broker, WARM_UP_S)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    # It may be at a snapshot, in the folder that goes now.
    engine.kill()
    first_s, last_s = loaded.created_s[[0, -1]]
    # One that began in the warm-up is no quiet time either.
    spans = [
        (began_s, ended_s) for began_s, ended_s in seen if began_s < last_s and ended_s > first_s
    ]
    if not spans:
        raise engine.failed(f"made no snapshot within {seconds:.0f} s")
    if any(began_s - LEAD_S < first_s and ended_s + TRAIL_S > last_s for began_s, ended_s in spans):
        raise engine.failed(f"took all of {seconds:.0f} s for one snapshot")
    engine.run = exactly_once
    return checkpoint_of(held.size_mb, RATE, spans, loaded.created_s, loaded.latencies_ms)


async def _watch(folder: Path, seen: list[tuple[float, float]]) -> None:
    """Note when checkpoints appear, and when they are gone since they are uploaded.

    Of one that is there until this is cancelled, the end is then.
    """
    here: dict[str, float] = {}
    try:
        while True:
            now_s = time.monotonic()
            # RocksDB writes to NAME.tmp first.
            there = folder.iterdir() if folder.exists() else ()
            names = {path.name.partition(".")[0] for path in there}
            for name in names - here.keys():
                here[name] = now_s
            seen += [(here.pop(name), now_s) for name in here.keys() - names]
            await asyncio.sleep(LOOK_S)
    finally:
        seen += [(began_s, time.monotonic()) for began_s in here.values()]


def checkpoint_of(
    state_mb: float,
    rate: int,
    spans: Sequence[tuple[float, float]],
    created_s: Floats,
    latencies_ms: Floats,
) -> Checkpoint:
    """Tell records that were created while a snapshot was made from the others.

    Args:
        state_mb: Size of the state.
        rate: Records per second.
        spans: Of each snapshot, when its checkpoint appeared and when it was gone.
        created_s: Scheduled creation of the records.
        latencies_ms: Their latencies.
    """
    parts = [
        (created_s >= began_s - LEAD_S) & (created_s <= ended_s + TRAIL_S)
        for began_s, ended_s in spans
    ]
    during = np.any(parts, axis=0)
    during_p99_ms = float(np.percentile(latencies_ms[during], 99))
    between_ms = latencies_ms[~during]
    usual_ms = float(np.median(between_ms))
    worst_ms = [float(latencies_ms[part].max()) - usual_ms for part in parts if part.any()]
    return Checkpoint(
        state_mb=state_mb,
        rate=rate,
        snapshots=len(spans),
        snapshot_s=max(ended_s - began_s for began_s, ended_s in spans),
        p99_during_ms=during_p99_ms,
        p99_between_ms=float(np.percentile(between_ms, 99)),
        pause_p99_ms=during_p99_ms - usual_ms,
        pause_ms=statistics.median(worst_ms),
        pause_max_ms=max(worst_ms),
    )
