"""A task: one subtopology on one partition number, from source to commit.

Life of an epoch, and the numbers used below:

1. Chunks are read and processed on the batch thread; outputs are appended to the writer.
2. The barrier: async steps finish, watermarks go to downstream tasks, tables give their delta.
3. Delta and commit record are appended; the writer commits everything at once.
4. The store takes the delta. Only now does local state move to the new epoch.
5. Now and then the store is written to disk and a snapshot is made, beside what follows; the id of
   the snapshot enters a later commit record.

After any error the task object is done for: it is closed and another one is started, which fences
this one's writer, reads what was committed, and goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from .async_calls import AsyncCalls
from .chain import Chain, ChainParts, build_chain
from .changelog import CommitRecord, StoreMeta
from .changelog_writer import ChangelogWriter
from .errors import FencedError, WriteError
from .housekeeping import Housekeeping
from .log import Chunk, TopicPartition
from .output import Outgoing, OutputBuffer
from .pace import Pace
from .restore import OpenedStores, Restored, TaskStores, restore
from .start_checks import check_fits, may_start_fresh, start_positions
from .task_environment import OPEN_TIMEOUT_MS, PENDING_BYTES_MAX, TaskEnvironment
from .task_inputs import RepartitionInput, SourceInput, TaskInputs
from .task_state import TaskState
from .thread_calls import ThreadCalls
from .upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .log import LogReader, LogWriter
    from .plan import TaskId
    from .snapshots import SnapshotCycle

_log = logging.getLogger(__name__)

SLEPT_MS = 2_000
"""Between two looks at the inputs lie a wait, processing and a commit: seldom as much as this."""


class Task:
    """Runs one task. All methods belong to one asyncio task; they are not to be called at once.

    Args:
        task_id: Which task.
        env: What it works with.
        stores: Where its state comes from.
        snapshots: Makes snapshots; None where there is nowhere to put them.
    """

    def __init__(
        self,
        task_id: TaskId,
        env: TaskEnvironment,
        stores: TaskStores,
        snapshots: SnapshotCycle | None = None,
    ) -> None:
        self.id = task_id
        self._env = env
        self._stores = OpenedStores(stores)
        self._snapshots = snapshots
        self._changelog = TopicPartition(
            env.resolved.plan.changelog(task_id.subtopology), task_id.partition
        )
        self._metrics = env.metrics.task(str(task_id))
        self._wake = asyncio.Event()
        self._blocking = ThreadCalls(env.run_blocking)
        self._upkeep = Upkeep(env.run_upkeep)
        self._poll: asyncio.Task[list[Chunk]] | None = None
        self._writer: LogWriter | None = None
        self._reader: LogReader | None = None
        self._restored: Restored | None = None
        self.pace = Pace(env.settings.commit_interval_ms, env.clock.monotonic_ms())
        self.epoch = 0
        self._closed = False

    # --- start -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Fence the former owner, restore, seek. The order is what makes fencing sound.

        Raises:
            StartRefusedError: If going on could lose or repeat data; says how to override.
            LogError: If the log does not answer.
            StateError: If disk or storage fail.
        """
        env = self._env
        began_ms = env.clock.monotonic_ms()
        job = env.resolved.plan.job
        self._writer = await env.log.open_writer(
            f"{job}-{self.id}",
            transactional=env.settings.guarantee == "exactly_once",
            timeout_ms=OPEN_TIMEOUT_MS,
        )
        env.failpoint("after_open_writer")
        sub = env.resolved.subtopology(self.id)
        restored = await restore(
            env.log,
            self._changelog,
            self._stores,
            env.plane.record_batches,
            self._blocking,
            self._told_offsets,
            may_start_fresh(sub, env.settings),
        )
        self._restored = restored
        env.failpoint("after_restore")
        await self._blocking(self._build, restored)
        commit = restored.commit
        self._changelog_writer = ChangelogWriter(
            self._changelog, restored, fenced=env.settings.guarantee == "exactly_once"
        )
        self.epoch = self._changelog_writer.epoch
        self._snapshot_ref = commit.snapshot if commit else None
        spans = await env.log.offsets(self._inputs.partitions())
        self._inputs.positions = start_positions(
            spans, self._inputs.positions, sub, env.settings, first_start=commit is None
        )
        self._reader = await env.log.open_reader(dict(self._inputs.positions))
        self._looked_ms = self._quiet_ms = env.clock.monotonic_ms()
        self._positions_moved = False
        self._calls = AsyncCalls(self._chain.async_stages)
        stateless = None if self._chain.signatures else self._changelog
        self._housekeeping = Housekeeping(env.log, env.clock, stateless)
        if env.settings.guarantee == "at_least_once" or commit is None:
            # Says whose records count from here on; and makes a first start a start.
            await self.commit(force=True)
        took_ms = env.clock.monotonic_ms() - began_ms
        self._metrics.restore_seconds.observe(took_ms / 1000)
        _log.info(
            "task %s starts at epoch %d (state from %s, %d epochs replayed, %d ms)",
            self.id,
            self.epoch,
            restored.source,
            restored.replayed,
            took_ms,
        )

    async def _told_offsets(self) -> Mapping[TopicPartition, int]:
        resolved = self._env.resolved
        return await self._env.log.group_offsets(resolved.plan.job, resolved.inputs_of(self.id))

    def _build(self, restored: Restored) -> None:
        env = self._env
        self._state = TaskState(restored.store)
        self._output = OutputBuffer(
            env.plane.record_batches,
            env.resolved.partitions,
            env.max_batch_bytes,
            env.clock.now_ms,
            env.plane.partitioner,
        )
        parts = ChainParts(env.plane, self._state, self._output, env.metrics)
        sub = env.resolved.subtopology(self.id)
        self._chain: Chain = build_chain(env.resolved.plan, sub, self.id, parts)
        self._inputs = TaskInputs(
            env.resolved,
            self.id,
            self._chain,
            env.plane,
            env.clock.monotonic_ms(),
            env.settings.idle_after_ms,
        )
        if restored.commit is not None:
            check_fits(
                restored.commit, sub, self._chain.signatures, self._input_partitions(), env.settings
            )
            self._inputs.resume(restored.commit)

    def _input_partitions(self) -> dict[str, int]:
        partitions = self._env.resolved.partitions
        return {where.topic: partitions[where.topic] for where in self._inputs.partitions()}

    # --- running -----------------------------------------------------------------------------

    def wake(self) -> None:
        """End the wait of ``step`` early."""
        self._wake.set()

    async def step(self, wait_ms: int) -> bool:
        """Process what is there, and commit when it is time.

        Args:
            wait_ms: Longest time to wait for something to happen.

        Returns:
            Whether anything happened.

        Raises:
            FencedError: Another worker owns the task now.
            RecordError: A record cannot be processed and the policy says fail.
            LogError: The log failed; start a new task object.
        """
        self._calls.pump()
        chunks = await self._next_chunks(wait_ms)
        now_ms = self._env.clock.now_ms()
        slept = self._note_activity(wait_ms, sum(len(chunk.payload) for chunk in chunks))
        due = self._chain.next_processing_time_ms()
        timers = due is not None and due <= now_ms
        worked = bool(chunks) or timers or slept or self._calls.finished.is_set()
        moved = self._inputs.moved(self._quiet_ms)
        # Downstream tasks are told a watermark by a commit, also one that comes without records.
        self._dirty = self._dirty or (moved and bool(self._chain.repartitions))
        if worked or moved:
            self._calls.finished.clear()
            self._env.failpoint("before_process")
            outgoing = await self._blocking(self._process, chunks, timers, now_ms)
            self._env.failpoint("after_process")
            self._positions_moved = self._positions_moved or bool(chunks)
            await self._append(outgoing)
            worked = True
        if await self._commit_if_due():
            worked = True
        return worked

    async def _next_chunks(self, wait_ms: int) -> list[Chunk]:
        assert self._reader is not None
        if self._calls.saturated:
            # Read no more until async steps have caught up; their results wake us.
            await self._wait_for([asyncio.ensure_future(self._calls.finished.wait())], wait_ms)
            return []
        wait_ms = self._bounded_wait(wait_ms)
        if wait_ms == 0 and self._poll is None:
            return await self._reader.poll(0)
        if self._poll is None:
            self._poll = asyncio.create_task(self._reader.poll(max(wait_ms, 1)))
        others = [self._wake.wait()]
        if self._chain.async_stages:
            others.append(self._calls.finished.wait())
        await self._wait_for([self._poll, *map(asyncio.ensure_future, others)], wait_ms)
        self._wake.clear()
        if not self._poll.done():
            return []
        poll, self._poll = self._poll, None
        return poll.result()

    async def _wait_for(self, waits: list[asyncio.Future[Any]], wait_ms: int) -> None:
        await asyncio.wait(
            waits, timeout=max(wait_ms, 1) / 1000, return_when=asyncio.FIRST_COMPLETED
        )
        for each in waits:
            if each is not self._poll:
                each.cancel()

    def _bounded_wait(self, wait_ms: int) -> int:
        clock = self._env.clock
        if self._positions_moved:
            wait_ms = min(wait_ms, max(self.pace.due_ms() - clock.monotonic_ms(), 0))
        due = self._chain.next_processing_time_ms()
        if due is not None:
            wait_ms = min(wait_ms, max(due - clock.now_ms(), 0))
        return wait_ms

    def _note_activity(self, wait_ms: int, read_bytes: int) -> bool:
        """See which inputs are not idle: with records left to read, or not readable at present.

        Returns:
            Whether the task has slept since the last look (a process that was stopped, a commit
            that took long). It does not know yet what came meanwhile, so until the next look its
            inputs are as quiet as they were known to be.
        """
        assert self._reader is not None
        tick_ms = self._env.clock.monotonic_ms()
        slept = tick_ms - self._looked_ms > wait_ms + SLEPT_MS
        self._looked_ms = tick_ms
        if not slept:
            self._quiet_ms = tick_ms
        trouble = self._reader.trouble() is not None
        lags = False
        for where, position in self._inputs.positions.items():
            end = self._reader.end_offset(where)
            if trouble or end is None or position < end:
                self._inputs.note_busy(where, tick_ms)
                lags = lags or not trouble
        self.pace.looked(read_bytes, lags=lags, now_ms=tick_ms)
        return slept

    def _process(self, chunks: list[Chunk], timers: bool, now_ms: int) -> list[Outgoing]:
        began_ms = self._env.clock.monotonic_ms()
        for chunk in chunks:
            self._inputs.process(chunk, now_ms, self._looked_ms)
        self._chain.deliver_async()
        if timers:
            self._chain.on_processing_time(now_ms)
        self._inputs.advance(self._quiet_ms)
        outgoing = self._output.drain()
        self._metrics.busy_seconds.inc((self._env.clock.monotonic_ms() - began_ms) / 1000)
        return outgoing

    async def _append(self, outgoing: list[Outgoing]) -> None:
        assert self._writer is not None
        for each in outgoing:
            self._writer.append(each.topic, each.partition, each.batch)
            self._dirty = True
        if outgoing:
            self._env.failpoint("after_output_append")
        if self._writer.pending_bytes() > PENDING_BYTES_MAX:
            await self._writer.flush(self._env.settings.commit_timeout_ms)

    # --- commit ------------------------------------------------------------------------------

    _dirty = False

    async def _commit_if_due(self) -> bool:
        changed = self._positions_moved or self._dirty
        if not changed or self._env.clock.monotonic_ms() < self.pace.due_ms():
            return False
        await self.commit()
        return True

    async def commit(self, *, force: bool = False) -> None:
        """Pass a barrier and make the epoch durable and visible.

        Args:
            force: Also when nothing has happened since the last one.

        Raises:
            FencedError: Another worker owns the task now; nothing of the epoch is visible.
            WriteError: The log refused; nothing of the epoch is visible.
            OutcomeUnknownError: Only the next start can tell what became of the epoch.
        """
        if not (force or self._positions_moved or self._dirty):
            return
        env = self._env
        assert self._writer is not None
        assert self._restored is not None
        began_ms = env.clock.monotonic_ms()
        await self._finish_async_work()  # 2
        outgoing, delta, commit = await self._blocking(self._barrier)
        env.failpoint("before_commit")
        for each in outgoing:  # 3
            self._writer.append(each.topic, each.partition, each.batch)
        if env.settings.guarantee == "at_least_once":
            # A position must not become durable before the output that it speaks of.
            await self._writer.flush(env.settings.commit_timeout_ms)
        limit = self._output.max_batch_bytes(self._changelog.topic)
        batches, delta_bytes = self._changelog_writer.encode(
            commit, env.plane.record_batches, limit
        )
        for batch in batches:
            self._writer.append(self._changelog.topic, self._changelog.partition, batch)
        env.failpoint("after_delta_append")
        written = await self._writer.commit(env.settings.commit_timeout_ms)
        env.failpoint("after_commit")
        self._changelog_writer.on_committed(commit, written[self._changelog])
        meta = StoreMeta(commit, written[self._changelog])
        store = self._restored.store
        await self._blocking(store.apply, delta, msgspec.msgpack.encode(meta))  # 4
        env.failpoint("after_store_apply")
        self.epoch = commit.epoch
        self._positions_moved = self._dirty = False
        committed_ms = env.clock.monotonic_ms()
        self.pace.committed(committed_ms)
        self._metrics.commits.inc()
        self._metrics.delta_bytes.inc(delta_bytes)
        self._metrics.epoch.set(self.epoch)
        self._metrics.commit_seconds.observe((committed_ms - began_ms) / 1000)
        await self._housekeeping.after_commit(
            self._inputs.repartition_positions(), meta.changelog_offset
        )
        self._upkeep.after_apply(store)  # 5
        if self._snapshots is not None:
            ref = self._snapshots.after_commit(store, meta, self._writer.owner, self._upkeep.calls)
            self._snapshot_ref = ref or self._snapshot_ref

    async def _finish_async_work(self) -> None:
        if not self._chain.has_async_work():
            return
        deadline_ms = self._env.clock.monotonic_ms() + self._env.settings.barrier_timeout_ms
        while self._chain.has_async_work():
            self._calls.pump()
            left_ms = deadline_ms - self._env.clock.monotonic_ms()
            if left_ms <= 0:
                raise WriteError(
                    f"async steps of task {self.id} did not finish within "
                    f"{self._env.settings.barrier_timeout_ms} ms at a barrier; lower their "
                    "timeout= or in_flight="
                )
            await self._wait_for([asyncio.ensure_future(self._calls.finished.wait())], left_ms)
            self._calls.finished.clear()
            await self._append(
                await self._blocking(self._process, [], False, self._env.clock.now_ms())
            )

    def _barrier(self) -> tuple[list[Outgoing], Any, CommitRecord]:
        self._chain.write_watermarks()
        delta = self._state.drain_delta()
        outgoing = self._output.drain()
        history = self._changelog_writer
        commit = CommitRecord(
            job=self._env.resolved.plan.job,
            lineage=history.lineage,
            subtopology=self.id.subtopology,
            partition=self.id.partition,
            generation=history.generation,
            epoch=history.epoch + 1,
            pieces=history.add_delta(delta),
            positions=self._inputs.commit_positions(),
            upstream=self._inputs.commit_upstream(),
            layout=dict(self._chain.signatures),
            input_partitions=self._input_partitions(),
            snapshot=self._snapshot_ref,
            created_ms=self._env.clock.now_ms(),
            previous_generation=history.previous_generation,
            merged=self._chain.merged_watermarks(),
            origin=history.origin,
        )
        return outgoing, delta, commit

    # --- end ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Commit what is processed, then close: nothing is done twice by the next owner."""
        try:
            await self.commit()
        except FencedError:
            _log.info("task %s was taken over before its last commit", self.id)
        finally:
            await self.close()

    async def close(self) -> None:
        """Release everything, without a commit. Bounded in time; never raises; once is enough."""
        if self._closed:
            return
        self._closed = True
        self._env.failpoint("before_close")
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)
        if hasattr(self, "_calls"):
            await self._calls.close()
        # A thread may be inside the store: it must be out before that is closed.
        await self._blocking.settle()
        if self._restored is not None:
            self._restored.store.is_waited_for = True
        await self._upkeep.calls.settle()
        if self._reader is not None:
            await self._reader.close()
        if self._writer is not None:
            await self._writer.close()
        if self._snapshots is not None:
            await self._snapshots.close()
        try:
            await self._blocking(self._close_stores)
        except Exception:
            _log.exception("task %s: closing its store failed", self.id)

    def _close_stores(self) -> None:
        try:
            if self._restored is not None:
                self._restored.store.close()
        finally:
            # If the start got no further, what it had opened.
            self._stores.close()

    # --- for the worker ----------------------------------------------------------------------

    def inputs(self) -> list[SourceInput | RepartitionInput]:
        """Return the inputs, for the test driver."""
        return self._inputs.all()

    def positions(self) -> Mapping[TopicPartition, int]:
        """Return the next offset to read of each input."""
        return dict(self._inputs.positions)

    def end_offsets(self) -> Mapping[TopicPartition, int | None]:
        """Return the end of each input as last seen."""
        assert self._reader is not None
        return {where: self._reader.end_offset(where) for where in self._inputs.positions}

    def watermarks(self) -> Mapping[TopicPartition, int]:
        """Return the watermark of each input."""
        return {where: mark.value_ms for where, mark in self._inputs.told().items()}

    def trouble(self) -> str | None:
        """Return what the reader retries at the moment."""
        return None if self._reader is None else self._reader.trouble()
