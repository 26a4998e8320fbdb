"""One worker process, from options to its end: what ``run`` and ``worker`` have in common."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import re
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from riverrun.engine.clock import SystemClock
from riverrun.engine.failpoints import failpoints_from
from riverrun.engine.graph import SourceNode
from riverrun.engine.http import HttpServer, worker_routes
from riverrun.engine.log import FOREVER_MS, TopicSpec
from riverrun.engine.metrics import Metrics
from riverrun.engine.setup import prepare_topics
from riverrun.engine.worker import Worker
from riverrun.engine.worker_state import LocalWorkerState
from riverrun.state import (
    BlobStoreError,
    StateDirectory,
    StateDirectoryInUseError,
    open_blob_store,
    replicated,
)

from .brokers import is_local, opened_log
from .command import EXIT_INTERRUPTED, EXIT_OK, UsageError, print_note
from .progress import RestoreProgress

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Sequence

    from riverrun.engine.config import StateMemory, WorkerSettings
    from riverrun.engine.log import Log
    from riverrun.engine.plan import Plan, ResolvedPlan
    from riverrun.engine.plane import Plane
    from riverrun.state import BlobStore

    from .arguments import HttpAddress

_log = logging.getLogger("riverrun.cli")

DIRECTORIES_MAX = 64
"""Workers of one job on one machine that find a state directory by themselves."""

SWITCH_INTERVAL_S = 0.001
"""How long a thread waits for the interpreter before it asks for it: a fifth of Python's own.

Whoever processes records asks for it many times in a batch, and the state is written to disk
meanwhile: a record would wait each time."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What one worker process needs besides its plan.

    Attributes:
        arguments: The command line, for the broker.
        settings: How the worker runs.
        plane: Data plane that it runs on.
        state_dir: Its state directory; None to find a free one.
        state_memory: What it may take to have state in memory.
        snapshots: URLs of snapshot storage; several are replicas.
        http: Where to serve metrics and health; None for nowhere.
        create_sources: Partitions to create missing source topics with; None: they must exist.
        stop_at_stdin_end: Whether to stop when stdin ends, because the parent is gone.
    """

    arguments: argparse.Namespace
    settings: WorkerSettings
    plane: Plane
    state_dir: Path | None
    state_memory: StateMemory
    snapshots: Sequence[str]
    http: HttpAddress | None
    create_sources: int | None = None
    stop_at_stdin_end: bool = False


def run_worker(plan: Plan, options: WorkerOptions) -> int:
    """Run one worker until it is stopped; return the exit code.

    Raises:
        RiverrunError: What stopped it.
        StateError: If the state directory or the storage cannot be used.
    """
    # Records pass through the loop many times: docs/decisions/0014-uvloop.md.
    return uvloop.run(_WorkerProcess(plan, options).run())


class _WorkerProcess:
    def __init__(self, plan: Plan, options: WorkerOptions) -> None:
        self._plan = plan
        self._options = options
        self._worker: Worker | None = None
        self._main: asyncio.Task[Any] | None = None
        self._stopping = False

    async def run(self) -> int:
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        if self._options.stop_at_stdin_end:
            _watch_stdin(loop, self._stop)
        try:
            await self._serve()
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        return EXIT_OK

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping and number == signal.SIGINT:
            # Asked twice: the next start repeats the open epoch, as after a crash.
            print_note("not waiting for the last commit")
            os._exit(EXIT_INTERRUPTED)
        if not self._stopping:
            print_note(f"{number.name}: committing and leaving")
        self._stop()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        if self._worker is not None:
            self._worker.stop()
        elif self._main is not None:
            self._main.cancel()

    async def _serve(self) -> None:
        options = self._options
        blobs = open_snapshots(options.snapshots)
        # Before anything is touched: a mistyped failpoint is an error, not a run without it.
        failpoint = failpoints_from(os.environ)
        async with contextlib.AsyncExitStack() as stack:
            log = await stack.enter_async_context(opened_log(options.arguments))
            if options.create_sources is not None:
                await create_missing_sources(log, self._plan, options.create_sources)
            resolved, _ = await prepare_topics(log, self._plan)
            directory = stack.enter_context(self._open_directory())
            metrics = Metrics(self._plan.job, directory.instance_id)
            metrics.plane.labels(**metrics.labels(plane=options.plane.name)).set(1)
            worker = Worker(
                self._plan,
                log,
                options.plane,
                SystemClock(),
                metrics,
                options.settings,
                LocalWorkerState(
                    directory, blobs, RestoreProgress(_log.info), options.state_memory
                ),
                failpoint,
            )
            url = await stack.enter_async_context(served(options.http, worker, metrics))
            self._announce(resolved, directory.path, url)
            if self._stopping:
                return
            self._worker = worker
            _spare_the_collector()
            _keep_freed_memory()
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            await worker.run()

    def _open_directory(self) -> StateDirectory:
        if self._options.state_dir is not None:
            return StateDirectory(self._options.state_dir)
        return open_free_directory(
            default_state_directory(self._options.arguments.broker, self._plan.job)
        )

    def _announce(self, resolved: ResolvedPlan, state: Path, url: str | None) -> None:
        """Print the one line that tells what runs."""
        parts = [
            f"job {self._plan.job}",
            f"broker {self._options.arguments.broker}",
            f"plane {self._options.plane.name}",
            f"tasks {len(resolved.task_ids())}",
            self._options.settings.task.guarantee.replace("_", " "),
            f"state {_short(state)}",
        ]
        if url is not None:
            parts.append(url)
        print(f"riverrun: {', '.join(parts)}", flush=True)


def _spare_the_collector() -> None:
    """Keep the garbage collector away from what lives as long as the process.

    Modules, classes and the plan are about 200,000 objects, looked through again and again for
    nothing, tens of milliseconds at a time. What batches leave behind is freed by its reference
    counts; cycles, of which there are few, are still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 64 * 1024 * 1024
