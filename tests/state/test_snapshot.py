from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from riverrun.state import (
    BlobStore,
    BlobStoreError,
    Delta,
    Fault,
    FaultyBlobStore,
    FileDigests,
    Manifest,
    RocksDbStore,
    SnapshotCorruptError,
    SnapshotMissingError,
    SnapshotOrigin,
    StateDirectoryFullError,
    StateError,
    StoreOptions,
    TaskIdentity,
    list_snapshots,
    load_manifest,
    open_blob_store,
    replicated,
    restore_snapshot,
    upload_snapshot,
    verify_snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

TASK = TaskIdentity("job", "count", 0)
END = b"\xff" * 8
SMALL = StoreOptions(cache_bytes=8 << 20, write_buffer_bytes=8 << 20)


def origin(epoch: int, *, owner: tuple[int, int] = (7, 0)) -> SnapshotOrigin:
    return SnapshotOrigin(
        task=TASK,
        epoch=epoch,
        owner=owner,
        created_ms=1_000 + epoch,
        changelog_offset=epoch * 10,
        commit_record=b"record %d" % epoch,
    )


class Task:
    """A store that is snapshot epoch by epoch."""

    def __init__(self, blobs: BlobStore, path: Path) -> None:
        self.blobs = blobs
        self.path = path
        path.mkdir()
        self.store = RocksDbStore(path / "store", options=SMALL)
        self.previous: Manifest | None = None
        self.digests = FileDigests()

    async def snapshot(self, epoch: int) -> Manifest:
        rows = {b"%d/%06d" % (epoch, n): b"%d" % epoch * 20 for n in range(2000)}
        self.store.apply(Delta(rows), b"%d" % epoch)
        self.store.flush()
        checkpoint = self.path / f"checkpoint-{epoch}"
        self.store.checkpoint(checkpoint)
        self.previous = await upload_snapshot(
            self.blobs, checkpoint, origin(epoch), previous=self.previous, digests=self.digests
        )
        return self.previous


@pytest.fixture
def task(blobs: BlobStore, tmp_path: Path):
    task = Task(blobs, tmp_path / "task")
    yield task
    task.store.close()


async def test_restored_store_equals_the_snapshot(task: Task, tmp_path: Path) -> None:
    manifest = await task.snapshot(1)
    expected = list(task.store.scan(b"", END))
    await task.snapshot(2)
    seen: list[tuple[int, int]] = []
    restored = await restore_snapshot(
        task.blobs,
        manifest.snapshot_id,
        tmp_path / "restored",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert restored == manifest
    assert (restored.epoch, restored.commit_record, restored.changelog_offset) == (
        1,
        b"record 1",
        10,
    )
    store = RocksDbStore(tmp_path / "restored", options=SMALL)
    assert store.meta() == b"1"
    assert list(store.scan(b"", END)) == expected
    store.close()
    assert seen[-1] == (manifest.size_bytes, manifest.size_bytes)
    assert [path.name for path in tmp_path.glob(".restored*")] == []


async def test_unchanged_files_are_uploaded_once(task: Task) -> None:
    first = await task.snapshot(1)
    second = await task.snapshot(2)
    tables = {f.name: f.object for f in first.files if f.name.endswith(".sst")}
    again = {f.name: f.object for f in second.files if f.name.endswith(".sst")}
    assert tables
    assert tables.items() < again.items()
    objects = {f.object for f in first.files} | {f.object for f in second.files}
    listed = await task.blobs.list(f"{TASK.prefix}/objects")
    assert {blob.name for blob in listed} == objects
    assert second.previous == first.snapshot_id


async def test_same_name_with_other_contents_is_uploaded(task: Task, tmp_path: Path) -> None:
    first = await task.snapshot(1)
    checkpoint = tmp_path / "other"
    checkpoint.mkdir()
    for file in first.files:
        (checkpoint / file.name).write_bytes(b"\0" * file.size)
    second = await upload_snapshot(task.blobs, checkpoint, origin(2, owner=(7, 1)), previous=first)
    assert {f.object for f in first.files}.isdisjoint({f.object for f in second.files if f.size})
    assert await verify_snapshot(task.blobs, first.snapshot_id) == []


async def test_snapshots_are_listed_in_order_and_verified(task: Task) -> None:
    manifests = [await task.snapshot(epoch) for epoch in (1, 2)]
    for prefix in ("", "job", TASK.prefix):
        names = [blob.name for blob in await list_snapshots(task.blobs, prefix)]
        assert names == [manifest.snapshot_id for manifest in manifests]
    assert await load_manifest(task.blobs, names[1]) == manifests[1]
    assert await verify_snapshot(task.blobs, names[1]) == []


async def replace(blobs: BlobStore, name: str, content: bytes | None) -> None:
    await blobs.delete([name])
    if content is not None:
        await blobs.put_if_absent(name, content)


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("victim", ["table", "manifest"])
async def test_damage_is_found_and_leaves_no_directory(
    task: Task, tmp_path: Path, harm: str, victim: str
) -> None:
    manifest = await task.snapshot(1)
    name = manifest.snapshot_id
    if victim == "table":
        name = next(file.object for file in manifest.files if file.name.endswith(".sst"))
    content = bytearray(await task.blobs.get(name))
    content[len(content) // 2] ^= 0x01
    harmed = {"flip": bytes(content), "truncate": bytes(content[:-1]), "delete": None}[harm]
    await replace(task.blobs, name, harmed)
    error = SnapshotMissingError if harm == "delete" else SnapshotCorruptError
    with pytest.raises(error, match=name):
        await restore_snapshot(task.blobs, manifest.snapshot_id, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    assert list(tmp_path.glob(".restored*")) == []
    assert await verify_snapshot(task.blobs, manifest.snapshot_id)


async def test_second_place_heals_the_first(tmp_path: Path) -> None:
    one, two = (open_blob_store((tmp_path / name).as_uri()) for name in ("one", "two"))
    task = Task(replicated([one, two]), tmp_path / "task")
    manifest = await task.snapshot(1)
    task.store.close()
    await replace(one, manifest.snapshot_id, b"{}")
    await replace(one, manifest.files[0].object, b"bad")
    await replace(two, manifest.files[1].object, None)
    await restore_snapshot(task.blobs, manifest.snapshot_id, tmp_path / "restored")
    RocksDbStore(tmp_path / "restored", options=SMALL).close()
    assert len(await verify_snapshot(task.blobs, manifest.snapshot_id)) == 2
    await replace(two, manifest.files[0].object, None)
    # Damaged here and missing there: damaged is told, as it leaves something to look at.
    with pytest.raises(SnapshotCorruptError):
        await restore_snapshot(task.blobs, manifest.snapshot_id, tmp_path / "again")


async def test_manifest_is_written_last_and_only_over_verified_objects(tmp_path: Path) -> None:
    inner = open_blob_store("memory://")
    faulty = FaultyBlobStore(inner, {})
    task = Task(faulty, tmp_path / "task")
    manifest = await task.snapshot(1)
    kinds = [kind for kind, _ in faulty.done]
    assert kinds == ["put"] * len(manifest.files) + ["list", "put", "get"]
    assert faulty.done[-2] == ("put", manifest.snapshot_id)
    task.store.close()


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.LOSE_ANSWER, Fault.TRUNCATE])
@pytest.mark.parametrize("number", range(7))
async def test_no_manifest_ever_names_an_object_that_is_not_there(
    tmp_path: Path, fault: Fault, number: int
) -> None:
    inner = open_blob_store("memory://")
    (tmp_path / "checkpoint").mkdir()
    for name in ("CURRENT", "000001.sst", "000002.sst", "MANIFEST-1", "OPTIONS-1"):
        (tmp_path / "checkpoint" / name).write_bytes(name.encode() * 100)
    operation = ("list", 0) if number == 6 else ("put", number)
    faulty = FaultyBlobStore(inner, {operation: fault})
    with pytest.raises(StateError):
        await upload_snapshot(faulty, tmp_path / "checkpoint", origin(1), previous=None)
    # A manifest may be there if only the answer was lost; then all it names is.
    for blob in await list_snapshots(inner):
        if fault is not Fault.TRUNCATE:
            assert await verify_snapshot(inner, blob.name) == []
    await upload_snapshot(faulty, tmp_path / "checkpoint", origin(1), previous=None)


async def test_object_of_an_earlier_snapshot_that_vanished_is_noticed(task: Task) -> None:
    first = await task.snapshot(1)
    table = next(file.object for file in first.files if file.name.endswith(".sst"))
    await task.blobs.delete([table])
    with pytest.raises(BlobStoreError, match=table):
        await task.snapshot(2)


async def test_restore_refuses_to_overwrite(task: Task, tmp_path: Path) -> None:
    manifest = await task.snapshot(1)
    (tmp_path / "restored").mkdir()
    with pytest.raises(StateError, match="exists already"):
        await restore_snapshot(task.blobs, manifest.snapshot_id, tmp_path / "restored")


async def test_restore_survives_what_an_earlier_attempt_left(tmp_path: Path) -> None:
    task = Task(open_blob_store("memory://"), tmp_path / "task")
    manifest = await task.snapshot(1)
    task.store.close()
    left = tmp_path / ".restored.restoring-1"
    left.mkdir()
    (left / "CURRENT").write_bytes(b"half")
    await restore_snapshot(task.blobs, manifest.snapshot_id, tmp_path / "restored")
    assert not left.exists()
    assert await restored_names(tmp_path / "restored") == [file.name for file in manifest.files]


async def restored_names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


async def test_cancelled_restore_leaves_nothing(tmp_path: Path) -> None:
    task = Task(open_blob_store("memory://"), tmp_path / "task")
    manifest = await task.snapshot(1)
    task.store.close()
    restoring = asyncio.ensure_future(
        restore_snapshot(
            task.blobs,
            manifest.snapshot_id,
            tmp_path / "restored",
            progress=lambda done, total: restoring.cancel() and None,
        )
    )
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert not (tmp_path / "restored").exists()


async def test_restore_checks_the_space_first(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = await task.snapshot(1)

    class Usage:
        free = 10

    monkeypatch.setattr("riverrun.state.snapshot.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(StateDirectoryFullError, match="10 are free"):
        await restore_snapshot(task.blobs, manifest.snapshot_id, tmp_path / "restored")


async def test_unreachable_storage_is_not_taken_for_a_missing_snapshot(tmp_path: Path) -> None:
    task = Task(open_blob_store("memory://"), tmp_path / "task")
    manifest = await task.snapshot(1)
    task.store.close()
    away = FaultyBlobStore(task.blobs, {("get", 0): Fault.FAIL, ("get", 3): Fault.FAIL})
    for _ in range(2):
        with pytest.raises(BlobStoreError, match="told to fail"):
            await restore_snapshot(away, manifest.snapshot_id, tmp_path / "restored")


@pytest.mark.parametrize("name", ["", "x", "../../etc/passwd", "job/count-0/objects/1.1-1-00"])
async def test_what_is_no_snapshot_id_is_missing(name: str) -> None:
    with pytest.raises(SnapshotMissingError, match="not the id"):
        await load_manifest(open_blob_store("memory://"), name)


async def test_unreadable_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="nowhere"):
        await upload_snapshot(
            open_blob_store("memory://"), tmp_path / "nowhere", origin(1), previous=None
        )


async def test_digests_are_computed_once_per_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hashed(path: Path) -> str:
        return f"hashed {path.name}"

    (tmp_path / "a").write_bytes(b"1")
    digests = FileDigests()
    first = await digests.of_directory(tmp_path)
    monkeypatch.setattr("riverrun.state.snapshot.unhurried_sha256", hashed)
    assert await digests.of_directory(tmp_path) == first
    (tmp_path / "a").write_bytes(b"22")
    assert await digests.of_directory(tmp_path) == {"a": (2, "hashed a")}
