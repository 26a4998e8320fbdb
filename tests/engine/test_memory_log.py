"""The log in memory: the contract, and what is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun.engine.clock import ManualClock
from riverrun.engine.errors import FencedError, LogUnavailableError, WriteError
from riverrun.engine.log import Log, TopicPartition, TopicSpec
from riverrun.engine.memory_log import MemoryLog, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
from tests.batches import encode, values
from tests.contracts.log import LogContract, OpenTestLog

KEY = TopicPartition("t", 0)


class TestMemoryLogContract(LogContract):
    @pytest.fixture
    async def open_log(self) -> AsyncIterator[OpenTestLog]:
        storage, clock, logs = MemoryStorage(), ManualClock(1_000), list[Log]()

        async def open_one() -> Log:
            log = MemoryLog(clock, storage)
            await log.start(timeout_ms=1_000)
            logs.append(log)
            return log

        yield open_one
        for log in logs:
            await log.close()


async def new_log(clock: ManualClock, retention_ms: int | None = None) -> MemoryLog:
    log = MemoryLog(clock)
    await log.create_topics([TopicSpec("t", 1, retention_ms=retention_ms)])
    return log


async def test_records_past_their_retention_are_gone_at_the_next_commit() -> None:
    clock = ManualClock(10_000)
    log = await new_log(clock, retention_ms=1_000)
    writer = await log.open_writer("w", transactional=True, timeout_ms=0)
    writer.append(*KEY, encode([b"old"], timestamp_ms=10_000))
    await writer.commit(0)
    clock.advance(2_000)

    writer.append(*KEY, encode([b"new"], timestamp_ms=12_000))
    await writer.commit(0)

    assert await log.offsets([KEY]) == {KEY: (1, 2)}


async def test_a_chunk_is_bounded() -> None:
    clock = ManualClock()
    log = MemoryLog(clock, max_chunk_bytes=1)
    await log.create_topics([TopicSpec("t", 1)])
    writer = await log.open_writer("w", transactional=False, timeout_ms=0)
    writer.append(*KEY, encode([b"a"]))
    writer.append(*KEY, encode([b"b"]))
    reader = await log.open_reader({KEY: 0})

    assert values(await reader.poll(0)) == [b"a"]
    assert values(await reader.poll(0)) == [b"b"]
    assert await reader.poll(0) == []


async def test_after_a_crash_the_old_process_can_do_nothing_more() -> None:
    clock, storage = ManualClock(), MemoryStorage()
    crashed = MemoryLog(clock, storage)
    await crashed.create_topics([TopicSpec("t", 1)])
    writer = await crashed.open_writer("w", transactional=True, timeout_ms=0)
    reader = await crashed.open_reader({KEY: 0})
    writer.append(*KEY, encode([b"dropped"]))

    await crashed.close()

    with pytest.raises(WriteError):
        await writer.commit(0)
    with pytest.raises(LogUnavailableError):
        await reader.poll(0)
    survivor = MemoryLog(clock, storage)
    assert await survivor.offsets([KEY]) == {KEY: (0, 0)}


async def test_a_crashed_member_is_dropped_when_its_session_ends() -> None:
    clock, storage = ManualClock(), MemoryStorage()
    logs = [MemoryLog(clock, storage), MemoryLog(clock, storage)]
    one, two = [
        await log.join_group(
            "g",
            ["t"],
            lambda: b"",
            lambda infos: {min(infos): [KEY]},
            instance_id=None,
            session_timeout_ms=10_000,
        )
        for log in logs
    ]
    assert await one.next_assignment(0) == (2, frozenset({KEY}))
    assert await two.next_assignment(0) == (2, frozenset())

    await logs[0].close()
    clock.advance(10_000)
    assert await two.next_assignment(0) is None
    clock.advance(1)
    assert await two.next_assignment(0) == (3, frozenset({KEY}))


async def test_a_jump_of_the_clock_ends_no_living_session() -> None:
    clock = ManualClock()
    log = MemoryLog(clock)
    members = [
        await log.join_group(
            "g", [], lambda: b"", lambda _: {}, instance_id=None, session_timeout_ms=10
        )
        for _ in range(2)
    ]
    for member in members:
        assert await member.next_assignment(0) == (2, frozenset())

    clock.advance(1_000_000)

    assert [await member.next_assignment(0) for member in members] == [None, None]


async def test_a_replaced_member_loses_everything_and_stays_out() -> None:
    log = MemoryLog(ManualClock())
    former, restarted = [
        await log.join_group(
            "g",
            ["t"],
            lambda: b"",
            lambda infos: {member: [KEY] for member in infos},
            instance_id="worker-1",
            session_timeout_ms=1_000,
        )
        for _ in range(2)
    ]

    assert await restarted.next_assignment(0) == (2, frozenset({KEY}))
    assert await former.next_assignment(0) == (1, frozenset())
    with pytest.raises(FencedError, match="instance id"):
        await former.next_assignment(0)
    assert await restarted.next_assignment(0) is None


async def test_an_assignor_that_fails_tells_the_leader() -> None:
    log = MemoryLog(ManualClock())
    member = await log.join_group(
        "g",
        ["t"],
        lambda: b"",
        lambda _: {"stranger": [KEY]},
        instance_id=None,
        session_timeout_ms=1_000,
    )

    with pytest.raises(ValueError, match="stranger"):
        await member.next_assignment(0)


async def test_a_plain_writer_is_fenced_too() -> None:
    log = await new_log(ManualClock())
    first = await log.open_writer("w", transactional=False, timeout_ms=0)
    second = await log.open_writer("w", transactional=False, timeout_ms=0)

    first.append(*KEY, encode([b"a"]))

    with pytest.raises(FencedError, match="'w'"):
        await first.flush(0)
    second.append(*KEY, encode([b"b"]))
    assert await second.flush(0) == {KEY: 1}


async def test_a_damaged_batch_is_refused() -> None:
    log = await new_log(ManualClock())
    writer = await log.open_writer("w", transactional=True, timeout_ms=0)
    batch = encode([b"a", b"b"])
    writer.append(*KEY, type(batch)(batch.payload[:-1], 2, 0))

    with pytest.raises(WriteError, match="t/0"):
        await writer.flush(0)
