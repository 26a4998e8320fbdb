from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.state import (
    BlobInfo,
    BlobStoreError,
    Fault,
    FaultyBlobStore,
    Manifest,
    ManifestFile,
    SnapshotOrigin,
    TaskIdentity,
    collect,
    list_snapshots,
    open_blob_store,
    sweep_orphans,
    upload_snapshot,
    verify_snapshot,
)
from riverrun.state.retention import GRACE_MS_MIN, decide_orphans, decide_superseded

if TYPE_CHECKING:
    from pathlib import Path

TASK = TaskIdentity("job", "count", 0)
OWNER = (7, 3)


def chain(length: int, **changes: Any) -> dict[str, Manifest]:
    """Return committed manifests, oldest first; each shares one object with its predecessor."""
    manifests: dict[str, Manifest] = {}
    previous: Manifest | None = None
    for epoch in range(length):
        shared = previous.files[1:] if previous else ()
        new = ManifestFile(f"{epoch}.sst", TASK.new_object(OWNER, epoch), 1, "0" * 64)
        manifest = Manifest(
            snapshot_id=TASK.new_snapshot_id(OWNER, epoch),
            task=TASK,
            epoch=epoch,
            owner=OWNER,
            created_ms=0,
            changelog_offset=0,
            commit_record=b"",
            previous=previous.snapshot_id if previous else None,
            files=(*shared, new),
        )
        manifest = msgspec.structs.replace(manifest, **changes)
        manifests[manifest.snapshot_id] = previous = manifest
    return manifests


def objects(manifests: list[Manifest]) -> set[str]:
    return {file.object for manifest in manifests for file in manifest.files}


@given(st.integers(1, 8), st.integers(1, 9), st.sets(st.integers(0, 7)))
def test_only_what_no_kept_snapshot_needs_is_deleted(
    length: int, keep: int, saved: set[int]
) -> None:
    manifests = chain(length)
    ids = list(manifests)
    protected = [ids[number] for number in saved if number < length]
    plan = decide_superseded(manifests, ids[-1], owner=OWNER, keep=keep, protected=protected)
    kept = {*ids[-keep:], *protected}
    assert plan.withheld is None
    assert set(plan.manifests) == set(ids) - kept
    needed = objects([manifests[name] for name in kept])
    assert set(plan.objects) == objects(list(manifests.values())) - needed


def test_snapshots_after_the_committed_one_keep_their_objects() -> None:
    manifests = chain(5)
    ids = list(manifests)
    plan = decide_superseded(manifests, ids[2], owner=OWNER, keep=1)
    assert set(plan.manifests) == set(ids[:2])
    assert objects([manifests[name] for name in ids[2:]]).isdisjoint(plan.objects)


def test_manifest_that_was_never_committed_keeps_its_objects() -> None:
    manifests = chain(4)
    ids = list(manifests)
    stray = msgspec.structs.replace(
        manifests[ids[0]], snapshot_id=TASK.new_snapshot_id(OWNER, 0), previous=None
    )
    plan = decide_superseded(manifests | {stray.snapshot_id: stray}, ids[-1], owner=OWNER, keep=1)
    assert stray.snapshot_id not in plan.manifests
    assert objects([stray]).isdisjoint(plan.objects)


def test_chain_ends_where_manifests_are_gone_already() -> None:
    manifests = chain(5)
    ids = list(manifests)
    del manifests[ids[1]]
    plan = decide_superseded(manifests, ids[-1], owner=OWNER, keep=1)
    assert set(plan.manifests) == {ids[2], ids[3]}


