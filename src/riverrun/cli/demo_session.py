"""One run of the demo: generator, worker, reader and picture in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from riverrun.connectors.local import LocalLog
from riverrun.engine.clock import SystemClock
from riverrun.engine.config import TaskSettings, WorkerSettings
from riverrun.engine.log import TopicPartition
from riverrun.engine.metrics import Metrics
from riverrun.engine.output import OutputBuffer
from riverrun.engine.plan import make_plan
from riverrun.engine.planes import select_plane
from riverrun.engine.setup import prepare_topics
from riverrun.engine.worker import Worker
from riverrun.engine.worker_state import LocalWorkerState
from riverrun.state import StateDirectory, open_blob_store

from . import demo_screen
from .command import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, CommandFailedError
from .consume_lines import TopicReader, find_topic
from .demo_job import (
    ORDERS,
    PARTITIONS,
    REVENUE,
    WINDOW_MS,
    OrderBook,
    Results,
    find_differences,
    make_topology,
)
from .demo_screen import Readings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from riverrun.engine.log import Log
    from riverrun.engine.plan import Plan, ResolvedPlan

TICK_S = 0.05
"""Between two batches of orders."""

FRAME_S = 0.25
"""Between two pictures."""

PLAIN_LINE_FRAMES = 4
"""Without a terminal: frames between two lines as long as no window has closed."""

TRIM_S = 30.0
"""How often records that are processed and committed are deleted, for demos that run for days."""

DRAIN_S = 20.0
"""How long the last windows may take after the last order."""

SNAPSHOT_INTERVAL_MS = 15_000
DAY_MS = 86_400_000
DIFFERENCES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a run is to be like.

    Attributes:
        rate: Orders per second.
        speed: How many times as fast as the clock event time runs.
        duration_s: When to end; None: at Ctrl-C.
    """

    rate: int
    speed: int
    duration_s: int | None


