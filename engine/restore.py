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
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from riverrun.state import OverlayStore, SnapshotCorruptError, SnapshotMissingError

from .changelog import (
    COMMIT_KEY,
    ChangelogReplay,
    CommitRecord,
    History,
    StoreMeta,
    decode_commit,
)
from .errors import (
    CorruptBatchError,
    FencedError,
    LogUnavailableError,
    OffsetOutOfRangeError,
    PositionLostError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from riverrun.state import StateStore

    from .batch import RawRecords
    from .log import Log, OffsetRange, TopicPartition
    from .plane import RecordBatchCodec

_log = logging.getLogger(__name__)

_TAIL_OFFSETS = 64
"""How far before the end the last commit record is looked for first."""

PROGRESS_OFFSETS = 10_000
"""A replay of more offsets than this, a few seconds of work, tells how far it is."""

STALL_MS = 60_000
"""Reading the changelog without any progress for this long is an error, not patience."""


class FreshStart(Enum):
    """Whether a task may start from nothing where committed work is lost; and what is told then."""

    REFUSED = "or start from nothing with --allow-fresh-start (results will be produced again)"
    ALLOWED = "starting from nothing as told"
    IMPOSSIBLE = (
        "or start a job of another name (--allow-fresh-start cannot help: repartition topics hold "
        "records of the work that is lost, and they would count once more)"
    )


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
        commit: The last commit record; None at the very first start, and at a fresh one.
        given_up: The last commit record where a fresh start was allowed in spite of it.
        generation: The highest generation that any owner has had.
        changelog_offset: Where the changelog goes on.
        source: Where the state came from, for the log: ``local``, ``snapshot``, ``changelog``,
            ``fresh``.
        replayed: Number of epochs replayed.
    """

    store: OverlayStore
    commit: CommitRecord | None
    generation: int
    changelog_offset: int
    source: str
    replayed: int
    given_up: CommitRecord | None = None


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


async def read_history(
    log: Log, changelog: TopicPartition, span: OffsetRange, codec: RecordBatchCodec
) -> History:
    """Return what the end of a changelog partition tells: the last commit that counts, and owners.

    Reads backwards until it is certain which that is, which near the end it almost always is.
    """
    distance = _TAIL_OFFSETS
    while True:
        begin = max(span.start, span.end - distance)
        history = History()
        async for records in read_range(log, changelog, begin, span.end, codec):
            for key, value in zip(records.keys, records.values, strict=True):
                if key == COMMIT_KEY and value is not None:
                    history.take(decode_commit(value))
        if history.is_certain or begin == span.start:
            return history
        distance *= 16


async def last_commit(
    log: Log, changelog: TopicPartition, span: OffsetRange, codec: RecordBatchCodec
) -> CommitRecord | None:
    """Return the last commit record of a changelog partition, None if there is none."""
    return (await read_history(log, changelog, span, codec)).newest


async def restore(
    log: Log,
    changelog: TopicPartition,
    stores: TaskStores,
    codec: RecordBatchCodec,
    run_blocking: Callable[..., Awaitable[object]],
    told_offsets: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
    fresh: FreshStart,
) -> Restored:
    """Return the task's state as of its last commit record.

    Whatever it opened and does not return stays open if it fails: see ``OpenedStores``.

    Args:
        log: Where the changelog is.
        changelog: The task's partition of it.
        stores: Where its store comes from.
        codec: Decodes record batches.
        run_blocking: Runs a function on the batch thread.
        told_offsets: Returns what the group was told of the task's inputs: evidence of a commit.
        fresh: What to do where committed work exists and the way to it is broken.

    Raises:
        PositionLostError: If committed work exists, but the way to it is broken, and a fresh start
            is not allowed.
        FencedError: If another worker has taken the task over meanwhile.
        StateError: If storage or disk fail.
    """
    span = (await log.offsets([changelog]))[changelog]
    changelog_read = _Changelog(log, changelog, span, codec)
    history = History()
    try:
        history = await read_history(log, changelog, span, codec)
        local = await _open_local(stores, run_blocking)
        if history.newest is None:
            evidence = await _evidence(span, local, stores, told_offsets)
            if evidence:
                raise PositionLostError(
                    f"the changelog {changelog} has no commit record, but {' and '.join(evidence)}:"
                    " committed work exists and the pointer to it is gone. Bring the topic back"
                )
            return await _fresh(span, history, stores, run_blocking)
        return await _restore(changelog_read, history, local, stores, run_blocking)
    except (PositionLostError, CorruptBatchError, OffsetOutOfRangeError) as error:
        # The owner alone writes and truncates the changelog. Whoever has slept through the start
        # of another owner sees contradictions that are none: no reason to call for an operator.
        if (await log.offsets([changelog]))[changelog] != span:
            raise FencedError(
                f"{changelog} changed while it was being read: another worker has taken over"
            ) from error
        if not isinstance(error, PositionLostError):
            raise
        problem = f"{error}, {fresh.value}"
        if fresh is not FreshStart.ALLOWED:
            raise PositionLostError(problem) from error
        _log.warning("%s", problem)
        return await _fresh(span, history, stores, run_blocking)


class OpenedStores:
    """Passes on to other ``TaskStores``, and remembers what they opened until it is closed.

    A start may fail or be cancelled at any point, also while a thread is opening a store, and the
    next attempt finds the store locked if this one left it open.

    Args:
        inner: Where stores come from.
    """

    def __init__(self, inner: TaskStores) -> None:
        self._inner = inner
        self._opened: list[StateStore] = []

    def open_local(self) -> StateStore | None:
        """Return the store left on this machine, None if there is none that can be read."""
        store = self._inner.open_local()
        return None if store is None else self._keep(store)

    def create(self) -> StateStore:
        """Return an empty store, having discarded what was there."""
        return self._keep(self._inner.create())

    async def from_snapshot(self, snapshot_id: str) -> StateStore:
        """Return a store that equals a snapshot, having discarded what was there."""
        return self._keep(await self._inner.from_snapshot(snapshot_id))

    async def snapshot_ids(self) -> list[str]:
        """Return the snapshots of this task in storage, newest first."""
        return await self._inner.snapshot_ids()

    def close(self) -> None:
        """Close all that were opened; closing again what is closed is harmless."""
        for store in self._opened:
            store.close()

    def _keep(self, store: StateStore) -> StateStore:
        self._opened.append(store)
        return store


@dataclass(frozen=True, slots=True)
class _Changelog:
    """A changelog partition as it was when the restore began."""

    log: Log
    partition: TopicPartition
    span: OffsetRange
    codec: RecordBatchCodec


@dataclass(frozen=True, slots=True)
class _Base:
    """Where a replay may begin: a store, and what it equals."""

    store: StateStore
    meta: StoreMeta | None
    offset: int
    source: str


async def _restore(
    changelog: _Changelog,
    history: History,
    local: tuple[StateStore, StoreMeta] | None,
    stores: TaskStores,
    run_blocking: Callable[..., Awaitable[object]],
) -> Restored:
    authority = history.newest
    assert authority is not None
    problems: list[str] = []
    async for base in _bases(changelog, authority, local, stores, run_blocking, problems):
        overlay = OverlayStore(base.store)
        newest, replayed = await _replay(changelog, base, overlay, run_blocking)
        if not authority.layout or (
            newest is not None
            and (newest.generation, newest.epoch) == (authority.generation, authority.epoch)
        ):
            end = changelog.span.end
            return Restored(overlay, authority, history.generation, end, base.source, replayed)
        base.store.close()
        problems.append(
            f"replaying it from {base.source} at offset {base.offset} came to epoch "
            f"{newest and newest.epoch}, not to epoch {authority.epoch}"
        )
        _log.warning("%s: %s", changelog.partition, problems[-1])
    raise PositionLostError(
        f"the state of {changelog.partition} cannot be rebuilt: the changelog has offsets "
        f"{changelog.span.start} to {changelog.span.end}; "
        f"{'; '.join(problems) or 'no snapshot is known'}. Bring the snapshot back (check "
        "--snapshots), or the local state directory"
    )


async def _replay(
    changelog: _Changelog,
    base: _Base,
    overlay: OverlayStore,
    run_blocking: Callable[..., Awaitable[object]],
) -> tuple[CommitRecord | None, int]:
    newest = base.meta.commit if base.meta is not None else None
    replay = ChangelogReplay(newest)
    replayed, told = 0, 0.0
    end = changelog.span.end
    async for records in read_range(
        changelog.log, changelog.partition, base.offset, end, changelog.codec
    ):
        for epoch in replay.feed(records):
            newest = epoch.commit
            meta = StoreMeta(epoch.commit, epoch.next_offset)
            overlay.apply(epoch.delta, msgspec.msgpack.encode(meta))
            replayed += 1
        if overlay.should_drain():
            await run_blocking(partial(overlay.drain, at_once=True))
        done = (records.offsets[-1] + 1 - base.offset if len(records) else 0) / (end - base.offset)
        if end - base.offset >= PROGRESS_OFFSETS and done >= told + 0.1:
            told = done
            _log.info("%s: %d %% of the changelog replayed", changelog.partition, 100 * done)
    return newest, replayed


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


async def _evidence(
    span: OffsetRange,
    local: tuple[StateStore, StoreMeta] | None,
    stores: TaskStores,
    told_offsets: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
) -> list[str]:
    """Return what tells that the task has committed before; releases the local store."""
    evidence: list[str] = []
    if span.start > 0:
        evidence.append(f"its records below offset {span.start} were deleted")
    if local is not None:
        local[0].close()
        evidence.append(f"the local store is at epoch {local[1].commit.epoch}")
    elif snapshots := await stores.snapshot_ids():
        evidence.append(f"storage holds snapshot {snapshots[0]}")
    for where, offset in (await told_offsets()).items():
        evidence.append(f"the group was told that {where} is read up to offset {offset}")
    return evidence


async def _fresh(
    span: OffsetRange,
    history: History,
    stores: TaskStores,
    run_blocking: Callable[..., Awaitable[object]],
) -> Restored:
    store: StateStore = await run_blocking(stores.create)  # type: ignore[assignment]
    return Restored(
        OverlayStore(store),
        None,
        history.generation,
        span.end,
        "fresh",
        0,
        given_up=history.newest,
    )


async def _bases(
    changelog: _Changelog,
    authority: CommitRecord,
    local: tuple[StateStore, StoreMeta] | None,
    stores: TaskStores,
    run_blocking: Callable[..., Awaitable[object]],
    problems: list[str],
) -> AsyncIterator[_Base]:
    """Yield where the replay may begin, best first; each is made only when it is asked for."""
    span = changelog.span
    if local is not None:
        store, meta = local
        if _fits(meta, authority, span):
            yield _Base(store, meta, meta.changelog_offset, "local")
        else:
            store.close()
            # Usual where a task comes back to a worker after others have had it for long.
            _log.info(
                "%s: the local store is of epoch %d, from where the changelog no longer goes on",
                changelog.partition,
                meta.commit.epoch,
            )
    if not authority.layout:
        # Without tables there is nothing to rebuild: the commit record says it all.
        nothing: StateStore = await run_blocking(stores.create)  # type: ignore[assignment]
        yield _Base(nothing, None, span.end, "changelog")
        return
    async for snapshot_id in _snapshots_of(authority, stores):
        try:
            store = await stores.from_snapshot(snapshot_id)
            meta_or_none = _meta(store)
        except (SnapshotMissingError, SnapshotCorruptError) as error:
            # Storage that does not answer is another matter: that passes, and is tried again.
            problems.append(str(error))
            _log.warning("%s: %s", changelog.partition, error)
            continue
        if meta_or_none is not None and _fits(meta_or_none, authority, span):
            yield _Base(store, meta_or_none, meta_or_none.changelog_offset, "snapshot")
        else:
            store.close()
            problems.append(f"snapshot {snapshot_id} does not fit the changelog")
    if span.start <= authority.origin:
        empty: StateStore = await run_blocking(stores.create)  # type: ignore[assignment]
        yield _Base(empty, None, authority.origin, "changelog")


def _fits(meta: StoreMeta, authority: CommitRecord, span: OffsetRange) -> bool:
    return (
        (meta.commit.lineage, meta.commit.origin) == (authority.lineage, authority.origin)
        and meta.commit.epoch <= authority.epoch
        and span.start <= meta.changelog_offset <= span.end
    )


async def _snapshots_of(authority: CommitRecord, stores: TaskStores) -> AsyncIterator[str]:
    """Yield the committed snapshot; after it, for want of it, the others in storage."""
    if authority.snapshot is None:
        return
    yield authority.snapshot.id
    for snapshot_id in await stores.snapshot_ids():
        if snapshot_id != authority.snapshot.id:
            yield snapshot_id