@pytest.mark.parametrize(
    ("doubt", "reason"),
    [
        ("missing", "is not there"),
        ("other owner", "was committed by"),
        ("later owner", "later owner"),
        ("other task", "is not of"),
        ("other name", "is not of"),
        ("foreign object", "not of job/count-0"),
    ],
)
def test_any_doubt_deletes_nothing(doubt: str, reason: str) -> None:
    manifests = chain(4)
    *_, newest = manifests
    committed, owner = newest, OWNER
    if doubt == "missing":
        committed = TASK.new_snapshot_id(OWNER, 9)
    elif doubt == "other owner":
        owner = (7, 4)
    else:
        [name, *_] = manifests
        foreign = ManifestFile("x", "other/task-0/objects/x", 1, "0" * 64)
        changes: dict[str, Any] = {
            "later owner": {"owner": (7, 4)},
            "other task": {"task": TaskIdentity("job", "count", 1)},
            "other name": {"snapshot_id": TASK.new_snapshot_id(OWNER, 1)},
            "foreign object": {"files": (foreign,)},
        }[doubt]
        manifests[name] = msgspec.structs.replace(manifests[name], **changes)
    plan = decide_superseded(manifests, committed, owner=owner, keep=1)
    sweep = decide_orphans(
        [BlobInfo(TASK.new_object(OWNER, 1), 1, 0)],
        manifests,
        committed,
        owner=owner,
        now_ms=10 * GRACE_MS_MIN,
        grace_ms=GRACE_MS_MIN,
    )
    for decision in (plan, sweep):
        assert (decision.objects, decision.manifests) == ((), ())
        assert decision.withheld is not None
        assert reason in decision.withheld


def sweep_plan(listing: list[BlobInfo], manifests: dict[str, Manifest], committed: str):
    now_ms = 10 * GRACE_MS_MIN
    return decide_orphans(
        listing, manifests, committed, owner=OWNER, now_ms=now_ms, grace_ms=GRACE_MS_MIN
    )


def test_orphans_are_swept_after_their_grace() -> None:
    manifests = chain(2)
    *_, committed = manifests
    old, young = TASK.new_object(OWNER, 1), TASK.new_object(OWNER, 1)
    partial = f"{TASK.new_object(OWNER, 1)}.{'0' * 32}.partial"
    half_manifest = f"{TASK.new_snapshot_id(OWNER, 1)}.{'0' * 32}.partial"
    used = objects(list(manifests.values()))
    names = [old, partial, half_manifest, *used, f"{TASK.prefix}/objects/README", "job/other"]
    listing = [BlobInfo(name, 1, 0) for name in names]
    listing.append(BlobInfo(young, 1, 9 * GRACE_MS_MIN))
    plan = sweep_plan(listing, manifests, committed)
    assert set(plan.objects) == {old, partial, half_manifest}
    assert plan.manifests == ()


def test_uncommitted_manifest_is_swept_once_a_later_one_is_committed() -> None:
    manifests = chain(3)
    ids = list(manifests)
    file = ManifestFile("x", TASK.new_object(OWNER, 1), 1, "0" * 64)
    for epoch in (1, 2):
        name = TASK.new_snapshot_id(OWNER, epoch)
        manifests[name] = msgspec.structs.replace(
            manifests[ids[1]], snapshot_id=name, epoch=epoch, files=(file,)
        )
    listing = [BlobInfo(name, 1, 0) for name in (*manifests, file.object)]
    plan = sweep_plan(listing, manifests, ids[-1])
    # That of epoch 2 may be on its way into a commit, and keeps the object.
    assert (plan.manifests, plan.objects) == ((list(manifests)[3],), ())


def test_senseless_numbers_are_refused() -> None:
    manifests = chain(1)
    [name] = manifests
    with pytest.raises(ValueError, match="keep"):
        decide_superseded(manifests, name, owner=OWNER, keep=0)
    with pytest.raises(ValueError, match="grace_ms"):
        decide_orphans([], manifests, name, owner=OWNER, now_ms=0, grace_ms=1000)


class Uploader:
    def __init__(self, blobs: Any, path: Path) -> None:
        self.blobs = blobs
        self.path = path
        self.manifests: list[Manifest] = []

    async def upload(self, epoch: int, *, owner: tuple[int, int] = OWNER) -> Manifest:
        checkpoint = self.path / str(epoch)
        checkpoint.mkdir(parents=True)
        for name in (f"{epoch - 1}.sst", f"{epoch}.sst"):
            (checkpoint / name).write_bytes(name.encode())
        origin = SnapshotOrigin(TASK, epoch, owner, 0, 0, b"")
        previous = self.manifests[-1] if self.manifests else None
        manifest = await upload_snapshot(self.blobs, checkpoint, origin, previous=previous)
        self.manifests.append(manifest)
        return manifest


