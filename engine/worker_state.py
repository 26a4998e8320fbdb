"""Where a worker's tasks keep state: RocksDB in its state directory, snapshots in blob storage."""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from riverrun.state import (
    FileDigests,
    Manifest,
    RocksDbStore,
    SnapshotMissingError,
    SnapshotOrigin,
    StateDirectory,
    StateError,
    StoreCorruptError,
    StoreOptions,
    TaskIdentity,
    collect,
    list_snapshots,
    load_manifest,
    restore_snapshot,
    upload_snapshot,
)

from .changelog import SnapshotRef, StoreMeta, encode_commit
from .config import StateMemory
from .log import TopicPartition
from .snapshots import SnapshotCycle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from riverrun.state import BlobStore, StateStore

    from .plan import TaskId
    from .task_environment import TaskEnvironment

_log = logging.getLogger(__name__)

_MEMTABLE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(slots=True)
class RocksDbStores:
    """The store of one task in a state directory.

    Attributes:
        directory: The worker's state directory.
        identity: Which task.
        blobs: Where snapshots are; None if there are none.
        progress: Told task, bytes done and bytes in all while a snapshot comes in.
        options: Memory and disk use, which it shares with the other stores of the worker.
    """

    directory: StateDirectory
    identity: TaskIdentity
    blobs: BlobStore | None
    progress: Callable[[str, int, int], None]
    options: StoreOptions

    @property
    def path(self) -> Path:
        """Where the store is."""
        identity = self.identity
        return self.directory.task_path(identity.job, identity.subtopology, identity.partition)

    def open_local(self) -> StateStore | None:
        """Return the store left on this machine, None if there is none that can be read."""
        if not self.path.exists():
            return None
        try:
            return RocksDbStore(self.path, options=self.options)
        except StoreCorruptError as error:
            _log.warning("%s; it is rebuilt from snapshot and changelog", error)
            return None

    def create(self) -> StateStore:
        """Return an empty store, having discarded what was there.

        Raises:
            StateDirectoryFullError: If there is no room for one.
        """
        self.directory.check_space()
        self.directory.discard(self.path)
        return RocksDbStore(self.path, options=self.options)

    async def from_snapshot(self, snapshot_id: str) -> StateStore:
        """Return a store that equals a snapshot, having discarded what was there.

        Raises:
            StateError: If there is no storage, or it fails, or the snapshot is damaged.
        """
        if self.blobs is None:
            raise SnapshotMissingError(
                f"snapshot {snapshot_id!r} is needed, and no storage is given: use --snapshots URL"
            )
        await asyncio.to_thread(self.directory.discard, self.path)
        name = f"{self.identity.subtopology}-{self.identity.partition}"
        await restore_snapshot(
            self.blobs,
            snapshot_id,
            self.path,
            progress=lambda done, total: self.progress(name, done, total),
        )
        return await asyncio.to_thread(RocksDbStore, self.path, options=self.options)

    async def snapshot_ids(self) -> list[str]:
        """Return the snapshots of this task in storage, newest first."""
        if self.blobs is None:
            return []
        found = await list_snapshots(self.blobs, self.identity.prefix)
        return [blob.name for blob in reversed(found)]


@dataclass(slots=True)
class BlobSnapshots:
    """The snapshots of one task in blob storage.

    Attributes:
        blobs: Where they go.
        identity: Which task.
        scratch: Directory for checkpoints, on the disk of the store.
        keep: How many committed snapshots are kept.
        now_ms: Wall clock.
    """

    blobs: BlobStore
    identity: TaskIdentity
    scratch: Path
    keep: int
    now_ms: Callable[[], int]
    digests: FileDigests = field(default_factory=FileDigests)
    _last: Manifest | None = None
    _committed: Manifest | None = None

    def new_checkpoint_path(self) -> Path:
        """Return a path on the disk of the store that does not exist yet."""
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.scratch / uuid4().hex

    async def upload(
        self, checkpoint: Path, meta: StoreMeta, owner: tuple[int, int]
    ) -> tuple[SnapshotRef, int]:
        """Upload a checkpoint; return its reference and how many bytes were sent.

        Raises:
            StateError: If storage fails; nothing refers to what was uploaded.
        """
        commit = meta.commit
        previous = self._committed
        if previous is None and commit.snapshot is not None:
            try:
                previous = await load_manifest(self.blobs, commit.snapshot.id)
            except StateError as error:
                _log.warning("the snapshot before is not usable, all is uploaded: %s", error)
        origin = SnapshotOrigin(
            task=self.identity,
            epoch=commit.epoch,
            owner=owner,
            created_ms=self.now_ms(),
            changelog_offset=meta.changelog_offset,
            commit_record=encode_commit(commit),
        )
        manifest = await upload_snapshot(
            self.blobs, checkpoint, origin, previous=previous, digests=self.digests
        )
        self._last = manifest
        before = {file.object for file in previous.files} if previous is not None else set[str]()
        sent = sum(file.size for file in manifest.files if file.object not in before)
        return SnapshotRef(manifest.snapshot_id, commit.epoch, meta.changelog_offset), sent

    async def collect(self, committed: SnapshotRef, owner: tuple[int, int]) -> int | None:
        """Delete what no retained snapshot needs, now that ``committed`` is committed.

        Returns:
            Below which changelog offset records are not needed any more, None if unknown.
        """
        if self._last is not None and self._last.snapshot_id == committed.id:
            self._committed = self._last
        plan = await collect(self.blobs, self.identity, committed.id, owner=owner, keep=self.keep)
        if plan.withheld is not None:
            _log.info("old snapshots of %s are kept: %s", self.identity.prefix, plan.withheld)
        manifest = await load_manifest(self.blobs, committed.id)
        floor = manifest.changelog_offset
        for _ in range(self.keep - 1):
            if manifest.previous is None:
                # The replay that would have to start before the first snapshot starts at zero.
                return None
            manifest = await load_manifest(self.blobs, manifest.previous)
            floor = min(floor, manifest.changelog_offset)
        return floor

    async def discard_checkpoint(self, checkpoint: Path) -> None:
        """Remove a checkpoint from local disk."""
        await asyncio.to_thread(shutil.rmtree, checkpoint, ignore_errors=True)


