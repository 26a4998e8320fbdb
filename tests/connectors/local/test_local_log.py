"""What is the embedded log's own: files, locks, full disks, retention and sessions."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from riverrun.connectors.local import LocalLog
from riverrun.connectors.local.database import FILE_NAME
from riverrun.connectors.local.log import RETENTION_CHECK_MS
from riverrun.engine.clock import ManualClock
from riverrun.engine.errors import (
    FencedError,
    LogUnavailableError,
    OutcomeUnknownError,
    WriteError,
)
from riverrun.engine.log import Assignment, TopicPartition, TopicSpec
from tests.batches import encode, values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from riverrun.engine.clock import Clock
    from riverrun.engine.log import GroupMember, LogWriter

KEY = TopicPartition("t", 0)
WAIT_MS = 5_000


@asynccontextmanager
async def opened(path: Path, clock: Clock | None = None) -> AsyncIterator[LocalLog]:
    log = LocalLog(path, clock=clock)
    try:
        await log.start(WAIT_MS)
        await log.create_topics([TopicSpec("t", 1)])
        yield log
    finally:
        await log.close()


async def writer_of(log: LocalLog, *, transactional: bool = True) -> LogWriter:
    return await log.open_writer("w", transactional=transactional, timeout_ms=WAIT_MS)


async def read(log: LocalLog) -> list[bytes | None]:
    start = (await log.offsets([KEY]))[KEY].start
    return values(await (await log.open_reader({KEY: start})).poll(0))


# --- the directory -------------------------------------------------------------------------------


async def test_records_topics_and_epochs_survive_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path / "a" / "b") as log:
        first = await writer_of(log)
        first.append(*KEY, encode([b"a", b"b"]))
        await first.commit(WAIT_MS)

    async with opened(tmp_path / "a" / "b") as log:
        assert await read(log) == [b"a", b"b"]
        second = await writer_of(log)
        assert second.owner == (first.owner[0], first.owner[1] + 1)
        second.append(*KEY, encode([b"c"]))
        assert await second.commit(WAIT_MS) == {KEY: 3}


async def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    for path in (tmp_path / "file", tmp_path / "file" / "log"):
        with pytest.raises(LogUnavailableError, match=r"cannot use .*file"):
            await LocalLog(path).start(WAIT_MS)


async def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(LogUnavailableError, match=r"not a log directory.*thesis\.tex"):
        await LocalLog(tmp_path).start(WAIT_MS)

    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


async def test_hidden_files_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*")

    async with opened(tmp_path) as log:
        assert await read(log) == []


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database at all" * 500)

    with pytest.raises(LogUnavailableError, match="not a log directory"):
        await LocalLog(tmp_path).start(WAIT_MS)


async def test_a_foreign_database_is_refused_and_not_changed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = (tmp_path / FILE_NAME).read_bytes()

    with pytest.raises(LogUnavailableError, match="something else"):
        await LocalLog(tmp_path).start(WAIT_MS)

    assert (tmp_path / FILE_NAME).read_bytes() == before


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("PRAGMA user_version = 999")

    with pytest.raises(LogUnavailableError, match="format 999"):
        await LocalLog(tmp_path).start(WAIT_MS)


async def test_a_closed_log_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        reader = await log.open_reader({KEY: 0})
        waiting = asyncio.create_task(reader.poll(WAIT_MS))
        await asyncio.sleep(0.02)

    with pytest.raises(LogUnavailableError, match="closed"):
        await waiting
    with pytest.raises(LogUnavailableError, match="closed"):
        await log.describe_topic("t")
    await log.close()


async def test_a_log_that_was_not_started_says_so(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)

    with pytest.raises(LogUnavailableError, match="not open"):
        await log.describe_topic("t")
    await log.close()


# --- writing -------------------------------------------------------------------------------------


async def test_a_full_disk_commits_nothing_and_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        writer = await writer_of(log)
        connection = log._thread.storage._database.connection
        await log._thread.run(lambda: connection.execute("PRAGMA max_page_count = 30").fetchall())
        writer.append(*KEY, encode([b"small"]))
        writer.append(*KEY, encode([bytes(600_000)]))

        with pytest.raises(WriteError, match="disk full"):
            await writer.commit(WAIT_MS)

        assert await read(log) == []
        await log._thread.run(
            lambda: connection.execute("PRAGMA max_page_count = 100000").fetchall()
        )
        writer = await writer_of(log)
        writer.append(*KEY, encode([b"a"]))
        assert await writer.commit(WAIT_MS) == {KEY: 1}


async def test_a_file_that_became_read_only_is_named(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        writer = await writer_of(log)
        connection = log._thread.storage._database.connection
        await log._thread.run(lambda: connection.execute("PRAGMA query_only = 1").fetchall())
        writer.append(*KEY, encode([b"a"]))

        with pytest.raises(WriteError, match=r"cannot be written.*write access"):
            await writer.commit(WAIT_MS)


async def test_a_lock_that_is_not_released_in_time_commits_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        writer = await writer_of(log)
        writer.append(*KEY, encode([b"dropped"]))
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")

            with pytest.raises(WriteError, match="lock"):
                await writer.commit(100)
            with pytest.raises(LogUnavailableError, match="lock"):
                await log.open_writer("w", transactional=True, timeout_ms=100)
            # Readers do not care.
            assert await read(log) == []

        writer = await writer_of(log)
        writer.append(*KEY, encode([b"a"]))
        await writer.commit(WAIT_MS)
        assert await read(log) == [b"a"]


async def test_a_cancelled_commit_leaves_the_outcome_to_a_new_owner(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        writer = await writer_of(log)
        writer.append(*KEY, encode([b"a"]))
        committing = asyncio.create_task(writer.commit(WAIT_MS))
        await asyncio.sleep(0)
        committing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing

        with pytest.raises(OutcomeUnknownError):
            await writer.commit(WAIT_MS)

        await writer_of(log)
        settled = await read(log)
        assert settled in ([], [b"a"])
        await asyncio.sleep(0.02)
        assert await read(log) == settled


async def test_a_plain_writer_is_fenced_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        first = await writer_of(log, transactional=False)
        second = await writer_of(log, transactional=False)

        first.append(*KEY, encode([b"a"]))
        with pytest.raises(FencedError, match="'w'"):
            await first.flush(WAIT_MS)

        second.append(*KEY, encode([b"b"]))
        assert await second.flush(WAIT_MS) == {KEY: 1}
        assert await read(log) == [b"b"]


async def test_a_damaged_batch_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        writer = await writer_of(log)
        batch = encode([b"a", b"b"])
        writer.append(*KEY, type(batch)(batch.payload[:-1], 2, 0))

        with pytest.raises(WriteError, match="t/0"):
            await writer.commit(WAIT_MS)


async def test_records_past_their_retention_are_gone_after_a_commit(tmp_path: Path) -> None:
    clock = ManualClock(100_000)
    key = TopicPartition("short", 0)
    async with opened(tmp_path, clock) as log:
        await log.create_topics([TopicSpec("short", 1, retention_ms=60_000)])
        writer = await writer_of(log)
        for timestamp_ms in (50_000, 90_000, 30_000):
            writer.append(*key, encode([b"x"], timestamp_ms=timestamp_ms))
        writer.append(*KEY, encode([b"kept"], timestamp_ms=0))
        await writer.commit(WAIT_MS)
        assert await log.offsets([key]) == {key: (0, 3)}

        # Only a prefix goes: what is old behind something younger stays as long as that does.
        clock.advance(RETENTION_CHECK_MS)
        await write_one(writer, TopicPartition("t", 0))
        assert await log.offsets([key]) == {key: (1, 3)}
        clock.advance(RETENTION_CHECK_MS)
        await write_one(writer, TopicPartition("t", 0))

        assert await log.offsets([key]) == {key: (3, 3)}
        assert (await log.offsets([KEY]))[KEY].start == 0


async def write_one(writer: LogWriter, key: TopicPartition) -> None:
    writer.append(*key, encode([b"x"]))
    await writer.commit(WAIT_MS)


# --- reading -------------------------------------------------------------------------------------


async def test_a_chunk_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        writer = await writer_of(log)
        for _ in range(5):
            writer.append(*KEY, encode([bytes(400_000)]))
        await writer.commit(WAIT_MS)
        reader = await log.open_reader({KEY: 0})

        sizes = [len(values(await reader.poll(0))) for _ in range(4)]

        assert sizes == [2, 2, 1, 0]


async def test_every_partition_gets_its_turn_when_a_read_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riverrun.connectors.local.storage.READ_BYTES_MAX", 1)
    monkeypatch.setattr("riverrun.connectors.local.storage.CHUNK_BYTES_MAX", 1)
    keys = [TopicPartition("many", partition) for partition in range(3)]
    async with opened(tmp_path) as log:
        await log.create_topics([TopicSpec("many", 3)])
        writer = await writer_of(log)
        for key in keys * 2:
            writer.append(*key, encode([b"x"]))
        await writer.commit(WAIT_MS)
        reader = await log.open_reader(dict.fromkeys(keys, 0))

        turns = [[chunk.partition for chunk in await reader.poll(0)] for _ in range(3)]

        assert sorted(turns) == [[key] for key in keys]


# --- groups --------------------------------------------------------------------------------------


async def join(log: LocalLog, instance_id: str | None = None) -> GroupMember:
    return await log.join_group(
        "g",
        ["t"],
        lambda: b"",
        lambda infos: {next(iter(infos)): [KEY]},
        instance_id=instance_id,
        session_timeout_ms=10_000,
    )


async def wait_for_all(member: GroupMember) -> Assignment:
    async with asyncio.timeout(WAIT_MS / 1000):
        while True:
            assignment = await member.next_assignment(WAIT_MS)
            if assignment is not None and assignment.partitions == {KEY}:
                return assignment


async def test_a_silent_member_is_dropped_when_its_session_ends(tmp_path: Path) -> None:
    clock = ManualClock(1)
    async with opened(tmp_path, clock) as alive:
        async with opened(tmp_path, clock) as dead:
            await wait_for_all(await join(dead))
            heir = await join(alive)
            assert await heir.next_assignment(WAIT_MS) == (2, frozenset())
        clock.advance(10_000)
        assert await heir.next_assignment(150) is None

        clock.advance(1)

        assert await wait_for_all(heir) == (3, frozenset({KEY}))


async def test_a_member_that_was_dropped_loses_everything_and_joins_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        member = await join(log)
        await wait_for_all(member)

        def drop() -> None:
            version, state = log._thread.storage.load_group("g")
            state.remove(member.member_id)
            assert log._thread.storage.store_group("g", state, version)

        await log._thread.run(drop)

        assert await member.next_assignment(WAIT_MS) == (1, frozenset())
        assert await wait_for_all(member) == (2, frozenset({KEY}))


async def test_a_replaced_member_loses_everything_and_stays_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as log, opened(tmp_path) as other:
        former = await join(log, instance_id="worker-1")
        await wait_for_all(former)

        restarted = await join(other, instance_id="worker-1")
        await wait_for_all(restarted)

        assert await former.next_assignment(WAIT_MS) == (1, frozenset())
        with pytest.raises(FencedError, match="instance id"):
            await former.next_assignment(WAIT_MS)
        assert await restarted.next_assignment(120) is None


async def test_an_assignor_that_fails_tells_its_member(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        member = await log.join_group(
            "g",
            ["t"],
            lambda: b"",
            lambda _: {"stranger": [KEY]},
            instance_id=None,
            session_timeout_ms=10_000,
        )

        with pytest.raises(ValueError, match="stranger"):
            await member.next_assignment(WAIT_MS)