async def test_collect_keeps_the_newest_snapshots_whole(blobs: Any, tmp_path: Path) -> None:
    uploader = Uploader(blobs, tmp_path / "task")
    for epoch in range(1, 6):
        await uploader.upload(epoch)
    committed = uploader.manifests[-1].snapshot_id
    plan = await collect(blobs, TASK, committed, owner=OWNER, keep=2)
    assert len(plan.manifests) == 3
    kept = [blob.name for blob in await list_snapshots(blobs)]
    assert kept == [manifest.snapshot_id for manifest in uploader.manifests[-2:]]
    for name in kept:
        assert await verify_snapshot(blobs, name) == []
    assert len(await blobs.list(f"{TASK.prefix}/objects")) == 3
    again = await collect(blobs, TASK, committed, owner=OWNER, keep=2)
    assert (again.objects, again.manifests) == ((), ())


async def test_collect_that_failed_midway_is_taken_up_again(tmp_path: Path) -> None:
    inner = open_blob_store("memory://")
    uploader = Uploader(inner, tmp_path)
    for epoch in range(1, 5):
        await uploader.upload(epoch)
    committed = uploader.manifests[-1].snapshot_id
    faulty = FaultyBlobStore(inner, {("delete", 1): Fault.FAIL})
    with pytest.raises(BlobStoreError):
        await collect(faulty, TASK, committed, owner=OWNER, keep=1)
    await collect(faulty, TASK, committed, owner=OWNER, keep=1)
    assert len(await list_snapshots(inner)) == 1
    assert await verify_snapshot(inner, committed) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"junk"])
async def test_malformed_manifest_stops_every_deletion(tmp_path: Path, content: bytes) -> None:
    blobs = open_blob_store("memory://")
    uploader = Uploader(blobs, tmp_path)
    for epoch in range(1, 4):
        await uploader.upload(epoch)
    committed = uploader.manifests[-1].snapshot_id
    before = await blobs.list("")
    await blobs.put_if_absent(TASK.new_snapshot_id(OWNER, 1), content)
    for plan in (
        await collect(blobs, TASK, committed, owner=OWNER, keep=1),
        await sweep_orphans(blobs, TASK, committed, owner=OWNER, now_ms=2**60),
    ):
        assert plan.withheld is not None
    assert len(await blobs.list("")) == len(before) + 1


async def test_former_owner_deletes_nothing_that_a_new_owner_needs(tmp_path: Path) -> None:
    blobs = open_blob_store("memory://")
    uploader = Uploader(blobs, tmp_path)
    for epoch in range(1, 4):
        await uploader.upload(epoch)
    old = uploader.manifests[-1].snapshot_id
    new = await uploader.upload(4, owner=(7, 4))
    plan = await collect(blobs, TASK, old, owner=OWNER, keep=1)
    assert plan.withheld is not None
    assert await verify_snapshot(blobs, new.snapshot_id) == []
    await collect(blobs, TASK, new.snapshot_id, owner=(7, 4), keep=1)
    assert await verify_snapshot(blobs, new.snapshot_id) == []
    assert len(await list_snapshots(blobs)) == 1


async def test_sweep_removes_an_upload_that_was_given_up(blobs: Any, tmp_path: Path) -> None:
    uploader = Uploader(blobs, tmp_path / "task")
    committed = await uploader.upload(1)
    orphan = TASK.new_object(OWNER, 1)
    await blobs.put_if_absent(orphan, b"orphan")
    modified_ms = max(blob.modified_ms for blob in await blobs.list(""))
    grace = {"owner": OWNER, "grace_ms": GRACE_MS_MIN}
    early = await sweep_orphans(
        blobs, TASK, committed.snapshot_id, now_ms=modified_ms + 1000, **grace
    )
    assert early.objects == ()
    late = await sweep_orphans(
        blobs, TASK, committed.snapshot_id, now_ms=modified_ms + 2 * GRACE_MS_MIN, **grace
    )
    assert late.objects == (orphan,)
    assert await verify_snapshot(blobs, committed.snapshot_id) == []