def blob_snapshot_cycle(
    blobs: BlobStore, scratch: Path, job: str, task: TaskId, env: TaskEnvironment
) -> SnapshotCycle:
    """Return what makes the snapshots of one task, by the settings of its worker.

    Args:
        blobs: Where they go.
        scratch: Directory for checkpoints, on the disk of the store.
        job: Name of the job.
        task: Which task.
        env: What the task works with.
    """
    changelog = TopicPartition(env.resolved.plan.changelog(task.subtopology), task.partition)

    async def truncate(below: int) -> None:
        await env.log.delete_records({changelog: below})

    target = BlobSnapshots(
        blobs,
        TaskIdentity(job, task.subtopology, task.partition),
        scratch,
        env.settings.snapshots_retained,
        env.clock.now_ms,
    )
    return SnapshotCycle(
        target,
        truncate,
        env.clock,
        env.metrics.task(str(task)),
        env.settings.snapshot_interval_ms,
        env.failpoint,
    )


class LocalWorkerState:
    """State of one worker: a locked directory, and maybe blob storage.

    Args:
        directory: Opened state directory.
        blobs: Where snapshots go; None for none.
        progress: Told task, bytes done and bytes in all while a snapshot comes in.
        memory: How much memory the stores of all tasks may take together.
    """

    def __init__(
        self,
        directory: StateDirectory,
        blobs: BlobStore | None,
        progress: Callable[[str, int, int], None] | None = None,
        memory: StateMemory | None = None,
    ) -> None:
        self._directory = directory
        self._blobs = blobs
        self._progress = progress or _no_progress
        self._options = _store_options(memory or StateMemory())
        self._scratch = directory.path / "checkpoints"
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def instance_id(self) -> str | None:
        """Stable name of this worker over restarts: it goes with the directory."""
        return self._directory.instance_id

    def stores(self, job: str, task: TaskId) -> RocksDbStores:
        """Return where the store of one task comes from."""
        identity = TaskIdentity(job, task.subtopology, task.partition)
        return RocksDbStores(self._directory, identity, self._blobs, self._progress, self._options)

    def snapshots(self, job: str, task: TaskId, env: TaskEnvironment) -> SnapshotCycle | None:
        """Return what makes the snapshots of one task, None where there is nowhere to put them."""
        if self._blobs is None:
            return None
        return blob_snapshot_cycle(self._blobs, self._scratch, job, task, env)

    def held(self, job: str) -> dict[str, int]:
        """Return the tasks whose state lies here; sizes stand for epochs, more is better."""
        return {
            f"{held.subtopology}-{held.partition}": held.size_bytes
            for held in self._directory.tasks()
            if held.job == job
        }

    def discard(self, job: str, task: TaskId) -> None:
        """Remove the closed store of one task, because it is damaged."""
        path = self._directory.task_path(job, task.subtopology, task.partition)
        _log.warning("%s is discarded; it is rebuilt from snapshot and changelog", path)
        self._directory.discard(path)


def _store_options(memory: StateMemory) -> StoreOptions:
    each = memory.each_bytes
    # What one store gathers before it writes; a few that wait must not fill the memory of all.
    memtable = min(_MEMTABLE_BYTES_MAX, each // 4)
    return StoreOptions(cache_bytes=each, write_buffer_bytes=each, memtable_bytes=memtable)


def _no_progress(task: str, done: int, total: int) -> None:
    del task, done, total
