"""The disk under the state: in use, not writable, full, damaged."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from riverrun.engine.clock import SystemClock
from riverrun.engine.memory_log import MemoryLog
from riverrun.state import (
    OverlayLimits,
    StateDirectory,
    StateDirectoryInUseError,
    StateError,
    open_blob_store,
)

from .harness import Running, World, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


async def test_a_directory_in_use_is_refused_naming_the_process(world: World) -> None:
    async with world.working():
        with pytest.raises(StateDirectoryInUseError) as caught:
            world.start()
        assert f"{world.path / 'machine'} is in use by process {os.getpid()}" in str(caught.value)
        assert "Stop that worker, or give this one another state directory" in str(caught.value)
        # The one at work has noticed nothing.
        await world.feed()
        await world.check_exact()


async def test_a_directory_that_cannot_be_made_is_refused(world: World) -> None:
    (world.path / "machine").write_text("a file in the way")

    with pytest.raises(StateError, match=r"cannot use state directory .*/machine: "):
        world.start()

    (world.path / "machine").unlink()
    await world.check_works()


async def test_a_first_start_waits_until_there_is_room_for_a_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1_000_000]
    monkeypatch.setattr(StateDirectory, "free_bytes", lambda self: free[0])
    await world.feed()

    running = world.start()
    await eventually(
        lambda: sum(each["restarts"] for each in running.tasks().values()) >= 2, "it tries again"
    )

    for task in running.tasks().values():
        assert "StateDirectoryFullError" in task["error"]
        assert (
            f"{world.path / 'machine'} has 1000000 bytes free, 268435456 are needed"
            in (task["error"])
        )
        assert "Free or add disk space" in task["error"]
    free[0] = 1 << 40
    await running.until_ready()
    await world.check_exact()
    running.worker.stop()
    await running.run


async def feed_until_snapshot(world: World, running: Running) -> None:
    async def has_snapshot() -> bool:
        await world.feed_and_wait(10)
        return running.metric("riverrun_snapshot_bytes_total") > 0

    await eventually(has_snapshot, "a snapshot is made")


class SmallDisk:
    """A disk that can be filled and freed: a file system of its own, or a limit of the process.

    Where mounting is not allowed it is the limit, whatever is asked for.
    """

    def __init__(self, path: Path, *, mount: bool) -> None:
        self.path = path
        path.mkdir()
        self.is_mounted = mount and self._mount("size=1g")

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            return False

    def fill(self) -> None:
        """Leave no room for another byte."""
        if self.is_mounted:
            used = os.statvfs(self.path)
            assert self._mount(f"remount,size={(used.f_blocks - used.f_bfree) * used.f_bsize}")
        else:
            # No file of this process may grow: the same to RocksDB, but for the error's text.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free(self) -> None:
        """Make room again."""
        if self.is_mounted:
            assert self._mount("remount,size=1g")
        else:
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )

    def remove(self) -> None:
        self.free()
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture(params=["file system", "limit"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", mount=request.param == "file system")
    try:
        yield disk
    finally:
        disk.remove()


async def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every epoch goes to RocksDB, whose flushes meet the full disk.
    monkeypatch.setattr(
        "riverrun.state.overlay.OverlayLimits", partial(OverlayLimits, rows=1, block_bytes=1)
    )
    # The log is elsewhere, as a broker is.
    log = MemoryLog(SystemClock())
    await log.start(1_000)
    world = World(disk.path, log, blobs=open_blob_store("memory://"))
    await world.create_source()

    async with world.working() as running:
        await feed_until_snapshot(world, running)
        disk.fill()

        async def has_failed() -> bool:
            await world.feed(10, close=False)
            return running.metric("riverrun_task_restarts_total") >= 2

        await eventually(has_failed, "the tasks meet the full disk")
        errors = [each["error"] for each in running.tasks().values() if each["error"]]
        assert errors
        for error in errors:
            assert "StateDirectoryFullError" in error
            assert str(disk.path / "machine") in error
            assert "Free or add disk space" in error
        assert not running.run.done()
        disk.free()
        await world.feed()
        await world.check_exact()
    # Nor has any half-written file come to count.
    await world.check_works()
    await world.check_works("bare-machine")
    await log.close()


def table_files(store: Path) -> list[Path]:
    files = sorted(store.glob("*.sst"))
    assert files
    return files


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(each ^ 0x55 for each in path.read_bytes()))


def overwrite_rows(store: Path) -> None:
    """Spoil what is read at work, not what is read when the store is opened."""
    for path in table_files(store):
        content = bytearray(path.read_bytes())
        content[10:40] = b"\x55" * 30
        path.write_bytes(content)


def overwrite_current(store: Path) -> None:
    overwrite(store / "CURRENT")


def remove_current(store: Path) -> None:
    (store / "CURRENT").unlink()


def truncate_manifest(store: Path) -> None:
    (manifest,) = store.glob("MANIFEST-*")
    manifest.write_bytes(manifest.read_bytes()[: manifest.stat().st_size // 2])


def overwrite_tables(store: Path) -> None:
    for path in table_files(store):
        overwrite(path)


def remove_tables(store: Path) -> None:
    for path in table_files(store):
        path.unlink()


def empty_tables(store: Path) -> None:
    for path in table_files(store):
        path.write_bytes(b"")


@pytest.mark.parametrize("with_snapshots", [False, True], ids=["changelog", "snapshot"])
@pytest.mark.parametrize(
    "damage",
    [
        overwrite_rows, overwrite_current, remove_current, truncate_manifest, overwrite_tables,
        remove_tables, empty_tables,
    ],
)  # fmt: skip
async def test_a_damaged_store_is_rebuilt_with_a_warning(
    world: World,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    with_snapshots: bool,
) -> None:
    if with_snapshots:
        world.blobs = open_blob_store((world.path / "snapshots").as_uri())
    async with world.working() as running:
        await world.feed_and_wait(200)
        if with_snapshots:
            await feed_until_snapshot(world, running)
    for store in (world.path / "machine" / "tasks" / "job").iterdir():
        damage(store)

    await world.check_works()

    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    # RocksDB takes the end of a cut manifest for a crash: the store is that of an earlier epoch.
    if damage is not truncate_manifest:
        assert any("is rebuilt from snapshot and changelog" in each for each in warnings)