class DemoSession:
    """One run, in a temporary directory that is gone afterwards.

    Args:
        options: What it is like.
    """

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._clock = SystemClock()
        self._began_ms = self._clock.monotonic_ms()
        # The orders of yesterday, replayed.
        now_ms = self._clock.now_ms() - DAY_MS
        self._start_ms = now_ms - now_ms % WINDOW_MS
        self._book = OrderBook(random.Random())
        self._results = Results()
        self._readings = Readings()
        self._closable_ms: dict[int, int] = {}  # {window: when all its orders were written}
        self._screen = _Screen()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run until the time is over or Ctrl-C; return the exit code.

        Raises:
            RiverrunError: If the worker fails.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        with (
            tempfile.TemporaryDirectory(prefix="riverrun-demo-") as folder,
            self._screen,
        ):
            log = LocalLog(Path(folder) / "log")
            try:
                await log.start(10_000)
                await self._run_on(log, Path(folder))
            finally:
                await log.close()
        return self._conclude()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._screen.restore()
            os._exit(EXIT_INTERRUPTED)
        self._stop.set()

    async def _run_on(self, log: Log, folder: Path) -> None:
        plan = make_plan(make_topology().graph)
        resolved, _ = await prepare_topics(log, plan)
        metrics = Metrics(plan.job, "demo")
        snapshots = open_blob_store((folder / "snapshots").as_uri())
        task = TaskSettings(snapshot_interval_ms=SNAPSHOT_INTERVAL_MS)
        with StateDirectory(folder / "state") as directory:
            worker = Worker(
                plan,
                log,
                select_plane(),
                self._clock,
                metrics,
                WorkerSettings(task=task),
                LocalWorkerState(directory, snapshots),
            )
            running = asyncio.create_task(worker.run())
            helpers = [
                asyncio.create_task(self._read_back(log)),
                asyncio.create_task(self._draw(_Gauges(metrics, plan, resolved))),
                asyncio.create_task(self._trim(log, plan)),
            ]
            try:
                await _first_failure([running, *helpers], self._generate(log))
                await _first_failure([running, *helpers], self._drain())
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
                worker.stop()
                await running

    # --- in ----------------------------------------------------------------------------------

    async def _generate(self, log: Log) -> None:
        """Write orders at the rate and speed that are wanted, until the end."""
        codec = select_plane().record_batches
        buffer = OutputBuffer(codec, {ORDERS: PARTITIONS}, {}, self._clock.now_ms)
        writer = await log.open_writer("generator", transactional=True, timeout_ms=10_000)
        began_ms = self._clock.monotonic_ms()
        try:
            while not self._is_over():
                elapsed_ms = self._clock.monotonic_ms() - began_ms
                due = elapsed_ms * self._options.rate // 1_000 - self._book.made
                # After a pause of the machine: rather a lower rate than one huge batch.
                count = min(due, self._options.rate)
                event_ms = self._start_ms + elapsed_ms * self._options.speed
                values, times, partitions = self._book.make(count, event_ms)
                if values:
                    keys = [None] * len(values)
                    buffer.write(ORDERS, keys, values, times, partitions=partitions)
                    for topic, partition, batch in buffer.drain():
                        writer.append(topic, partition, batch)
                    await writer.commit(10_000)
                    self._note_closable()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), TICK_S)
        finally:
            await writer.close()

    def _is_over(self) -> bool:
        duration_s = self._options.duration_s
        elapsed_s = (self._clock.monotonic_ms() - self._began_ms) / 1_000
        return self._stop.is_set() or (duration_s is not None and elapsed_s >= duration_s)

    def _note_closable(self) -> None:
        last = self._book.watermark_ms // WINDOW_MS * WINDOW_MS - WINDOW_MS
        self._closable_ms.setdefault(last, self._clock.monotonic_ms())

    async def _trim(self, log: Log, plan: Plan) -> None:
        """Delete what was processed a while ago, and so is committed."""
        where = [TopicPartition(t, n) for t in plan.input_topics() for n in range(PARTITIONS)]
        before = dict(await log.group_offsets(plan.job, where))
        while True:
            await asyncio.sleep(TRIM_S)
            offsets = dict(await log.group_offsets(plan.job, where))
            await log.delete_records(before)
            before = offsets

    # --- out ---------------------------------------------------------------------------------

    async def _read_back(self, log: Log) -> None:
        topic = await find_topic(log, REVENUE, wait=False)
        async for records in TopicReader(log, topic, from_end=False, follow=True).read():
            for value in records.values:
                window_ms = self._results.take(value).window_ms
                self._note_whole(window_ms)

    def _note_whole(self, window_ms: int) -> None:
        users = self._results.by_window[window_ms]
        wanted = sum(cell.window_ms == window_ms for cell in self._book.expected)
        if len(users) != wanted:
            return
        readings = self._readings
        readings.windows += 1
        readings.newest, readings.users = window_ms, users
        closable_ms = self._closable_ms.get(window_ms)
        if closable_ms is not None:
            readings.delay_ms = self._clock.monotonic_ms() - closable_ms
        self._screen.show_window(readings)

    async def _drain(self) -> None:
        """Wait until the windows that have closed are read back."""
        deadline_ms = self._clock.monotonic_ms() + int(DRAIN_S * 1_000)
        while not self._book.closed().keys() <= self._results.flat().keys():
            if self._clock.monotonic_ms() > deadline_ms:
                return
            await asyncio.sleep(0.05)

    async def _draw(self, gauges: _Gauges) -> None:
        last_ms, last_count = self._clock.monotonic_ms(), 0
        while True:
            await asyncio.sleep(FRAME_S)
            gauges.read_into(self._readings)
            now_ms, count = self._clock.monotonic_ms(), self._readings.records_in
            self._readings.rates.append((count - last_count) * 1_000 / max(now_ms - last_ms, 1))
            last_ms, last_count = now_ms, count
            self._readings.lag = max(self._book.made - count, 0)
            self._screen.show(self._readings)

    def _conclude(self) -> int:
        """Print what was done, and whether it is right."""
        book, results = self._book, self._results
        seconds = (self._clock.monotonic_ms() - self._began_ms) / 1_000
        print(
            f"{book.made:,} orders in, {results.count:,} results of {len(results.by_window):,} "
            f"windows out, {self._readings.commits:,} epochs committed in {seconds:.1f} s"
        )
        differences = find_differences(book, results)
        if not results.count:
            differences.append("no window closed; give it a longer --duration")
        if differences:
            for difference in differences[:DIFFERENCES_SHOWN]:
                print(f"WRONG: {difference}")
            return EXIT_FAILED
        counted = sum(amounts.orders for amounts in results.flat().values())
        until = demo_screen.clock_text(max(results.by_window) + WINDOW_MS)
        print(
            f"checked: all {counted:,} orders with a positive amount before {until}, where the "
            "last window closed, are in the results once; every total is equal to a recomputation"
        )
        return EXIT_OK


