"""Which snapshots may go. What is in doubt stays.

Two kinds of garbage, and two ways. *Superseded* snapshots are found by their names alone, along
the chain of committed manifests, by the owner who has committed a later one. *Orphans* (uploads
that no commit ever named) can only be found by listing, so that a former owner who does not know
of his successor could take new objects for garbage: hence the grace period.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import SnapshotCorruptError, SnapshotMissingError
from .snapshot import load_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .blob import BlobInfo, BlobStore
    from .manifest import Manifest, Owner, TaskIdentity

GRACE_MS_MIN = 60 * 60 * 1000
"""Must exceed the longest transaction (15 minutes) and the longest pause of a process."""
GRACE_MS = 24 * GRACE_MS_MIN


@dataclass(frozen=True, slots=True)
class DeletionPlan:
    """What may be deleted: the objects first, then the manifests.

    Attributes:
        objects: Names of objects.
        manifests: Snapshot ids.
        withheld: Why nothing is deleted although something might be; None if all is well.
    """

    objects: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    withheld: str | None = None


def decide_superseded(
    manifests: Mapping[str, Manifest],
    committed_id: str,
    *,
    owner: Owner,
    keep: int,
    protected: Iterable[str] = (),
) -> DeletionPlan:
    """Return the committed snapshots, and their objects, that nobody can need any more.

    Args:
        manifests: All manifests of the task that are in storage, by snapshot id.
        committed_id: The snapshot named by the owner's newest commit record.
        owner: Who asks. It must have written ``committed_id`` itself: then whatever the plan
            names was superseded before anybody could take over.
        keep: Committed snapshots to keep, the newest included.
        protected: Snapshot ids to keep whatever their age: savepoints.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    newest = manifests.get(committed_id)
    fault = _doubt(manifests, newest, committed_id, owner)
    if newest is None or fault is not None:
        return DeletionPlan(withheld=fault)
    chain = _chain(manifests, newest)
    kept = {*chain[:keep], *protected}
    doomed = [name for name in chain if name not in kept]
    # Manifests off the chain, committed or not, keep their objects: the sweeper sees to them.
    used = _objects_of(m for name, m in manifests.items() if name not in doomed)
    objects = _objects_of(manifests[name] for name in doomed)
    return DeletionPlan(objects=tuple(sorted(objects - used)), manifests=tuple(sorted(doomed)))


def decide_orphans(
    listing: Sequence[BlobInfo],
    manifests: Mapping[str, Manifest],
    committed_id: str,
    *,
    owner: Owner,
    now_ms: int,
    grace_ms: int = GRACE_MS,
    protected: Iterable[str] = (),
) -> DeletionPlan:
    """Return what lies in storage, older than ``grace_ms``, that no commit names.

    Args:
        listing: Everything below the task's prefix, listed *before* the manifests were read.
        manifests: All manifests of the task, by snapshot id.
        committed_id: As in ``decide_superseded``.
        owner: As in ``decide_superseded``.
        now_ms: The time.
        grace_ms: Age below which nothing is touched.
        protected: As in ``decide_superseded``.
    """
    if grace_ms < GRACE_MS_MIN:
        raise ValueError(f"grace_ms must be at least {GRACE_MS_MIN}, got {grace_ms}")
    newest = manifests.get(committed_id)
    fault = _doubt(manifests, newest, committed_id, owner)
    if newest is None or fault is not None:
        return DeletionPlan(withheld=fault)
    old = {blob.name for blob in listing if blob.modified_ms < now_ms - grace_ms}
    kept = {*_chain(manifests, newest), *protected}
    # One of a later epoch may be on its way into a commit record, however slowly.
    doomed = {
        name
        for name, manifest in manifests.items()
        if name in old and name not in kept and manifest.epoch < newest.epoch
    }
    used = _objects_of(m for name, m in manifests.items() if name not in doomed)
    task = newest.task
    objects = {name for name in old if _is_ours(task, name) and name not in used}
    return DeletionPlan(objects=tuple(sorted(objects)), manifests=tuple(sorted(doomed)))