_MAPPED_FROM_BYTES = 32 * 1024 * 1024  # the most that glibc takes


def _keep_freed_memory() -> None:
    """Have glibc keep some memory that batches leave behind, for the batches that come.

    As a rule it gives blocks of megabytes back at once, and the kernel of the machine clears each
    page anew when the next batch asks for it: a tenth of the processor time at full load.
    """
    # Other C libraries have no such function, or none that does anything.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)


def _short(path: Path) -> Path:
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: Any) -> None:
    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4_096):
            pass
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop)

    # A daemon: it is blocked in a read when the process ends.
    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextlib.asynccontextmanager
async def served(
    address: HttpAddress | None, worker: Worker, metrics: Metrics
) -> AsyncGenerator[str | None, None]:
    """Serve metrics and health of a worker; yields the URL, None if not served."""
    if address is None:
        yield None
        return
    server = HttpServer(worker_routes(worker.status, metrics.render))
    await server.start(address.host, address.port)
    try:
        yield server.url
    finally:
        await server.close()


def open_snapshots(urls: Sequence[str]) -> BlobStore | None:
    """Return the storage of snapshots; several URLs are replicas of each other.

    Raises:
        UsageError: If a URL makes no sense.
    """
    try:
        return replicated([open_blob_store(url) for url in urls]) if urls else None
    except BlobStoreError as error:
        raise UsageError(f"--snapshots: {error}") from error


async def create_missing_sources(log: Log, plan: Plan, partitions: int) -> None:
    """Create the source topics that are missing and do not say how they are to be created."""
    for node in plan.graph.nodes.values():
        if not isinstance(node, SourceNode) or node.partitions is not None:
            continue
        if await log.describe_topic(node.topic) is None:
            await log.create_topics([TopicSpec(node.topic, partitions, retention_ms=FOREVER_MS)])
            print_note(f"topic {node.topic} was missing and is created, {partitions} partitions")


def default_state_directory(broker: str, job: str) -> Path:
    """Return where the state of a job goes that reads from ``broker``.

    State belongs to a log: beside it if it is ours, otherwise in a directory named after it.
    """
    if is_local(broker):
        from riverrun.connectors.local import parse_local_address

        return parse_local_address(broker) / "state" / job
    return Path(".riverrun") / re.sub(r"[^A-Za-z0-9._-]+", "-", broker) / "state" / job


def open_free_directory(first: Path) -> StateDirectory:
    """Open ``first``, or the first of ``first.2``, ``first.3``, ... that no worker uses.

    After a restart the same one is found again, as far as the others still run.

    Raises:
        StateDirectoryInUseError: If all are in use.
        StateError: If one cannot be used.
    """
    for number in range(1, DIRECTORIES_MAX):
        path = first if number == 1 else first.with_name(f"{first.name}.{number}")
        try:
            return StateDirectory(path)
        except StateDirectoryInUseError:
            continue
    raise StateDirectoryInUseError(
        f"{DIRECTORIES_MAX} workers use {first} and the directories beside it; "
        "give this one a --state-dir of its own"
    )
