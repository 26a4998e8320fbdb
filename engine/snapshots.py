"""Snapshots of a task, made and uploaded while processing goes on.

A snapshot goes through these states, one at a time per task::

    idle -> checkpoint (when due, after a commit) -> uploading -> named in a commit record
         -> collecting -> idle

The checkpoint is hard links on local disk. It holds some committed epoch, the newest when it was
made, and says which. A snapshot counts only once a commit record names it; what it replaces is
deleted only after that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from riverrun.state import StateError

from .changelog import StoreMeta
from .errors import LogError
from .failpoints import no_failpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from riverrun.state import OverlayStore

    from .changelog import SnapshotRef
    from .clock import Clock
    from .failpoints import Failpoint
    from .metrics import TaskMetrics

_log = logging.getLogger(__name__)


class SnapshotTarget(Protocol):
    """Where the snapshots of one task go."""

    def new_checkpoint_path(self) -> Path:
        """Return a path on the disk of the store that does not exist yet."""
        ...

    async def upload(
        self, checkpoint: Path, meta: StoreMeta, owner: tuple[int, int]
    ) -> tuple[SnapshotRef, int]:
        """Upload a checkpoint; return its reference and how many bytes were sent.

        Raises:
            StateError: If storage fails; nothing refers to what was uploaded.
        """
        ...

    async def collect(self, committed: SnapshotRef, owner: tuple[int, int]) -> int | None:
        """Delete what no retained snapshot needs, now that ``committed`` is committed.

        Returns:
            Below which changelog offset records are not needed any more, None if unknown.
        """
        ...

    async def discard_checkpoint(self, checkpoint: Path) -> None:
        """Remove a checkpoint from local disk."""
        ...


class SnapshotCycle:
    """Makes the snapshots of one task, one after the other.

    Args:
        target: Where they go.
        truncate: Deletes changelog records below an offset.
        clock: Time.
        metrics: Readings of the task.
        interval_ms: Time between two snapshots.
        failpoint: Called at named places; for tests.
    """

    def __init__(
        self,
        target: SnapshotTarget,
        truncate: Callable[[int], Awaitable[None]],
        clock: Clock,
        metrics: TaskMetrics,
        interval_ms: int,
        failpoint: Failpoint = no_failpoints,
    ) -> None:
        self._target = target
        self._truncate = truncate
        self._clock = clock
        self._metrics = metrics
        self._interval_ms = interval_ms
        self._failpoint = failpoint
        self._last_ms = clock.monotonic_ms()
        self._upload: asyncio.Task[SnapshotRef | None] | None = None
        self._uncommitted: SnapshotRef | None = None
        self._collect: asyncio.Task[None] | None = None

    def after_commit(
        self,
        store: OverlayStore,
        meta: StoreMeta,
        owner: tuple[int, int],
        run_beside: Callable[..., Awaitable[Any]],
    ) -> SnapshotRef | None:
        """Move on, now that ``meta`` is committed and applied.

        Args:
            store: The state; it may change while a snapshot of it is made.
            meta: The commit.
            owner: Who owns the task, for the snapshot.
            run_beside: Runs a function on a thread, beside processing.

        Returns:
            A snapshot for the next commit record, None if there is no new one.
        """
        if self._uncommitted is not None and meta.commit.snapshot == self._uncommitted:
            ref, self._uncommitted = self._uncommitted, None
            self._collect = asyncio.create_task(self._collect_after(ref, owner))
        if self._upload is not None:
            if not self._upload.done():
                return None
            ref = self._upload.result()
            self._upload = None
            self._uncommitted = ref
            return ref
        # One at a time: a collection that is slow must not meet the next one.
        busy = self._uncommitted is not None or not (self._collect is None or self._collect.done())
        now_ms = self._clock.monotonic_ms()
        if not busy and now_ms - self._last_ms >= self._interval_ms:
            self._last_ms = now_ms
            self._upload = asyncio.create_task(self._make(store, owner, run_beside))
        return None

    async def _make(
        self,
        store: OverlayStore,
        owner: tuple[int, int],
        run_beside: Callable[..., Awaitable[Any]],
    ) -> SnapshotRef | None:
        path = self._target.new_checkpoint_path()
        ref = None
        try:
            held = await self._checkpoint(store, path, run_beside)
            if held is not None:
                self._failpoint("after_checkpoint")
                ref = await self._upload_from(path, held, owner)
        finally:
            # Closed meanwhile, it would be left behind if its turn on a thread had not come yet.
            await asyncio.shield(self._target.discard_checkpoint(path))
        if ref is not None:
            self._failpoint("after_snapshot_upload")
        return ref

    async def _checkpoint(
        self, store: OverlayStore, path: Path, run_beside: Callable[..., Awaitable[Any]]
    ) -> StoreMeta | None:
        """Write a checkpoint, and return the commit that it holds; None if that failed."""
        try:
            held = await run_beside(store.checkpoint, path)
        except Exception:
            self._metrics.snapshot_failures.inc()
            _log.exception("the checkpoint %s failed; the changelog covers for it", path)
            return None
        return msgspec.msgpack.decode(held, type=StoreMeta)

    async def _upload_from(
        self, path: Path, meta: StoreMeta, owner: tuple[int, int]
    ) -> SnapshotRef | None:
        began_ms = self._clock.monotonic_ms()
        try:
            ref, sent_bytes = await self._target.upload(path, meta, owner)
        except StateError as error:
            self._metrics.snapshot_failures.inc()
            _log.warning(
                "the snapshot of epoch %d failed, the changelog covers for it: %s",
                meta.commit.epoch,
                error,
            )
            return None
        except Exception:
            # Snapshots only bound the replay: processing goes on without, and the alarm is told.
            self._metrics.snapshot_failures.inc()
            _log.exception("the snapshot of epoch %d failed", meta.commit.epoch)
            return None
        self._metrics.snapshot_seconds.observe((self._clock.monotonic_ms() - began_ms) / 1000)
        self._metrics.snapshot_bytes.inc(sent_bytes)
        self._metrics.snapshot_created_ms.set(self._clock.now_ms())
        return ref

    async def _collect_after(self, committed: SnapshotRef, owner: tuple[int, int]) -> None:
        self._failpoint("before_snapshot_collect")
        try:
            unneeded_below = await self._target.collect(committed, owner)
            if unneeded_below is not None:
                await self._truncate(unneeded_below)
        except (LogError, StateError) as error:
            _log.warning("old snapshots stay for now, the next one tries again: %s", error)
        except Exception:
            _log.exception("collecting old snapshots failed; the next one tries again")

    async def close(self) -> None:
        """Stop what runs in the background. Never raises."""
        running = [task for task in (self._upload, self._collect) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
