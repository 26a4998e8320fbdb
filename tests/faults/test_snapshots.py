"""Snapshots that are damaged or gone, and storage that does not answer."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest

from riverrun.engine.errors import PositionLostError
from riverrun.engine.log import TopicPartition
from riverrun.engine.restore import last_commit
from riverrun.state import (
    BlobOptions,
    BlobStoreError,
    Manifest,
    TaskIdentity,
    list_snapshots,
    load_manifest,
    open_blob_store,
)
from tests.s3_server import s3_server

from .harness import CODEC, PARTITIONS, World, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from riverrun.state import BlobInfo, BlobStore

CHANGELOG = "job-0-changelog"
TASKS = [TaskIdentity("job", "0", number) for number in range(PARTITIONS)]


async def begin_of_changelogs(world: World) -> int:
    """Return the smallest offset at which the changelogs begin."""
    partitions = [TopicPartition(CHANGELOG, number) for number in range(PARTITIONS)]
    return min(span.start for span in (await world.log.offsets(partitions)).values())


async def feed_until_changelog_is_cut(world: World) -> None:
    """Feed a running worker until its snapshots have let the changelog's beginning go."""

    async def cut() -> bool:
        await world.feed_and_wait(10)
        return await begin_of_changelogs(world) > 0

    await eventually(cut, "old snapshots and their changelog were let go")


async def manifests_of(world: World, task: TaskIdentity) -> list[Manifest]:
    """Return the manifests of a task: the committed one first, then the others."""
    assert world.blobs is not None
    changelog = TopicPartition(CHANGELOG, task.partition)
    span = (await world.log.offsets([changelog]))[changelog]
    commit = await last_commit(world.log, changelog, span, CODEC)
    assert commit is not None
    assert commit.snapshot is not None
    found = {blob.name for blob in await list_snapshots(world.blobs, task.prefix)}
    names = [commit.snapshot.id, *(found - {commit.snapshot.id})]
    return [await load_manifest(world.blobs, name) for name in names]


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path: Path) -> None:
    path.unlink()


DAMAGES: dict[str, tuple[bool, Callable[[Path], None], str]] = {
    "an object with a flipped byte": (False, flip_a_byte, "is damaged"),
    "a truncated object": (False, cut_in_half, "is damaged"),
    "a missing object": (False, remove, "is not in file://"),
    "a manifest with a flipped byte": (True, flip_a_byte, "is damaged"),
    "a truncated manifest": (True, cut_in_half, "is damaged"),
    "a missing manifest": (True, remove, "is not in file://"),
}

every_damage = pytest.mark.parametrize(
    ("of_manifest", "damage", "complaint"), DAMAGES.values(), ids=DAMAGES.keys()
)


def places_of(world: World, manifest: Manifest, others: Sequence[Manifest]) -> list[Path]:
    """Return the objects, not empty, that only this snapshot is made of."""
    shared = {file.object for other in others for file in other.files}
    own = [file for file in manifest.files if file.object not in shared and file.size]
    return [world.path / "snapshots" / file.object for file in own]


@every_damage
async def test_in_place_of_a_damaged_snapshot_another_one_is_used(
    world_with_snapshots: World,
    caplog: pytest.LogCaptureFixture,
    of_manifest: bool,
    damage: Callable[[Path], None],
    complaint: str,
) -> None:
    world = world_with_snapshots
    async with world.working():
        await feed_until_changelog_is_cut(world)
    for task in TASKS:
        committed, *others = await manifests_of(world, task)
        assert others
        if of_manifest:
            damage(world.path / "snapshots" / committed.snapshot_id)
        else:
            damage(places_of(world, committed, others)[0])

    caplog.set_level(logging.INFO)
    await world.check_works("bare-machine")
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert sum(complaint in each for each in warnings) >= len(TASKS)
    assert "state from snapshot" in caplog.text


@every_damage
async def test_with_no_snapshot_left_that_verifies_the_start_is_refused(
    world_with_snapshots: World,
    of_manifest: bool,
    damage: Callable[[Path], None],
    complaint: str,
) -> None:
    world = world_with_snapshots
    async with world.working():
        await feed_until_changelog_is_cut(world)
    for task in TASKS:
        for manifest in await manifests_of(world, task):
            paths = [world.path / "snapshots" / manifest.snapshot_id]
            if not of_manifest:
                paths = [p for p in places_of(world, manifest, []) if p.exists()]
            for path in paths:
                damage(path)

    error = await world.start("bare-machine").ends()

    assert isinstance(error, PositionLostError)
    assert f"the state of {CHANGELOG}/" in str(error)
    assert complaint in str(error)
    assert "--snapshots" in str(error)
    # With the old disk nothing is missing.
    await world.check_works("machine")


