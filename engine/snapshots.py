"""Snapshots of a task: taken right after a commit, uploaded in the background.

A snapshot goes through these states, one at a time per task::

    idle -> checkpoint (when due, after a commit) -> uploading -> named in a commit record
         -> collecting -> idle

The checkpoint is hard links on local disk and is all that processing waits for. A snapshot counts
only once a commit record names it; what it replaces is deleted only after that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from riverrun.state import StateError

from .errors import LogError
from .failpoints import no_failpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from riverrun.state import OverlayStore

    from .changelog import SnapshotRef, StoreMeta
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

    def discard_checkpoint(self, checkpoint: Path) -> None:
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

    async def after_commit(
        self,
        store: OverlayStore,
        meta: StoreMeta,
        owner: tuple[int, int],
        run_blocking: Callable[..., Awaitable[Any]],
    ) -> SnapshotRef | None:
        """Move on, now that ``meta`` is committed and applied.

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
            await self._begin(store, meta, owner, run_blocking)
        return None

    async def _begin(
        self,
        store: OverlayStore,
        meta: StoreMeta,
        owner: tuple[int, int],
        run_blocking: Callable[..., Awaitable[Any]],
    ) -> None:
        path = self._target.new_checkpoint_path()
        try:
            # Flushing releases the GIL; after it the checkpoint itself takes about a millisecond.
            await run_blocking(store.flush)
            await run_blocking(store.checkpoint, path)
        except Exception:
            self._metrics.snapshot_failures.inc()
            _log.exception("the checkpoint %s failed; the changelog covers for it", path)
            return
        self._failpoint("after_checkpoint")
        self._upload = asyncio.create_task(self._upload_from(path, meta, owner, run_blocking))

    async def _upload_from(
        self,
        path: Path,
        meta: StoreMeta,
        owner: tuple[int, int],
        run_blocking: Callable[..., Awaitable[Any]],
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
        finally:
            self._target.discard_checkpoint(path)
        self._failpoint("after_snapshot_upload")
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
