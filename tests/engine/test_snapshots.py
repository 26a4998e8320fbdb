"""The cycle of snapshots: due, uploaded, named in a commit, and only then are old ones let go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from riverrun.engine.changelog import CommitRecord, SnapshotRef, StoreMeta
from riverrun.engine.clock import ManualClock
from riverrun.engine.metrics import Metrics
from riverrun.engine.snapshots import SnapshotCycle
from riverrun.state import BlobStoreError, Delta, MemoryStore, OverlayStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OWNER = (1, 0)


class Target:
    """Takes snapshots, as slowly as the test wants."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.done: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.collect_gate = asyncio.Event()
        self.collect_gate.set()
        self.discard_gate = asyncio.Event()
        self.discard_gate.set()
        self.error: Exception | None = None
        self.floor: int | None = 7

    def new_checkpoint_path(self) -> Path:
        return self.room / str(len(list(self.room.iterdir())))

    async def upload(
        self, checkpoint: Path, meta: StoreMeta, owner: tuple[int, int]
    ) -> tuple[SnapshotRef, int]:
        assert checkpoint.exists()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.done.append(f"upload {meta.commit.epoch}")
        return SnapshotRef(f"s{meta.commit.epoch}", meta.commit.epoch, meta.changelog_offset), 10

    async def collect(self, committed: SnapshotRef, owner: tuple[int, int]) -> int | None:
        await self.collect_gate.wait()
        self.done.append(f"collect {committed.id}")
        return self.floor

    async def discard_checkpoint(self, checkpoint: Path) -> None:
        await self.discard_gate.wait()
        self.done.append("discard")


class Commits:
    """Commits one epoch after the other, as a task does."""

    def __init__(self, room: Path) -> None:
        self.clock = ManualClock()
        self.target = Target(room)
        self.truncated: list[int] = []
        self.cycle = SnapshotCycle(
            self.target, self._truncate, self.clock, Metrics("job", "w").task("0-0"), 1_000
        )
        self.store = OverlayStore(MemoryStore())
        self.epoch = 0
        self.named: SnapshotRef | None = None

    async def _truncate(self, below: int) -> None:
        self.truncated.append(below)

    async def commit(self, after_ms: int = 0) -> SnapshotRef | None:
        self.clock.advance(after_ms)
        self.epoch += 1
        record = CommitRecord("job", "l", "0", 0, 1, self.epoch, 0, (), (), {}, {}, self.named, 0)
        meta = StoreMeta(record, self.epoch)
        self.store.apply(Delta(), msgspec.msgpack.encode(meta))
        found = self.cycle.after_commit(self.store, meta, OWNER, _inline)
        self.named = found or self.named
        for _ in range(5):
            await asyncio.sleep(0)
        return found


async def _inline(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@pytest.fixture
def commits(tmp_path: Path) -> Commits:
    return Commits(tmp_path)


async def test_nothing_is_made_before_the_interval_is_over(commits: Commits) -> None:
    await commits.commit(after_ms=999)

    assert commits.target.done == []


async def test_old_ones_go_only_when_a_commit_has_named_the_new_one(commits: Commits) -> None:
    await commits.commit(after_ms=1_000)
    assert commits.target.done == ["upload 1", "discard"]

    named = await commits.commit()
    assert named is not None
    assert named.id == "s1"
    assert commits.target.done == ["upload 1", "discard"]

    await commits.commit()
    assert commits.target.done == ["upload 1", "discard", "collect s1"]
    assert commits.truncated == [7]


async def test_an_upload_that_fails_is_tried_again_an_interval_later(commits: Commits) -> None:
    commits.target.error = BlobStoreError("away")
    await commits.commit(after_ms=1_000)
    assert await commits.commit() is None
    commits.target.error = None

    await commits.commit(after_ms=999)
    assert commits.target.done == ["discard"]
    await commits.commit(after_ms=1)

    assert commits.target.done == ["discard", "upload 4", "discard"]


async def test_commits_go_on_while_an_upload_takes_its_time(commits: Commits) -> None:
    commits.target.gate.clear()
    await commits.commit(after_ms=1_000)

    assert [await commits.commit(after_ms=5_000) for _ in range(3)] == [None, None, None]
    commits.target.gate.set()
    await commits.commit()
    found = await commits.commit()

    assert found is None or found.epoch == 1
    assert commits.named is not None
    assert commits.named.epoch == 1


async def test_no_snapshot_begins_while_old_ones_are_being_let_go(commits: Commits) -> None:
    commits.target.collect_gate.clear()
    for _ in range(3):
        await commits.commit(after_ms=1_000)
    await commits.commit(after_ms=5_000)
    assert commits.target.done == ["upload 1", "discard"]

    commits.target.collect_gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await commits.commit(after_ms=1_000)

    assert commits.target.done == ["upload 1", "discard", "collect s1", "upload 5", "discard"]


async def test_nothing_is_truncated_where_it_is_not_known_what_is_needed(
    commits: Commits,
) -> None:
    commits.target.floor = None
    for _ in range(3):
        await commits.commit(after_ms=1_000)

    assert "collect s1" in commits.target.done
    assert commits.truncated == []


async def test_closing_stops_an_upload(commits: Commits) -> None:
    commits.target.gate.clear()
    await commits.commit(after_ms=1_000)

    await commits.cycle.close()

    assert commits.target.done == ["discard"]


async def test_closing_leaves_no_checkpoint_behind(commits: Commits) -> None:
    commits.target.discard_gate.clear()
    await commits.commit(after_ms=1_000)

    await commits.cycle.close()
    commits.target.discard_gate.set()
    await asyncio.sleep(0)

    assert commits.target.done == ["upload 1", "discard"]