async def _first_failure(others: list[asyncio.Task[Any]], work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``; if one of ``others`` ends first, raise what it ended with."""
    own = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({own, *others}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if own not in done:
            raise CommandFailedError("a part of the demo ended by itself; please report it")
    finally:
        own.cancel()
        await asyncio.gather(own, return_exceptions=True)


class _Gauges:
    """Reads the worker's own metrics: what a Prometheus server would see."""

    def __init__(self, metrics: Metrics, plan: Plan, resolved: ResolvedPlan) -> None:
        self._metrics = metrics
        self._tasks = resolved.task_ids()
        self._last = plan.subtopologies[-1].id
        # The first step behind the source: what went into it was processed.
        self._first_step = plan.subtopologies[0].steps[0].name

    def read_into(self, readings: Readings) -> None:
        """Take the readings of now."""
        records = (
            self._value("step_records_total", step=self._first_step, partition=str(n))
            for n in range(PARTITIONS)
        )
        readings.records_in = int(sum(records))
        commits = (self._value("task_commits_total", task=str(task)) for task in self._tasks)
        readings.commits = int(sum(commits))
        marks = [
            int(self._value("task_watermark_ms", task=str(task)))
            for task in self._tasks
            if task.subtopology == self._last
        ]
        readings.watermark_ms = min(marks) if min(marks) > 0 else None
        readings.tasks = int(self._value("tasks", state="running"))

    def _value(self, name: str, **labels: str) -> float:
        full = self._metrics.labels(**labels)
        return self._metrics.registry.get_sample_value(f"riverrun_{name}", full) or 0.0


class _Screen:
    """Where readings are shown: a picture on a terminal, otherwise lines."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"
        self._has_colours = self._is_terminal and "NO_COLOR" not in os.environ
        self._height = 0
        self._frames = 0

    def __enter__(self) -> None:
        heading = "orders -> filter -> key_by user -> 1-minute windows -> revenue-per-minute"
        self._heading = f"riverrun demo: {heading}"
        if self._is_terminal:
            sys.stdout.write(demo_screen.HIDE_CURSOR)
        else:
            print(self._heading, flush=True)

    def __exit__(self, *error: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Leave the terminal as it was; harmless if repeated."""
        if self._is_terminal:
            sys.stdout.write(demo_screen.SHOW_CURSOR)
            sys.stdout.flush()

    def show(self, readings: Readings) -> None:
        """Draw the picture anew."""
        self._frames += 1
        if not self._is_terminal:
            if not readings.windows and self._frames % PLAIN_LINE_FRAMES == 0:
                print(demo_screen.status_line(readings), flush=True)
            return
        size = shutil.get_terminal_size()
        # A picture higher than the terminal would scroll, and not be drawn over.
        lines = demo_screen.picture(readings, self._heading, size.columns)[: size.lines - 1]
        back = demo_screen.HOME_AND_CLEAR.format(lines=self._height) if self._height else ""
        self._height = len(lines)
        shown = demo_screen.coloured(lines) if self._has_colours else lines
        sys.stdout.write(back + "\n".join(shown) + "\n")
        sys.stdout.flush()

    def show_window(self, readings: Readings) -> None:
        """Tell of a window that came out; the picture shows it by itself."""
        if not self._is_terminal:
            print(demo_screen.window_line(readings), flush=True)