class UnreachableStorage:
    """Storage that refuses while it is not ``is_up``, and says nothing while it ``hangs``."""

    def __init__(self, inner: BlobStore) -> None:
        self._inner = inner
        self.is_up = True
        self.hangs = False
        self.asked = 0

    @property
    def url(self) -> str:
        return self._inner.url

    def replicas(self) -> Sequence[UnreachableStorage]:
        return (self,)

    async def _reach(self) -> BlobStore:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if not self.is_up:
            raise BlobStoreError(f"cannot reach {self.url}: no answer")
        return self._inner

    async def put_if_absent(self, name: str, source: bytes | Path) -> None:
        await (await self._reach()).put_if_absent(name, source)

    async def get(self, name: str) -> bytes:
        return await (await self._reach()).get(name)

    async def get_to_file(self, name: str, target: Path) -> None:
        await (await self._reach()).get_to_file(name, target)

    async def size(self, name: str) -> int | None:
        return await (await self._reach()).size(name)

    async def list(self, prefix: str) -> list[BlobInfo]:
        return await (await self._reach()).list(prefix)

    async def delete(self, names: Sequence[str]) -> None:
        await (await self._reach()).delete(names)


async def test_while_storage_is_away_commits_go_on_and_snapshots_come_back_with_it(
    world_with_snapshots: World,
) -> None:
    world = world_with_snapshots
    assert world.blobs is not None
    storage = world.blobs = UnreachableStorage(world.blobs)
    async with world.working() as running:
        await feed_until_changelog_is_cut(world)
        storage.is_up = False
        failed = "riverrun_snapshot_failures_total"

        async def has_failed_often() -> bool:
            await world.feed_and_wait(10)
            return running.metric(failed) >= 4

        await eventually(has_failed_often, "failed snapshots are counted")
        assert running.metric("riverrun_task_restarts_total") == 0
        await world.feed(close=True)
        await world.check_exact()
        begin = await begin_of_changelogs(world)
        storage.is_up = True

        async def is_cut_further() -> bool:
            await world.feed_and_wait(10)
            return await begin_of_changelogs(world) > begin

        await eventually(is_cut_further, "snapshots are made again")

        async def is_nothing_left() -> bool:
            return not any((world.path / "machine" / "checkpoints").iterdir())

        # One that is being uploaded has its own for that long.
        await eventually(is_nothing_left, "no checkpoint stays of snapshots that failed")
    await world.check_works("bare-machine")


async def test_storage_that_hangs_holds_up_neither_commits_nor_the_end(
    world_with_snapshots: World,
) -> None:
    world = world_with_snapshots
    assert world.blobs is not None
    storage = world.blobs = UnreachableStorage(world.blobs)
    async with world.working() as running:
        storage.hangs = True

        async def hangs() -> bool:
            await world.feed_and_wait(10)
            return storage.asked >= len(TASKS)

        await eventually(hangs, "snapshots hang")
        before = running.metric("riverrun_task_commits_total")
        await world.feed(close=True)
        await world.check_exact()
        assert running.metric("riverrun_task_commits_total") > before
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 30
    storage.hangs = False
    await world.check_works("bare-machine")


async def test_a_restore_waits_for_storage_that_is_away_and_does_not_give_up(
    world_with_snapshots: World,
) -> None:
    world = world_with_snapshots
    assert world.blobs is not None
    storage = world.blobs = UnreachableStorage(world.blobs)
    async with world.working():
        await feed_until_changelog_is_cut(world)
    storage.is_up = False
    storage.asked = 0

    running = world.start("bare-machine")
    await eventually(
        lambda: sum(each["restarts"] for each in running.tasks().values()) >= 4, "it tries again"
    )

    assert not running.run.done()
    for task in running.tasks().values():
        assert "BlobStoreError: cannot reach file://" in task["error"]
    assert not running.worker.status()["ready"]
    # Back-off: each attempt waits twice as long as the one before.
    assert storage.asked < 100
    storage.is_up = True
    await running.until_ready()
    await world.feed()
    await world.check_exact()
    running.worker.stop()
    await running.run


@pytest.mark.s3
async def test_an_s3_server_that_is_gone_delays_snapshots_and_restores_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = BlobOptions(timeout_ms=1_000, attempts=1)
    with s3_server("faults") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        world.blobs = open_blob_store("s3://faults/job", options=quick)
        running = world.start()
        await running.until_ready()
        await feed_until_changelog_is_cut(world)

    failed = "riverrun_snapshot_failures_total"

    async def has_failed() -> bool:
        await world.feed_and_wait(10)
        return running.metric(failed) >= 1

    await eventually(has_failed, "failed snapshots are counted")
    await world.feed(close=True)
    await world.check_exact()
    assert running.metric("riverrun_task_restarts_total") == 0
    running.worker.stop()
    await running.run
    bare = world.start("bare-machine")
    await eventually(
        lambda: all(each["restarts"] >= 1 for each in bare.tasks().values() or [{"restarts": 0}]),
        "it tries again",
    )
    for task in bare.tasks().values():
        assert "BlobStoreError" in task["error"]
        assert "s3://faults/job" in task["error"]
    assert not bare.run.done()
    bare.worker.stop()
    await bare.run
