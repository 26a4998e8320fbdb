"""Snapshots: a checkpoint of a local store in blob storage, and back.

Nothing here is on the way of a commit; a snapshot counts once its id is in a commit record.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from .errors import (
    BlobMissingError,
    BlobStoreError,
    SnapshotCorruptError,
    SnapshotMissingError,
    StateDirectoryFullError,
    StateError,
)
from .files import sync_directory, sync_file
from .manifest import (
    Manifest,
    ManifestFile,
    Owner,
    TaskIdentity,
    decode_manifest,
    encode_manifest,
    is_snapshot_id,
)
from .unhurried import unhurried_sha256

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from .blob import BlobInfo, BlobStore

_Result = TypeVar("_Result")

REMOVALS_MAX = 40
"""How often a directory of a failed restore is tried to be removed, 50 ms apart; what is left then
goes at the next restore."""

TRANSFERS_MAX = 4
"""Files on their way at a time, per snapshot; bounds memory and open connections."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class SnapshotOrigin:
    """What a snapshot is of; see ``Manifest`` for the fields."""

    task: TaskIdentity
    epoch: int
    owner: Owner
    created_ms: int
    changelog_offset: int
    commit_record: bytes


class FileDigests:
    """SHA-256 of files, computed once per file for as long as it stays the same.

    A gigabyte of unchanged files would otherwise be hashed for every snapshot. Keep one per task.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}  # {(inode, size, mtime): digest}

    async def of_directory(self, directory: Path) -> dict[str, tuple[int, str]]:
        """Return ``{name: (size, digest)}``. It takes its time, so that processing can go on.

        Raises:
            OSError: Something in it cannot be read.
        """
        found: dict[str, tuple[int, str]] = {}
        known: dict[tuple[int, int, int], str] = {}
        for path, status in await asyncio.to_thread(_files_of, directory):
            # Hard links share the inode: a file keeps its identity over checkpoints.
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            digest = self._known.get(identity) or await unhurried_sha256(path)
            known[identity] = digest
            found[path.name] = (status.st_size, digest)
        self._known = known
        return found


def _files_of(directory: Path) -> list[tuple[Path, os.stat_result]]:
    return [(path, path.stat()) for path in sorted(directory.iterdir())]


async def upload_snapshot(
    blobs: BlobStore,
    checkpoint: Path,
    origin: SnapshotOrigin,
    *,
    previous: Manifest | None,
    digests: FileDigests | None = None,
) -> Manifest:
    """Upload the directory ``checkpoint`` and return its manifest, durable in ``blobs``.

    A file that ``previous`` has with the same name, size and SHA-256 is not uploaded again,
    whoever wrote it: it is compared by content, and deletion spares what the newest committed
    snapshots refer to. If it fails, what was uploaded is an orphan for the sweeper.

    Args:
        blobs: Where to.
        checkpoint: A directory that nobody changes until this returns.
        origin: What it is of.
        previous: Manifest of the task's newest *committed* snapshot.
        digests: Remembers hashes from one snapshot to the next.

    Raises:
        BlobStoreError: The storage failed. Try again with the next snapshot.
        StateError: The checkpoint cannot be read.
    """
    # 1. What there is.
    try:
        contents = await (digests or FileDigests()).of_directory(checkpoint)
    except OSError as error:
        raise StateError(f"cannot read checkpoint {checkpoint}: {error}") from error
    # 2. What is there already.
    before: dict[tuple[str, int, str], str] = {}
    if previous is not None and previous.task == origin.task:
        before = {(file.name, file.size, file.sha256): file.object for file in previous.files}
    files: list[ManifestFile] = []
    new: list[ManifestFile] = []
    for name, (size, digest) in contents.items():
        known = before.get((name, size, digest))
        target = known or origin.task.new_object(origin.owner, origin.epoch)
        files.append(ManifestFile(name=name, object=target, size=size, sha256=digest))
        if known is None:
            new.append(files[-1])
    # 3. Upload the rest.
    await _together(lambda file: blobs.put_if_absent(file.object, checkpoint / file.name), new)
    # 4. See that every object is there, in every place, those of earlier snapshots included.
    await _check_present(blobs, origin.task, files)
    # 5. The manifest, last.
    manifest = Manifest(
        snapshot_id=origin.task.new_snapshot_id(origin.owner, origin.epoch),
        task=origin.task,
        epoch=origin.epoch,
        owner=origin.owner,
        created_ms=origin.created_ms,
        changelog_offset=origin.changelog_offset,
        commit_record=origin.commit_record,
        previous=previous.snapshot_id if before and previous is not None else None,
        files=tuple(files),
    )
    content = encode_manifest(manifest)
    await blobs.put_if_absent(manifest.snapshot_id, content)
    for place in blobs.replicas():
        if await place.get(manifest.snapshot_id) != content:
            raise BlobStoreError(f"{place.url} does not return manifest {manifest.snapshot_id!r}")
    return manifest


async def load_manifest(blobs: BlobStore, snapshot_id: str) -> Manifest:
    """Return the manifest ``snapshot_id`` from the first place that has it whole.

    Raises:
        SnapshotMissingError: No place has it.
        SnapshotCorruptError: No place has it whole.
        BlobStoreError: No place that could be asked has it, and some could not be asked.
    """

    async def read(place: BlobStore) -> Manifest:
        return decode_manifest(snapshot_id, await place.get(snapshot_id))

    if not is_snapshot_id(snapshot_id):
        raise SnapshotMissingError(f"{snapshot_id!r} is not the id of a snapshot")
    return await _from_first(blobs, snapshot_id, f"manifest {snapshot_id!r}", read)


async def restore_snapshot(
    blobs: BlobStore, snapshot_id: str, target: Path, *, progress: Progress | None = None
) -> Manifest:
    """Make the directory ``target``, which must not exist, from a snapshot; durable on return.

    Every file is verified; ``target`` appears whole or not at all.

    Raises:
        SnapshotMissingError: The manifest or an object is not there.
        SnapshotCorruptError: The manifest or an object is damaged.
        BlobStoreError: The storage failed; try again.
        StateDirectoryFullError: The local disk is full.
        StateError: The local disk failed, or ``target`` exists.
    """
    manifest = await load_manifest(blobs, snapshot_id)
    if target.exists():
        raise StateError(f"{target} exists already; discard it before restoring {snapshot_id!r}")
    # A name of its own: a thread of an attempt that was cancelled may still write to that one's.
    aside = target.with_name(f".{target.name}.restoring-{uuid4().hex}")
    done = 0

    async def fetch(file: ManifestFile) -> None:
        nonlocal done
        await _fetch(blobs, snapshot_id, file, aside / file.name)
        done += file.size
        if progress is not None:
            progress(done, manifest.size_bytes)

    try:
        for left in target.parent.glob(f".{target.name}.restoring-*"):
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        aside.mkdir(mode=0o700, parents=True)
        free = shutil.disk_usage(aside).free
        if free < manifest.size_bytes:
            raise StateDirectoryFullError(
                f"cannot restore {snapshot_id!r} to {target}: it takes {manifest.size_bytes} "
                f"bytes, {free} are free. Free or add disk space."
            )
        await _together(fetch, manifest.files)
        await asyncio.to_thread(sync_directory, aside)
        aside.rename(target)
        await asyncio.to_thread(sync_directory, target.parent)
    except OSError as error:
        raise StateError(f"cannot restore {snapshot_id!r} to {target}: {error}") from error
    finally:
        # A download that was cancelled may still be on its thread, writing a file: so again.
        for _ in range(REMOVALS_MAX):
            await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)
            if not aside.exists():
                break
            await asyncio.sleep(0.05)
    return manifest


async def list_snapshots(blobs: BlobStore, prefix: str = "") -> list[BlobInfo]:
    """Return the manifests below ``prefix`` (``JOB``, ``JOB/SUBTOPOLOGY-PARTITION`` or all).

    Oldest epoch first within a task. Some may never have been committed.
    """
    return [blob for blob in await blobs.list(prefix) if is_snapshot_id(blob.name)]


async def verify_snapshot(blobs: BlobStore, snapshot_id: str) -> list[str]:
    """Read everything a snapshot is made of, in every place; return what is wrong, in words."""
    problems: list[str] = []

    async def check(place: BlobStore, file: ManifestFile) -> None:
        try:
            content = await place.get(file.object)
        except BlobStoreError as error:
            problems.append(f"{file.name}: {error}")
            return
        digest = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
        if len(content) != file.size or digest != file.sha256:
            problems.append(
                f"{file.name}: {file.object!r} in {place.url} differs from the manifest"
            )

    for place in blobs.replicas():
        try:
            manifest = await load_manifest(place, snapshot_id)
        except StateError as error:
            problems.append(str(error))
            continue
        await _together(partial(check, place), manifest.files)
    return sorted(problems)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex. Slow: call it on a thread."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _check_present(
    blobs: BlobStore, task: TaskIdentity, files: Sequence[ManifestFile]
) -> None:
    for place in blobs.replicas():
        sizes = {blob.name: blob.size for blob in await place.list(f"{task.prefix}/objects")}
        for file in files:
            if sizes.get(file.object) != file.size:
                raise BlobStoreError(
                    f"{file.object!r} in {place.url} has {sizes.get(file.object)} bytes instead of "
                    f"{file.size}; the snapshot is given up, the next one will upload it again"
                )


async def _fetch(blobs: BlobStore, snapshot_id: str, file: ManifestFile, path: Path) -> None:
    """Bring one file to ``path`` from the first place whose copy verifies."""

    async def fetch(place: BlobStore) -> None:
        try:
            await place.get_to_file(file.object, path)
        except BlobStoreError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StateDirectoryFullError(
                    f"no space left to restore {snapshot_id!r} to {path.parent}: {error}. Free or "
                    "add disk space."
                ) from error
            raise
        size = path.stat().st_size
        digest = await asyncio.to_thread(file_sha256, path)
        if size != file.size or digest != file.sha256:
            raise SnapshotCorruptError(
                f"object {file.object!r} of snapshot {snapshot_id!r} in {place.url} is damaged: "
                f"{size} bytes, SHA-256 {digest}; {file.size} bytes, {file.sha256} expected. "
                "Restore from an earlier snapshot."
            )
        await asyncio.to_thread(sync_file, path)

    what = f"object {file.object!r} of snapshot {snapshot_id!r}"
    await _from_first(blobs, snapshot_id, what, fetch)


async def _from_first(
    blobs: BlobStore, snapshot_id: str, what: str, read: Callable[[BlobStore], Awaitable[_Result]]
) -> _Result:
    """Return what ``read`` makes of the first place where it works.

    If it works nowhere, raise what leaves most hope: unreachable before damaged before missing.
    """
    errors: list[StateError] = []
    for place in blobs.replicas():
        try:
            return await read(place)
        except BlobMissingError as error:
            missing = SnapshotMissingError(
                f"{what} is not in {place.url}. Check that this is the right storage, or restore "
                f"from another snapshot than {snapshot_id!r}."
            )
            missing.__cause__ = error
            errors.append(missing)
        except (BlobStoreError, SnapshotCorruptError) as error:
            errors.append(error)
    hope = (BlobStoreError, SnapshotCorruptError, SnapshotMissingError)
    raise min(errors, key=lambda error: [isinstance(error, kind) for kind in hope].index(True))


async def _together(
    job: Callable[[ManifestFile], Awaitable[None]], files: Sequence[ManifestFile]
) -> None:
    """Run ``job`` for each file, few at a time; raise the first error when all have stopped."""
    slots = asyncio.Semaphore(TRANSFERS_MAX)

    async def run(file: ManifestFile) -> None:
        async with slots:
            await job(file)

    tasks = [asyncio.ensure_future(run(file)) for file in files]
    if not tasks:
        return
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