async def collect(
    blobs: BlobStore,
    task: TaskIdentity,
    committed_id: str,
    *,
    owner: Owner,
    keep: int,
    protected: Iterable[str] = (),
) -> DeletionPlan:
    """Delete superseded snapshots; return what was deleted. Harmless if repeated.

    Call it after a commit of ``owner`` that names ``committed_id``, never before.

    Raises:
        BlobStoreError: The storage failed; a later call takes it up again.
    """
    manifests, fault = await _read_manifests(blobs, task, await blobs.list(task.prefix))
    if fault is not None:
        return DeletionPlan(withheld=fault)
    plan = decide_superseded(manifests, committed_id, owner=owner, keep=keep, protected=protected)
    return await _carry_out(blobs, plan)


async def sweep_orphans(
    blobs: BlobStore,
    task: TaskIdentity,
    committed_id: str,
    *,
    owner: Owner,
    now_ms: int,
    grace_ms: int = GRACE_MS,
    protected: Iterable[str] = (),
) -> DeletionPlan:
    """Delete orphans; return what was deleted. For once a day or so, or by hand.

    Raises:
        BlobStoreError: The storage failed; a later call takes it up again.
    """
    listing = await blobs.list(task.prefix)
    # A second listing for the manifests: one written since the first keeps its objects.
    manifests, fault = await _read_manifests(blobs, task, await blobs.list(task.prefix))
    if fault is not None:
        return DeletionPlan(withheld=fault)
    plan = decide_orphans(
        listing,
        manifests,
        committed_id,
        owner=owner,
        now_ms=now_ms,
        grace_ms=grace_ms,
        protected=protected,
    )
    return await _carry_out(blobs, plan)


def _doubt(
    manifests: Mapping[str, Manifest], newest: Manifest | None, committed_id: str, owner: Owner
) -> str | None:
    """Return why nothing may be deleted, None if there is no reason."""
    if newest is None:
        return f"the committed snapshot {committed_id!r} is not there"
    if newest.owner != owner:
        return f"{committed_id!r} was committed by {newest.owner}, not by {owner}"
    for name, manifest in manifests.items():
        if manifest.snapshot_id != name or manifest.task != newest.task:
            return f"manifest {name!r} is not of {newest.task.prefix}"
        if manifest.owner[0] == owner[0] and manifest.owner[1] > owner[1]:
            return f"manifest {name!r} is of a later owner: {manifest.owner}"
        if not all(newest.task.owns_object(file.object) for file in manifest.files):
            return f"manifest {name!r} names objects that are not of {newest.task.prefix}"
    return None


def _chain(manifests: Mapping[str, Manifest], newest: Manifest) -> list[str]:
    """Return the ids of ``newest`` and the committed ones before it, as far as they are there."""
    chain = [newest.snapshot_id]
    at = newest
    while at.previous is not None and at.previous not in chain:
        before = manifests.get(at.previous)
        if before is None:
            break
        chain.append(before.snapshot_id)
        at = before
    return chain


def _objects_of(manifests: Iterable[Manifest]) -> set[str]:
    """Return the names of all files."""
    return {file.object for manifest in manifests for file in manifest.files}


def _is_ours(task: TaskIdentity, name: str) -> bool:
    """Return whether ``name`` is an object of the task, or what a crash left of writing one."""
    whole, dot, tail = name.partition(".json.") if ".json." in name else (name, "", "")
    if dot and tail.endswith(".partial"):
        return task.owns_snapshot(f"{whole}.json")
    if name.endswith(".partial"):
        return task.owns_object(name.rsplit(".", 2)[0])
    return task.owns_object(name)


async def _read_manifests(
    blobs: BlobStore, task: TaskIdentity, listing: Sequence[BlobInfo]
) -> tuple[dict[str, Manifest], str | None]:
    """Return the manifests in ``listing``, or why they cannot all be believed."""
    manifests: dict[str, Manifest] = {}
    for blob in listing:
        if not blob.name.startswith(f"{task.prefix}/manifests/") or blob.name.endswith(".partial"):
            continue
        try:
            manifests[blob.name] = await load_manifest(blobs, blob.name)
        except (SnapshotCorruptError, SnapshotMissingError) as error:
            return {}, str(error)
    return manifests, None


async def _carry_out(blobs: BlobStore, plan: DeletionPlan) -> DeletionPlan:
    # Objects first: a manifest whose objects are gone is found again, objects without one are not.
    await blobs.delete(plan.objects)
    await blobs.delete(plan.manifests)
    return plan
