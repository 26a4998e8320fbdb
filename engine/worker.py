"""A worker: one member of the job's group, running the tasks that the group gives it.

Nothing slow happens in a rebalance: the group hands over a new assignment, the worker stops the
tasks that are gone and starts the ones that are new, each in an asyncio task of its own; tasks it
keeps run on untouched. A task that was taken over while we were away is fenced at its next commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from riverrun.state import StateError, StoreCorruptError

from .assignment import TaskAssignor, WorkerInfo
from .errors import (
    BatchTooLargeError,
    ConfigError,
    CorruptBatchError,
    FencedError,
    LogError,
    RecordError,
    RiverrunError,
    StartRefusedError,
)
from .failpoints import no_failpoints
from .running_task import TASK_STATES, RunningTask
from .setup import prepare_topics
from .task import Task
from .task_environment import TaskEnvironment
from .topic_watch import watch_topics
from .watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .config import WorkerSettings
    from .failpoints import Failpoint
    from .log import GroupMember, Log, TopicPartition
    from .metrics import Metrics
    from .plan import Plan, TaskId
    from .plane import Plane
    from .restore import TaskStores
    from .snapshots import SnapshotCycle

_log = logging.getLogger(__name__)

STEP_WAIT_MS = 500
"""Longest pause of an idle task: how late it sees that idle inputs moved with the clock."""

STOP_TIMEOUT_S = 60
"""How long tasks may take for their last commit when the worker stops."""

COMMIT_SHARE_MS = 20
"""A commit costs about 1 ms of CPU, so one per 20 ms and worker is at most 5 % of a core."""

MAX_BACKOFF_MS = 10_000


class WorkerState(Protocol):
    """Where the tasks of a worker keep their state on this machine."""

    @property
    def instance_id(self) -> str | None:
        """Stable name of this worker over restarts, None if it has none."""
        ...

    def stores(self, job: str, task: TaskId) -> TaskStores:
        """Return where the store of one task comes from."""
        ...

    def snapshots(self, job: str, task: TaskId, env: TaskEnvironment) -> SnapshotCycle | None:
        """Return what makes the snapshots of one task, None where there is nowhere to put them."""
        ...

    def held(self, job: str) -> dict[str, int]:
        """Return the epoch of each task whose state lies here, as far as is known cheaply."""
        ...

    def discard(self, job: str, task: TaskId) -> None:
        """Remove the closed store of one task, because it is damaged. Slow: for a thread."""
        ...


class Worker:
    """Runs a job's tasks until it is stopped.

    Args:
        plan: What to run.
        log: Where topics are; started.
        plane: Implementations of the hot steps.
        clock: Time.
        metrics: Where readings go.
        settings: How to run.
        state: Where state is kept.
        failpoint: Called at named places; for tests.
    """

    def __init__(
        self,
        plan: Plan,
        log: Log,
        plane: Plane,
        clock: Clock,
        metrics: Metrics,
        settings: WorkerSettings,
        state: WorkerState,
        failpoint: Failpoint = no_failpoints,
    ) -> None:
        self._plan = plan
        self._log = log
        self._plane = plane
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._state = state
        self._failpoint = failpoint
        self._tasks: dict[TaskId, RunningTask] = {}
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._member: GroupMember | None = None
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="batch")
        # One thread for all tasks: that much of the machine, and no more, goes to it.
        self._upkeep_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upkeep")
        self.watchdog = Watchdog(clock, settings.stall_after_ms)
        self.ready = False
        self._env: TaskEnvironment | None = None

    async def run(self) -> None:
        """Join the group and work until ``stop``; commits what is processed before it returns.

        Raises:
            RiverrunError: What stopped it: a record that cannot be processed, a start that was
                refused, a log that cannot be reached.
        """
        try:
            await self._run()
        finally:
            await self._end()
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        resolved, max_batch_bytes = await prepare_topics(self._log, self._plan)
        self._env = TaskEnvironment(
            resolved,
            self._log,
            self._plane,
            self._clock,
            self._metrics,
            self._settings.task,
            self._run_blocking,
            self._run_upkeep,
            max_batch_bytes,
            self._failpoint,
        )
        assignor = TaskAssignor(resolved)
        self._member = await self._log.join_group(
            self._plan.job,
            self._plan.input_topics(),
            self._info,
            assignor,
            instance_id=self._state.instance_id,
            session_timeout_ms=self._settings.session_timeout_ms,
        )
        helpers = [
            asyncio.create_task(work)
            for work in (
                self._follow_assignments(assignor),
                self._tell_offsets(),
                self._watch_loop_delay(),
                watch_topics(self._log, resolved, self._settings.topics_interval_ms),
            )
        ]
        for helper in helpers:
            helper.add_done_callback(self._note_end)
        try:
            await self._stop.wait()
        finally:
            # Also if this very run is cancelled: nobody may start tasks while they are ended.
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _note_end(self, helper: asyncio.Task[None]) -> None:
        error = None if helper.cancelled() else helper.exception()
        if error is not None:
            self._fail(error)

    def stop(self) -> None:
        """Ask the worker to commit and end. Safe from a signal handler of the loop."""
        self._stop.set()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._stop.set()

    async def _end(self) -> None:
        for running in self._tasks.values():
            running.stop()
        runners = [r.runner for r in self._tasks.values() if r.runner is not None]
        if runners:
            _, late = await asyncio.wait(runners, timeout=STOP_TIMEOUT_S)
            for runner in late:
                _log.error("a task did not stop within %d s; its epoch is repeated", STOP_TIMEOUT_S)
                runner.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._member is not None:
            await self._member.leave()
        for pool in (self._pool, self._upkeep_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def _run_upkeep(self, function: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._upkeep_pool, function, *args)

    def _info(self) -> bytes:
        running = tuple(str(task) for task, each in self._tasks.items() if not each.stopping)
        return WorkerInfo(
            worker=self._state.instance_id or "",
            running=running,
            stored=self._state.held(self._plan.job),
        ).encode()

    # --- tasks -------------------------------------------------------------------------------

    async def _follow_assignments(self, assignor: TaskAssignor) -> None:
        assert self._member is not None
        while True:
            assignment = await self._member.next_assignment(1_000)
            if assignment is None:
                continue
            self._metrics.rebalances.labels(**self._metrics.labels()).inc()
            tasks = assignor.tasks_of(assignment.partitions)
            _log.info(
                "generation %d: tasks %s", assignment.generation, [str(t) for t in tasks] or "none"
            )
            self._switch_to(tasks)
            self.ready = True

    def _switch_to(self, tasks: list[TaskId]) -> None:
        for task_id, running in self._tasks.items():
            if task_id not in tasks:
                running.stop()
        for task_id in tasks:
            before = self._tasks.get(task_id)
            if before is not None and not before.stopping:
                continue
            running = RunningTask(task_id)
            self._tasks[task_id] = running
            running.runner = asyncio.create_task(self._keep_running(running, before))
        self._set_commit_intervals()

    def _set_commit_intervals(self) -> None:
        count = sum(not each.stopping for each in self._tasks.values())
        interval_ms = max(self._settings.task.commit_interval_ms, COMMIT_SHARE_MS * count)
        for each in self._tasks.values():
            if each.task is not None:
                each.task.pace.interval_ms = interval_ms

    async def _keep_running(self, running: RunningTask, before: RunningTask | None) -> None:
        if before is not None and before.runner is not None:
            # The same task, given back before it had ended: its store has one owner at a time.
            await asyncio.wait({before.runner})
        backoff_ms = self._settings.restart_backoff_ms
        try:
            while not running.stopping:
                began_ms = self._clock.monotonic_ms()
                await self._attempt(running)
                if running.stopping:
                    return
                running.state = "waiting"
                if self._clock.monotonic_ms() - began_ms > MAX_BACKOFF_MS:
                    backoff_ms = self._settings.restart_backoff_ms
                pause_ms, running.pause_ms = max(backoff_ms, running.pause_ms), 0
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(running.wake.wait(), pause_ms / 1000)
                backoff_ms = min(backoff_ms * 2, MAX_BACKOFF_MS)
                running.restarts += 1
        except Exception as error:
            self._fail(error)
        finally:
            if self._tasks.get(running.id) is running:
                del self._tasks[running.id]

    async def _attempt(self, running: RunningTask) -> None:
        """Run a task until it is stopped or an error that passes; raise what does not pass."""
        assert self._env is not None
        job = self._plan.job
        task = Task(
            running.id,
            self._env,
            self._state.stores(job, running.id),
            self._state.snapshots(job, running.id, self._env),
        )
        running.task = task
        running.state = "starting"
        try:
            if not await self._start(running, task):
                await task.close()
                return
            running.state, running.error = "running", None
            running.running_since_ms = self._clock.monotonic_ms()
            self._set_commit_intervals()
            while not running.stopping:
                await task.step(STEP_WAIT_MS)
                self._note_progress(task)
            running.state = "stopping"
            await task.stop()
        except BaseException as error:
            await task.close()
            if not _passes(error):
                raise
            self._note_failure(running, error)
            if isinstance(error, StoreCorruptError):
                await self._run_blocking(self._state.discard, job, running.id)
                # The next attempt is another one, and may take its time.
                running.failing_since_ms = None
        finally:
            running.task = None
            self.watchdog.forget(running.id)

    async def _start(self, running: RunningTask, task: Task) -> bool:
        """Start a task; return False if it is to stop before it has started."""
        running.starting = asyncio.create_task(task.start())
        try:
            await running.starting
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if not running.stopping or (own is not None and own.cancelling()):
                raise
            return False
        finally:
            running.starting = None
        return True

    def _note_failure(self, running: RunningTask, error: BaseException) -> None:
        running.error = f"{type(error).__name__}: {error}"
        if self._is_steady(running) or running.failing_since_ms is None:
            running.failing_since_ms = self._clock.monotonic_ms()
        labels = self._metrics.labels(error=type(error).__name__)
        self._metrics.restarts.labels(**labels).inc()
        if isinstance(error, FencedError):
            self._metrics.fenced.labels(**self._metrics.labels()).inc()
            if self._settings.task.guarantee == "exactly_once":
                # To start again at once would fence the new owner in turn. By then the group has
                # told whose the task is; without transactions nobody was fenced but for a tie.
                running.pause_ms = self._settings.session_timeout_ms // 3
            _log.warning("task %s was taken over by another worker: %s", running.id, error)
        else:
            _log.warning("task %s starts again after %s", running.id, running.error)

    def _is_steady(self, running: RunningTask) -> bool:
        """Return whether it has run for so long that earlier errors are history."""
        run_ms = self._clock.monotonic_ms() - running.running_since_ms
        return running.state == "running" and run_ms > MAX_BACKOFF_MS

    def _failing(self) -> list[TaskId]:
        """Return the tasks that have not been brought to run for too long."""
        since_ms = self._clock.monotonic_ms() - self._settings.stall_after_ms
        return [
            each.id
            for each in self._tasks.values()
            if each.failing_since_ms is not None
            and each.failing_since_ms <= since_ms
            and not self._is_steady(each)
        ]

    def _note_progress(self, task: Task) -> None:
        ends = task.end_offsets()
        for where, position in task.positions().items():
            end = ends.get(where)
            lag = None if end is None else max(end - position, 0)
            self.watchdog.note(task.id, where, position, lag)

    # --- helpers -----------------------------------------------------------------------------

    async def _tell_offsets(self) -> None:
        told: dict[TopicPartition, int] = {}
        while True:
            await asyncio.sleep(self._settings.offsets_interval_ms / 1000)
            self._refresh_gauges()
            offsets: dict[TopicPartition, int] = {}
            for each in list(self._tasks.values()):
                if each.task is not None and each.state == "running":
                    offsets.update(each.task.positions())
            news = {w: o for w, o in offsets.items() if told.get(w) != o}
            if not news or self._member is None:
                continue
            try:
                await self._member.commit_offsets(news)
                told.update(news)
            except LogError as error:
                _log.info("could not tell the group how far we are: %s", error)

    def _refresh_gauges(self) -> None:
        metrics = self._metrics
        states: dict[str, int] = dict.fromkeys(TASK_STATES, 0)
        for each in list(self._tasks.values()):
            states[each.state] += 1
            if each.task is None or each.state != "running":
                continue
            ends, marks = each.task.end_offsets(), each.task.watermarks()
            for where, position in each.task.positions().items():
                labels = metrics.labels(topic=where.topic, partition=str(where.partition))
                metrics.position.labels(**labels).set(position)
                end = ends.get(where)
                if end is not None:
                    metrics.lag.labels(**labels).set(max(end - position, 0))
                if where in marks:
                    metrics.partition_watermark_ms.labels(**labels).set(marks[where])
            if marks:
                labels = metrics.labels(task=str(each.id))
                metrics.task(str(each.id)).watermark_ms.set(min(marks.values()))
        for state, count in states.items():
            metrics.tasks.labels(**metrics.labels(state=state)).set(count)
        stalled = self.watchdog.stalled()
        metrics.stalled.labels(**metrics.labels()).set(len(stalled))

    async def _watch_loop_delay(self) -> None:
        gauge = self._metrics.loop_delay.labels(**self._metrics.labels())
        while True:
            began_ms = self._clock.monotonic_ms()
            await asyncio.sleep(0.5)
            gauge.set(max(self._clock.monotonic_ms() - began_ms - 500, 0) / 1000)

    def status(self) -> dict[str, Any]:
        """Return how the worker is doing, for health endpoints and the dashboard."""
        stalled = self.watchdog.stalled()
        tasks = {
            str(each.id): {
                "state": each.state,
                "epoch": each.task.epoch if each.task is not None else None,
                "restarts": each.restarts,
                "error": each.error,
                "trouble": each.task.trouble() if each.task is not None else None,
            }
            for each in self._tasks.values()
        }
        failing = self._failing()
        healthy = self._failure is None and not stalled and not failing
        return {
            "job": self._plan.job,
            "healthy": healthy,
            "ready": self.ready and all(e.state == "running" for e in self._tasks.values()),
            "plane": self._plane.name,
            "tasks": tasks,
            "stalled": [str(where) for where in stalled],
            "failing": [str(task) for task in failing],
        }


def _passes(error: BaseException) -> bool:
    """Return whether starting the task again may help."""
    lasting = RecordError | StartRefusedError | ConfigError | CorruptBatchError | BatchTooLargeError
    if isinstance(error, lasting):
        return False
    return isinstance(error, RiverrunError | StateError | OSError)
