"""Start of a task: from the changelog's last commit record to a store that equals it.

1. Read the changelog's end: the last commit record is the authority.
2. Choose a base: the local store, else the newest snapshot that verifies, else the beginning.
3. Replay the deltas after the base.

What is missing or contradicts is refused with a named error, never papered over.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from riverrun.state import OverlayStore, SnapshotCorruptError, SnapshotMissingError

from .changelog import (
    COMMIT_KEY,
    ChangelogReplay,
    CommitRecord,
    StoreMeta,
    decode_commit,
)
from .errors import LogUnavailableError, PositionLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from riverrun.state import StateStore

    from .batch import RawRecords
    from .log import Log, OffsetRange, TopicPartition
    from .plane import RecordBatchCodec

_log = logging.getLogger(__name__)

_TAIL_OFFSETS = 64
"""How far before the end the last commit record is looked for first."""

STALL_MS = 60_000
"""Reading the changelog without any progress for this long is an error, not patience."""


class TaskStores(Protocol):
    """Where the store of one task comes from. Its methods may be slow: they run on a thread."""

    def open_local(self) -> StateStore | None:
        """Return the store left on this machine, None if there is none that can be read."""
        ...

    def create(self) -> StateStore:
        """Return an empty store, having discarded what was there."""
        ...

    async def from_snapshot(self, snapshot_id: str) -> StateStore:
        """Return a store that equals a snapshot, having discarded what was there.

        Raises:
            SnapshotMissingError: If it is not in storage.
            SnapshotCorruptError: If an object of it is damaged.
            BlobStoreError: If storage does not answer.
        """
        ...

    async def snapshot_ids(self) -> list[str]:
        """Return the snapshots of this task in storage, newest first."""
        ...


@dataclass(slots=True)
class Restored:
    """A task's state, ready to go on.

    Attributes:
        store: Equals ``commit``'s epoch.
        commit: The last commit record; None at the very first start.
        changelog_offset: Where the changelog goes on.
        source: Where the state came from, for the log: ``local``, ``snapshot``, ``changelog``,
            ``fresh``.
        replayed: Number of epochs replayed.
    """

    store: OverlayStore
    commit: CommitRecord | None
    changelog_offset: int
    source: str
    replayed: int


async def read_range(
    log: Log, partition: TopicPartition, begin: int, end: int, codec: RecordBatchCodec
) -> AsyncIterator[RawRecords]:
    """Yield the committed records of ``[begin, end)`` of a partition, and none behind ``end``.

    A chunk may reach further, if another owner commits meanwhile: what is left out is not ours to
    see. Who reads twice, as ``restore`` does, finds the same records both times.

    Raises:
        LogUnavailableError: If nothing comes for ``STALL_MS``.
    """
    reader = await log.open_reader({partition: begin})
    try:
        waited_ms = 0
        while reader.position(partition) < end:
            chunks = await reader.poll(1_000)
            waited_ms = 0 if chunks else waited_ms + 1_000
            if waited_ms >= STALL_MS:
                raise LogUnavailableError(
                    f"reading {partition} stands still at offset {reader.position(partition)} of "
                    f"{end} for {STALL_MS // 1000} s ({reader.trouble() or 'no answer'})"
                )
            for chunk in chunks:
                records = codec.decode(chunk)
                yield records if chunk.next_offset <= end else _before(end, records)
    finally:
        await reader.close()


def _before(end: int, records: RawRecords) -> RawRecords:
    kept = bisect_left(records.offsets, end)
    return replace(
        records,
        offsets=records.offsets[:kept],
        timestamps_ms=records.timestamps_ms[:kept],
        keys=records.keys[:kept],
        values=records.values[:kept],
        headers=None if records.headers is None else records.headers[:kept],
    )


async def last_commit(
    log: Log, changelog: TopicPartition, span: OffsetRange, codec: RecordBatchCodec
) -> CommitRecord | None:
    """Return the last commit record of a changelog partition, None if there is none."""
    distance = _TAIL_OFFSETS
    while True:
        begin = max(span.start, span.end - distance)
        found: CommitRecord | None = None
        async for records in read_range(log, changelog, begin, span.end, codec):
            for key, value in zip(records.keys, records.values, strict=True):
                if key == COMMIT_KEY and value is not None:
                    commit = decode_commit(value)
                    if found is None or commit.generation >= found.generation:
                        found = commit
        if found is not None or begin == span.start:
            return found
        distance *= 16


async def restore(
    log: Log,
    changelog: TopicPartition,
    stores: TaskStores,
    codec: RecordBatchCodec,
    run_blocking: Callable[..., Awaitable[object]],
    *,
    allow_fresh: bool = False,
) -> Restored:
    """Return the task's state as of its last commit record.

    Args:
        log: Where the changelog is.
        changelog: The task's partition of it.
        stores: Where its store comes from.
        codec: Decodes record batches.
        run_blocking: Runs a function on the batch thread.
        allow_fresh: Start from nothing although committed work exists somewhere.

    Raises:
        PositionLostError: If committed work exists, but the way to it is broken.
        StateError: If storage or disk fail.
    """
    span = (await log.offsets([changelog]))[changelog]
    authority = await last_commit(log, changelog, span, codec)
    local = await _open_local(stores, run_blocking)
    if authority is None:
        return await _fresh(changelog, span, local, stores, run_blocking, allow_fresh=allow_fresh)
    base, offset, source = await _choose_base(
        changelog, span, authority, local, stores, run_blocking
    )
    overlay = OverlayStore(base)
    newest = _meta(base)
    replay = ChangelogReplay(newest.commit.generation if newest else 0)
    replayed = 0
    async for records in read_range(log, changelog, offset, span.end, codec):
        for epoch in replay.feed(records):
            newest = StoreMeta(epoch.commit, epoch.next_offset)
            overlay.apply(epoch.delta, msgspec.msgpack.encode(newest))
            replayed += 1
        if overlay.should_drain():
            await run_blocking(overlay.drain)
        if replayed:
            _log.debug("%s: replayed to offset %d of %d", changelog, offset, span.end)
    if authority.layout and (newest is None or newest.commit.epoch != authority.epoch):
        raise PositionLostError(
            f"the changelog {changelog} ends with epoch {authority.epoch}, but replaying it from "
            f"{source} came to epoch {newest and newest.commit.epoch}: records are "
            "missing in between. Restore from an older snapshot, or move the local state away"
        )
    return Restored(overlay, authority, span.end, source, replayed)


def _meta(store: StateStore) -> StoreMeta | None:
    data = store.meta()
    return None if data is None else msgspec.msgpack.decode(data, type=StoreMeta)


async def _open_local(
    stores: TaskStores, run_blocking: Callable[..., Awaitable[object]]
) -> tuple[StateStore, StoreMeta] | None:
    store: StateStore | None = await run_blocking(stores.open_local)  # type: ignore[assignment]
    if store is None:
        return None
    try:
        meta = _meta(store)
    except msgspec.DecodeError:
        meta = None
    if meta is None:
        store.close()
        return None
    return store, meta


async def _fresh(
    changelog: TopicPartition,
    span: OffsetRange,
    local: tuple[StateStore, StoreMeta] | None,
    stores: TaskStores,
    run_blocking: Callable[..., Awaitable[object]],
    *,
    allow_fresh: bool,
) -> Restored:
    if local is not None:
        local[0].close()
    evidence: list[str] = []
    if span.start > 0:
        evidence.append(f"its records below offset {span.start} were deleted")
    if local is not None:
        evidence.append(f"the local store is at epoch {local[1].commit.epoch}")
    elif snapshots := await stores.snapshot_ids():
        evidence.append(f"storage holds snapshot {snapshots[0]}")
    if evidence and not allow_fresh:
        raise PositionLostError(
            f"the changelog {changelog} has no commit record, but {' and '.join(evidence)}: "
            "committed work exists and the pointer to it is gone. Bring the topic back, or start "
            "from nothing with --allow-fresh-start (results will be produced again)"
        )
    store: StateStore = await run_blocking(stores.create)  # type: ignore[assignment]
    return Restored(OverlayStore(store), None, span.end, "fresh", 0)


async def _choose_base(
    changelog: TopicPartition,
    span: OffsetRange,
    authority: CommitRecord,
    local: tuple[StateStore, StoreMeta] | None,
    stores: TaskStores,
    run_blocking: Callable[..., Awaitable[object]],
) -> tuple[StateStore, int, str]:
    if local is not None:
        store, meta = local
        same_history = (
            meta.commit.lineage == authority.lineage and meta.commit.epoch <= authority.epoch
        )
        if same_history and span.start <= meta.changelog_offset <= span.end:
            return store, meta.changelog_offset, "local"
        store.close()
        _log.warning("%s: the local store does not fit the changelog, not used", changelog)
    problems: list[str] = []
    candidates = [authority.snapshot.id] if authority.snapshot is not None else []
    while candidates:
        snapshot_id = candidates.pop(0)
        try:
            store = await stores.from_snapshot(snapshot_id)
            meta_or_none = _meta(store)
            if (
                meta_or_none is not None
                and span.start <= meta_or_none.changelog_offset <= span.end
                and meta_or_none.commit.lineage == authority.lineage
            ):
                return store, meta_or_none.changelog_offset, "snapshot"
            store.close()
            problems.append(f"snapshot {snapshot_id} does not fit the changelog")
        except (SnapshotMissingError, SnapshotCorruptError) as error:
            # Storage that does not answer is another matter: that passes, and is tried again.
            problems.append(str(error))
            _log.warning("%s: %s", changelog, error)
        if len(problems) == 1:
            older = [each for each in await stores.snapshot_ids() if each != snapshot_id]
            candidates = older
    if span.start == 0 or not authority.layout:
        # Without tables there is nothing to rebuild: the commit record says it all.
        fresh: StateStore = await run_blocking(stores.create)  # type: ignore[assignment]
        return fresh, 0 if authority.layout else span.end, "changelog"
    raise PositionLostError(
        f"the state of {changelog} cannot be rebuilt: the changelog begins at offset "
        f"{span.start}, and {'; '.join(problems) or 'no snapshot is known'}. Bring the snapshot "
        "back (check --snapshots), or the local state directory"
    )
