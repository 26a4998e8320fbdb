"""Restoring: what the changelog says, from the best base there is, or a refusal that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from riverrun.engine.changelog import (
    COMMIT_KEY,
    DELTA_KEY,
    CommitRecord,
    SnapshotRef,
    encode_commit,
    encode_epoch,
)
from riverrun.engine.clock import ManualClock
from riverrun.engine.errors import FencedError, PositionLostError
from riverrun.engine.log import TopicPartition, TopicSpec
from riverrun.engine.memory_log import MemoryLog
from riverrun.engine.planes import select_plane
from riverrun.engine.restore import (
    FreshStart,
    OpenedStores,
    Restored,
    last_commit,
    read_range,
    restore,
)
from riverrun.state import BlobStoreError, Delta
from tests.batches import encode
from tests.engine.task_world import Disk

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGELOG = TopicPartition("changelog", 0)


async def test_a_range_ends_where_it_was_said_though_another_owner_goes_on() -> None:
    log = MemoryLog(ManualClock(1_000))
    await log.create_topics([TopicSpec("changelog", 1)])
    writer = await log.open_writer("w", transactional=False, timeout_ms=0)
    for value in (b"a", b"b", b"c", b"d"):
        writer.append(*CHANGELOG, encode([value]))
    await writer.flush(0)

    codec = select_plane().record_batches
    found = [records async for records in read_range(log, CHANGELOG, 1, 3, codec)]

    assert [value for records in found for value in records.values] == [b"b", b"c"]
    assert [offset for records in found for offset in records.offsets] == [1, 2]


# --- restore ---------------------------------------------------------------------------------


class Written:
    """A changelog with an epoch per letter: epoch n sets key ``k`` to n and its letter to ``1``."""

    def __init__(self) -> None:
        self.log = MemoryLog(ManualClock(1_000))
        self.codec = select_plane().record_batches
        self.disk = Disk()
        self.epoch = 0
        self.generation = 1
        self.lineage = "l"
        self.snapshot: SnapshotRef | None = None
        self.layout = {"t": "s"}
        self.told: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        await self.log.create_topics([TopicSpec("changelog", 1)])

    async def epochs(self, letters: str) -> None:
        writer = await self.log.open_writer("w", transactional=True, timeout_ms=0)
        for letter in letters:
            self.epoch += 1
            delta = Delta(puts={b"k": str(self.epoch).encode(), letter.encode(): b"1"})
            pieces = encode_epoch(delta, self.generation, self.epoch)
            commit = CommitRecord(
                "job",
                self.lineage,
                "0",
                0,
                self.generation,
                self.epoch,
                len(pieces),
                (),
                (),
                self.layout,
                {},
                self.snapshot,
                0,
                self.generation,
            )
            keys: list[bytes | None] = [DELTA_KEY] * len(pieces) + [COMMIT_KEY]
            values: list[bytes | None] = [*pieces, encode_commit(commit)]
            for batch in self.codec.encode(keys, values, [0] * len(keys), None, 1_000_000):
                writer.append(*CHANGELOG, batch)
            await writer.commit(0)

    async def restored(self, fresh: FreshStart = FreshStart.REFUSED) -> Restored:
        return await restore(self.log, CHANGELOG, self.disk, self.codec, _inline, self._told, fresh)

    async def _told(self) -> dict[TopicPartition, int]:
        return self.told

    async def delete_before(self, offset: int) -> None:
        await self.log.delete_records({CHANGELOG: offset})

    async def snapshot_of(self, name: str) -> None:
        """Have a snapshot of what is committed, which the epochs from now on name."""
        found = await self.restored()
        found.store.drain()
        assert self.disk.store is not None
        self.disk.snapshots[name] = self.disk.store.copy()
        found.store.close()
        self.snapshot = SnapshotRef(name, self.epoch, found.changelog_offset)


async def _inline(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@pytest.fixture
async def written() -> Written:
    found = Written()
    await found.open()
    return found


def content(found: Restored) -> dict[bytes, bytes]:
    return dict(found.store.scan(b"", b"\xff"))


async def test_a_task_that_never_ran_begins_with_nothing(written: Written) -> None:
    found = await written.restored()

    assert (found.source, found.commit, content(found)) == ("fresh", None, {})


async def test_without_a_disk_the_whole_changelog_is_replayed(written: Written) -> None:
    await written.epochs("abc")

    found = await written.restored()

    assert (found.source, found.replayed) == ("changelog", 3)
    assert content(found) == {b"k": b"3", b"a": b"1", b"b": b"1", b"c": b"1"}


async def test_a_disk_goes_on_from_its_own_epoch(written: Written) -> None:
    await written.epochs("ab")
    (await written.restored()).store.close()
    await written.epochs("c")

    found = await written.restored()

    assert (found.source, found.replayed) == ("local", 1)
    assert content(found) == {b"k": b"3", b"a": b"1", b"b": b"1", b"c": b"1"}


async def test_the_last_commit_is_found_however_far_back_it_is(written: Written) -> None:
    await written.epochs("a")
    writer = await written.log.open_writer("w", transactional=False, timeout_ms=0)
    for _ in range(300):  # of an epoch that never came to its commit record
        (piece,) = encode_epoch(Delta(puts={b"x": b"x"}), 9, 9)
        for batch in written.codec.encode([DELTA_KEY], [piece], [0], None, 1_000_000):
            writer.append(*CHANGELOG, batch)
    await writer.flush(0)
    span = (await written.log.offsets([CHANGELOG]))[CHANGELOG]

    found = await last_commit(written.log, CHANGELOG, span, written.codec)

    assert found is not None
    assert found.epoch == 1


async def test_a_lost_disk_begins_with_the_snapshot(written: Written) -> None:
    await written.epochs("ab")
    await written.snapshot_of("s1")
    await written.epochs("c")
    await written.delete_before(4)
    written.disk.store = None

    found = await written.restored()

    assert (found.source, found.replayed) == ("snapshot", 1)
    assert content(found) == {b"k": b"3", b"a": b"1", b"b": b"1", b"c": b"1"}


async def test_a_lost_snapshot_leaves_the_one_before(written: Written) -> None:
    await written.epochs("a")
    await written.snapshot_of("s1")
    await written.epochs("b")
    await written.snapshot_of("s2")
    await written.epochs("c")
    await written.delete_before(2)
    written.disk.store = None
    del written.disk.snapshots["s2"]

    found = await written.restored()

    assert (found.source, found.replayed) == ("snapshot", 2)
    assert content(found)[b"k"] == b"3"


async def test_a_disk_older_than_the_changelog_gives_way_to_the_snapshot(written: Written) -> None:
    await written.epochs("a")
    (await written.restored()).store.close()
    old_disk, written.disk = written.disk, Disk()
    await written.epochs("b")
    await written.snapshot_of("s2")
    await written.epochs("c")
    await written.delete_before(4)
    old_disk.snapshots, written.disk = written.disk.snapshots, old_disk

    found = await written.restored()

    assert (found.source, found.replayed) == ("snapshot", 1)
    assert content(found)[b"k"] == b"3"


async def test_a_disk_that_the_changelog_does_not_lead_on_from_is_left_for_the_next_base(
    written: Written,
) -> None:
    await written.epochs("ab")
    (await written.restored()).store.close()
    # The same epochs again, by another owner: those of the disk do not count.
    other = Written()
    await other.open()
    await other.epochs("a")
    other.generation = 2
    await other.epochs("xyz")
    other.disk = written.disk

    with pytest.raises(PositionLostError, match="came to epoch"):
        await other.restored()


async def test_a_disk_of_another_history_is_not_used(written: Written) -> None:
    await written.epochs("ab")
    (await written.restored()).store.close()
    other = Written()
    await other.open()
    other.lineage = "of a topic that was made again"
    await other.epochs("x")
    other.disk = written.disk

    found = await other.restored()

    assert (found.source, content(found)) == ("changelog", {b"k": b"1", b"x": b"1"})


async def test_without_any_base_it_refuses_and_says_what_is_missing(written: Written) -> None:
    await written.epochs("abc")
    await written.delete_before(2)

    with pytest.raises(PositionLostError, match=r"offsets 2 to 6; no snapshot is known"):
        await written.restored()


async def test_storage_that_does_not_answer_is_no_reason_to_refuse(written: Written) -> None:
    await written.epochs("ab")
    await written.snapshot_of("s1")
    await written.epochs("c")
    written.disk.store = None

    async def away(snapshot_id: str) -> Any:
        raise BlobStoreError("away")

    written.disk.from_snapshot = away  # type: ignore[method-assign]
    with pytest.raises(BlobStoreError):
        await written.restored()


async def test_a_task_without_tables_needs_its_last_commit_and_nothing_else(
    written: Written,
) -> None:
    written.layout = {}
    await written.epochs("abc")
    await written.delete_before(5)

    found = await written.restored()

    assert found.commit is not None
    assert found.commit.epoch == 3


@pytest.mark.parametrize("evidence", ["disk", "snapshot", "offsets", "group"])
async def test_work_without_its_pointer_is_refused_unless_a_new_start_is_meant(
    written: Written, evidence: str
) -> None:
    await written.epochs("a")
    if evidence == "snapshot":
        await written.snapshot_of("s1")
    (await written.restored()).store.close()
    gone = Written()
    await gone.open()
    if evidence == "disk":
        gone.disk = written.disk
    elif evidence == "snapshot":
        gone.disk.snapshots = written.disk.snapshots
    elif evidence == "group":
        gone.told = {TopicPartition("in", 0): 7}
    else:
        await gone.epochs("a")
        await gone.delete_before(2)

    with pytest.raises(PositionLostError, match="--allow-fresh-start"):
        await gone.restored()
    assert (await gone.restored(FreshStart.ALLOWED)).source == "fresh"


async def test_a_takeover_meanwhile_is_no_contradiction(written: Written) -> None:
    class Sleeper(Disk):
        """While this one's disk is opened, another worker owns the task for a while."""

        async def from_snapshot(self, snapshot_id: str) -> Any:
            await written.epochs("xyz")
            await written.delete_before(8)
            return await super().from_snapshot(snapshot_id)

    written.snapshot = SnapshotRef("gone", 1, 2)
    await written.epochs("abc")
    await written.delete_before(1)
    written.disk = Sleeper()

    with pytest.raises(FencedError, match="another worker has taken over"):
        await written.restored()


def test_stores_that_were_opened_are_closed_whatever_became_of_the_start() -> None:
    disk = Disk()
    opened = OpenedStores(disk)
    opened.create()
    assert disk.store is not None
    assert disk.store.is_open

    opened.close()
    opened.close()

    assert not disk.store.is_open
    assert opened.open_local() is disk.store
