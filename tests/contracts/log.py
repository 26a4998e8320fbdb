"""What every log must do: run over each implementation of the log port.

A concrete class derives from ``LogContract`` and overrides the fixture ``open_log``. The tests
never assume that offsets follow each other without gaps over transactions (Kafka puts markers in
between), wait by polling with a deadline, and use topics of their own.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverrun.engine.errors import (
    BatchTooLargeError,
    FencedError,
    LogError,
    OffsetOutOfRangeError,
    PartitionCountError,
    TopicMissingError,
    WriteError,
)
from riverrun.engine.log import (
    FOREVER_MS,
    Assignment,
    Chunk,
    GroupMember,
    Log,
    LogReader,
    LogWriter,
    TopicPartition,
    TopicSpec,
)
from tests.batches import ReadRecord, decode, encode, values

OpenTestLog = Callable[[], Awaitable[Log]]
NewTopic = Callable[..., Awaitable[str]]

DEADLINE_S = 30.0
WAIT_MS = 10_000
POLL_MS = 100
SESSION_MS = 10_000


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def by_partition(chunks: Sequence[Chunk]) -> dict[TopicPartition, list[ReadRecord]]:
    found: dict[TopicPartition, list[ReadRecord]] = defaultdict(list)
    for chunk in chunks:
        found[chunk.partition].extend(decode(chunk))
    return dict(found)


async def read_to(reader: LogReader, ends: Mapping[TopicPartition, int]) -> list[Chunk]:
    """Poll until the reader has passed ``ends``."""
    chunks: list[Chunk] = []
    async with asyncio.timeout(DEADLINE_S):
        while any(reader.position(key) < end for key, end in ends.items()):
            chunks += await reader.poll(POLL_MS)
    return chunks


async def poll_forever(reader: LogReader) -> None:
    """Poll until it raises; what is slow to be found out gets the time it needs."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await reader.poll(POLL_MS)


async def read_all(log: Log, *keys: TopicPartition) -> dict[TopicPartition, list[bytes | None]]:
    """Return the values that are visible now."""
    ranges = await log.offsets(keys)
    reader = await log.open_reader({key: found.start for key, found in ranges.items()})
    try:
        chunks = await read_to(reader, {key: found.end for key, found in ranges.items()})
    finally:
        await reader.close()
    found = by_partition(chunks)
    return {key: [record.value for record in found.get(key, [])] for key in keys}


async def open_writer(log: Log, writer_id: str, *, transactional: bool = True) -> LogWriter:
    return await log.open_writer(writer_id, transactional=transactional, timeout_ms=WAIT_MS)


async def write(log: Log, key: TopicPartition, *batches: Sequence[bytes]) -> None:
    """Commit each batch in a transaction of its own."""
    writer = await open_writer(log, unique("setup"))
    for batch in batches:
        writer.append(*key, encode(batch))
        await writer.commit(WAIT_MS)
    await writer.close()


class Group:
    """Members of one group in a test, with an assignor that shares out in turn."""

    def __init__(self, topic: str, partitions: int) -> None:
        self.name = unique("group")
        self.topic = topic
        self.everything = frozenset(TopicPartition(topic, p) for p in range(partitions))
        self.asked: list[dict[str, bytes]] = []
        self.held: dict[int, frozenset[TopicPartition]] = {}
        self._members: dict[int, GroupMember] = {}

    def assign(self, infos: Mapping[str, bytes]) -> Mapping[str, Sequence[TopicPartition]]:
        self.asked.append(dict(infos))
        members = sorted(infos)
        ordered = sorted(self.everything)
        return {member: ordered[index :: len(members)] for index, member in enumerate(members)}

    async def join(
        self, log: Log, info: Callable[[], bytes] = lambda: b"", instance_id: str | None = None
    ) -> int:
        member = await log.join_group(
            self.name,
            [self.topic],
            info,
            self.assign,
            instance_id=instance_id,
            session_timeout_ms=SESSION_MS,
        )
        number = len(self._members)
        self._members[number] = member
        return number

    def member(self, number: int) -> GroupMember:
        return self._members[number]

    async def settle(self, done: Callable[[], bool], *numbers: int) -> None:
        """Take assignments of the members until ``done``."""
        async with asyncio.timeout(DEADLINE_S):
            while not done():
                for number in numbers:
                    assignment = await self._members[number].next_assignment(POLL_MS)
                    if assignment is not None:
                        self.held[number] = assignment.partitions

    def is_shared_by(self, *numbers: int) -> bool:
        """Whether these members hold something each, everything together and nothing twice."""
        held = [self.held.get(number, frozenset()) for number in numbers]
        together = [key for share in held for key in share]
        return (
            all(held) and len(together) == len(set(together)) and set(together) == self.everything
        )

    async def close(self) -> None:
        for member in self._members.values():
            # A test may have closed the log of a member, as a crash.
            with suppress(LogError):
                await member.leave()


class LogContract:
    """The contract; see the module."""

    @pytest.fixture
    def open_log(self) -> OpenTestLog:
        """A factory of started logs over one storage; each call is another 'process'."""
        raise NotImplementedError("the concrete class overrides the fixture open_log")

    @pytest.fixture
    async def log(self, open_log: OpenTestLog) -> Log:
        return await open_log()

    @pytest.fixture
    def new_topic(self, log: Log) -> NewTopic:
        async def create(partitions: int = 1, **configs: str) -> str:
            name = unique("topic")
            spec = TopicSpec(name, partitions, retention_ms=FOREVER_MS, configs=configs)
            await log.create_topics([spec])
            return name

        return create

    # --- topics ------------------------------------------------------------------------------

    async def test_a_topic_is_described_as_it_was_created(self, log: Log) -> None:
        name = unique("topic")
        spec = TopicSpec(name, 3, retention_ms=86_400_000, configs={"max.message.bytes": "200000"})

        await log.create_topics([spec])

        topic = await log.describe_topic(name)
        assert topic is not None
        assert (topic.name, topic.partitions) == (name, 3)
        assert topic.retention_ms in (86_400_000, None)
        assert topic.max_batch_bytes == 200_000

    async def test_a_missing_topic_is_described_as_none(self, log: Log) -> None:
        assert await log.describe_topic(unique("topic")) is None

    async def test_creating_again_leaves_topic_and_records_alone(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        name = await new_topic(partitions=2)
        await write(log, TopicPartition(name, 0), [b"a"])
        other = unique("topic")

        await log.create_topics([TopicSpec(name, 2), TopicSpec(other, 1)])

        assert await read_all(log, TopicPartition(name, 0)) == {TopicPartition(name, 0): [b"a"]}
        assert await log.describe_topic(other) is not None

    async def test_another_number_of_partitions_is_refused(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        name = await new_topic(partitions=2)

        with pytest.raises(PartitionCountError, match=name):
            await log.create_topics([TopicSpec(name, 3)])

    async def test_offsets_of_a_missing_topic_or_partition_are_refused(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        name = await new_topic(partitions=2)

        with pytest.raises(TopicMissingError):
            await log.offsets([TopicPartition(unique("topic"), 0)])
        with pytest.raises(TopicMissingError):
            await log.offsets([TopicPartition(name, 2)])

    async def test_reading_a_missing_topic_is_refused(self, log: Log) -> None:
        key = TopicPartition(unique("topic"), 0)

        async def read() -> None:
            reader = await log.open_reader({key: 0})
            try:
                await poll_forever(reader)
            finally:
                await reader.close()

        with pytest.raises(TopicMissingError):
            await read()

    # --- reading -----------------------------------------------------------------------------

    async def test_records_come_back_with_their_offsets_in_order(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        await write(log, key, [b"a", b"b"], [b"c"], [b"d", b"e"])
        reader = await log.open_reader({key: 0})

        chunks = await read_to(reader, {key: (await log.offsets([key]))[key].end})

        records = [record for chunk in chunks for record in decode(chunk)]
        assert [record.value for record in records] == [b"a", b"b", b"c", b"d", b"e"]
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))
        assert records[0].offset == 0
        assert [record.timestamp_ms for record in records[:2]] == [1_000, 1_001]
        await reader.close()

    async def test_a_chunk_begins_where_the_one_before_ended(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        big = [bytes(300_000), bytes(300_000)]
        await write(log, key, big, big, big)
        reader = await log.open_reader({key: 0})
        end = (await log.offsets([key]))[key].end

        position, count = 0, 0
        async with asyncio.timeout(DEADLINE_S):
            while position < end:
                for chunk in await reader.poll(POLL_MS):
                    assert chunk.offset == position
                    assert chunk.next_offset > chunk.offset
                    count += len(decode(chunk))
                    position = chunk.next_offset
                assert reader.position(key) == position

        assert count == 6
        await reader.close()

    async def test_a_reader_starts_in_the_middle_of_a_batch(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        await write(log, key, [b"a", b"b", b"c"], [b"d"])
        reader = await log.open_reader({key: 1})
        assert reader.position(key) == 1

        chunks = await read_to(reader, {key: (await log.offsets([key]))[key].end})

        assert chunks[0].offset == 1
        assert values(chunks) == [b"b", b"c", b"d"]
        await reader.close()

    async def test_a_poll_with_nothing_to_read_returns_nothing_and_stays(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        reader = await log.open_reader({key: 0})

        assert await reader.poll(0) == []
        assert await reader.poll(30) == []
        assert reader.position(key) == 0
        await reader.close()

    async def test_a_waiting_reader_gets_what_another_process_commits(
        self, log: Log, open_log: OpenTestLog, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        other = await open_log()
        writer = await open_writer(other, unique("writer"))
        reader = await log.open_reader({key: 0})
        waiting = asyncio.create_task(read_to(reader, {key: 1}))
        await asyncio.sleep(0)

        writer.append(*key, encode([b"a"]))
        await writer.commit(WAIT_MS)

        assert values(await waiting) == [b"a"]
        await writer.close()
        await reader.close()

    async def test_excluded_partitions_stay_for_later(self, log: Log, new_topic: NewTopic) -> None:
        name = await new_topic(partitions=2)
        left, right = TopicPartition(name, 0), TopicPartition(name, 1)
        await write(log, left, [b"left"])
        await write(log, right, [b"right"])
        reader = await log.open_reader({left: 0, right: 0})

        chunks: list[Chunk] = []
        async with asyncio.timeout(DEADLINE_S):
            while reader.position(right) < 1:
                chunks += await reader.poll(POLL_MS, exclude=frozenset({left}))
        chunks += await reader.poll(30, exclude=frozenset({left}))

        assert {chunk.partition for chunk in chunks} == {right}
        assert reader.position(left) == 0
        assert values(await read_to(reader, {left: 1})) == [b"left"]
        await reader.close()

    async def test_a_poll_returns_one_chunk_per_partition(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        name = await new_topic(partitions=2)
        keys = [TopicPartition(name, 0), TopicPartition(name, 1)]
        for key in keys:
            await write(log, key, [b"a"], [b"b"])
        reader = await log.open_reader(dict.fromkeys(keys, 0))
        ends = {key: found.end for key, found in (await log.offsets(keys)).items()}

        async with asyncio.timeout(DEADLINE_S):
            while any(reader.position(key) < end for key, end in ends.items()):
                partitions = [chunk.partition for chunk in await reader.poll(POLL_MS)]
                assert len(partitions) == len(set(partitions))
        await reader.close()

    async def test_a_reader_knows_the_end_it_has_seen(self, log: Log, new_topic: NewTopic) -> None:
        key = TopicPartition(await new_topic(), 0)
        await write(log, key, [b"a", b"b"])
        end = (await log.offsets([key]))[key].end
        reader = await log.open_reader({key: 0})

        await read_to(reader, {key: end})

        assert reader.end_offset(key) == end
        assert reader.trouble() is None
        await reader.close()

    async def test_a_position_beyond_the_end_is_refused(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        await write(log, key, [b"a"])
        reader = await log.open_reader({key: 1_000})

        with pytest.raises(OffsetOutOfRangeError, match=key.topic):
            await poll_forever(reader)
        await reader.close()

    async def test_deleted_records_are_out_of_range(self, log: Log, new_topic: NewTopic) -> None:
        key = TopicPartition(await new_topic(), 0)
        await write(log, key, [b"a", b"b", b"c"], [b"d"])

        await log.delete_records({key: 2})

        assert (await log.offsets([key]))[key].start == 2
        assert await read_all(log, key) == {key: [b"c", b"d"]}
        reader = await log.open_reader({key: 1})
        with pytest.raises(OffsetOutOfRangeError):
            await poll_forever(reader)
        await reader.close()

    async def test_deleting_everything_leaves_the_end(self, log: Log, new_topic: NewTopic) -> None:
        key = TopicPartition(await new_topic(), 0)
        await write(log, key, [b"a", b"b"])
        end = (await log.offsets([key]))[key].end

        await log.delete_records({key: end})
        await log.delete_records({key: 1})

        assert await log.offsets([key]) == {key: (end, end)}
        await write(log, key, [b"c"])
        assert await read_all(log, key) == {key: [b"c"]}

    # --- writing -----------------------------------------------------------------------------

    async def test_a_transaction_is_invisible_until_it_commits(
        self, log: Log, open_log: OpenTestLog, new_topic: NewTopic
    ) -> None:
        one = TopicPartition(await new_topic(), 0)
        two = TopicPartition(await new_topic(partitions=2), 1)
        writer = await open_writer(log, unique("writer"))
        other = await open_log()
        writer.append(*one, encode([b"a"]))
        writer.append(*two, encode([b"b"]))
        await writer.flush(WAIT_MS)

        assert await read_all(other, one, two) == {one: [], two: []}
        await writer.commit(WAIT_MS)

        assert await read_all(other, one, two) == {one: [b"a"], two: [b"b"]}
        await writer.close()

    async def test_batches_of_a_transaction_keep_their_order(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        writer = await open_writer(log, unique("writer"))
        for number in range(20):
            writer.append(*key, encode([b"%d" % number]))

        await writer.commit(WAIT_MS)

        assert await read_all(log, key) == {key: [b"%d" % number for number in range(20)]}
        await writer.close()

    async def test_an_aborted_transaction_is_never_seen(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        writer = await open_writer(log, unique("writer"))
        writer.append(*key, encode([b"dropped"]))
        await writer.flush(WAIT_MS)

        await writer.abort(WAIT_MS)
        writer.append(*key, encode([b"kept"]))
        await writer.commit(WAIT_MS)

        assert await read_all(log, key) == {key: [b"kept"]}
        await writer.close()

    async def test_a_closed_writer_has_not_committed(self, log: Log, new_topic: NewTopic) -> None:
        key = TopicPartition(await new_topic(), 0)
        name = unique("writer")
        writer = await open_writer(log, name)
        writer.append(*key, encode([b"dropped"]))

        await writer.close()
        await (await open_writer(log, name)).close()

        assert await read_all(log, key) == {key: []}

    async def test_commit_and_flush_tell_where_the_records_ended(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        one = TopicPartition(await new_topic(), 0)
        two = TopicPartition(await new_topic(), 0)
        writer = await open_writer(log, unique("writer"))
        writer.append(*one, encode([b"a", b"b"]))
        assert await writer.flush(WAIT_MS) == {one: 2}
        writer.append(*two, encode([b"c"]))
        writer.append(*one, encode([b"d"]))
        assert await writer.flush(WAIT_MS) == {one: 3, two: 1}

        assert await writer.commit(WAIT_MS) == {one: 3, two: 1}
        assert await writer.commit(WAIT_MS) == {}
        await writer.close()

    async def test_what_is_not_acknowledged_is_pending(self, log: Log, new_topic: NewTopic) -> None:
        key = TopicPartition(await new_topic(), 0)
        batch = encode([b"a"])
        writer = await open_writer(log, unique("writer"))
        assert writer.pending_bytes() == 0

        writer.append(*key, batch)
        assert writer.pending_bytes() >= len(batch.payload)
        await writer.flush(WAIT_MS)
        assert writer.pending_bytes() == 0

        await writer.commit(WAIT_MS)
        await writer.close()

    async def test_a_batch_too_large_commits_nothing(self, log: Log, new_topic: NewTopic) -> None:
        small = TopicPartition(await new_topic(), 0)
        large = TopicPartition(await new_topic(**{"max.message.bytes": "10000"}), 0)
        name = unique("writer")
        writer = await open_writer(log, name)
        writer.append(*small, encode([b"a"]))
        writer.append(*large, encode([bytes(20_000)]))

        with pytest.raises(BatchTooLargeError):
            await writer.commit(WAIT_MS)
        with pytest.raises(LogError):
            await writer.commit(WAIT_MS)

        await writer.close()
        await (await open_writer(log, name)).close()
        assert await read_all(log, small, large) == {small: [], large: []}

    async def test_writing_to_a_missing_topic_is_refused(self, log: Log) -> None:
        writer = await open_writer(log, unique("writer"))
        writer.append(unique("topic"), 0, encode([b"a"]))

        with pytest.raises(WriteError):
            await writer.commit(3_000)
        await writer.close()

    async def test_a_new_owner_fences_the_old_one(
        self, log: Log, open_log: OpenTestLog, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        name = unique("writer")
        first = await open_writer(log, name)
        first.append(*key, encode([b"before"]))
        await first.commit(WAIT_MS)
        first.append(*key, encode([b"dropped"]))

        second = await open_writer(await open_log(), name)
        with pytest.raises(FencedError):
            await first.commit(WAIT_MS)

        assert second.owner[0] == first.owner[0]
        assert second.owner[1] > first.owner[1]
        assert await read_all(log, key) == {key: [b"before"]}
        second.append(*key, encode([b"after"]))
        await second.commit(WAIT_MS)
        assert await read_all(log, key) == {key: [b"before", b"after"]}
        await first.close()
        await second.close()

    async def test_a_new_owner_settles_what_the_old_one_left_open(
        self, log: Log, open_log: OpenTestLog, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        name = unique("writer")
        first = await open_writer(log, name)
        first.append(*key, encode([b"dropped"]))
        await first.flush(WAIT_MS)

        second = await open_writer(await open_log(), name)
        end = (await log.offsets([key]))[key].end
        second.append(*key, encode([b"after"]))
        await second.commit(WAIT_MS)

        reader = await log.open_reader({key: end})
        assert values(await read_to(reader, {key: end + 1})) == [b"after"]
        assert await read_all(log, key) == {key: [b"after"]}
        with pytest.raises(FencedError):
            await first.commit(WAIT_MS)
        for thing in (first, second, reader):
            await thing.close()

    async def test_writers_of_different_ids_do_not_fence_each_other(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        one = await open_writer(log, unique("writer"))
        two = await open_writer(log, unique("writer"))
        one.append(*key, encode([b"one"]))
        two.append(*key, encode([b"two"]))

        await two.commit(WAIT_MS)
        await one.commit(WAIT_MS)

        assert one.owner[0] != two.owner[0]
        assert sorted((await read_all(log, key))[key], key=str) == [b"one", b"two"]
        await one.close()
        await two.close()

    async def test_a_plain_writer_is_visible_when_flushed(
        self, log: Log, open_log: OpenTestLog, new_topic: NewTopic
    ) -> None:
        name = await new_topic(partitions=2)
        one, two = TopicPartition(name, 0), TopicPartition(name, 1)
        writer = await open_writer(log, unique("writer"), transactional=False)
        writer.append(*one, encode([b"a", b"b"]))
        writer.append(*two, encode([b"c"]))
        writer.append(*one, encode([b"d"]))

        assert await writer.flush(WAIT_MS) == {one: 3, two: 1}

        assert writer.pending_bytes() == 0
        other = await open_log()
        assert await read_all(other, one, two) == {one: [b"a", b"b", b"d"], two: [b"c"]}
        writer.append(*two, encode([b"e"]))
        assert await writer.commit(WAIT_MS) == {two: 2}
        await writer.close()

    async def test_a_plain_writer_sends_without_being_asked(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(), 0)
        writer = await open_writer(log, unique("writer"), transactional=False)
        reader = await log.open_reader({key: 0})

        writer.append(*key, encode([b"a"]))

        assert values(await read_to(reader, {key: 1})) == [b"a"]
        await writer.close()
        await reader.close()

    async def test_a_plain_writer_is_told_of_a_batch_too_large(
        self, log: Log, new_topic: NewTopic
    ) -> None:
        key = TopicPartition(await new_topic(**{"max.message.bytes": "10000"}), 0)
        writer = await open_writer(log, unique("writer"), transactional=False)
        writer.append(*key, encode([bytes(20_000)]))

        with pytest.raises(BatchTooLargeError):
            await writer.flush(WAIT_MS)
        await writer.close()

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            # By design each implementation runs it.
            HealthCheck.differing_executors,
        ],
    )
    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(
                    st.just("append"), st.integers(0, 1), st.integers(0, 1), st.integers(1, 3)
                ),
                st.tuples(st.sampled_from(["flush", "commit", "abort"]), st.integers(0, 1)),
            ),
            max_size=25,
        )
    )
    async def test_what_is_read_is_what_was_committed(
        self, log: Log, new_topic: NewTopic, steps: list[tuple[Any, ...]]
    ) -> None:
        keys = [TopicPartition(await new_topic(), 0) for _ in range(2)]
        writers = [await open_writer(log, unique("writer")) for _ in range(2)]
        committed: dict[tuple[TopicPartition, int], list[bytes]] = defaultdict(list)
        staged: dict[tuple[TopicPartition, int], list[bytes]] = defaultdict(list)
        serial = 0

        for step in steps:
            action, number = step[0], step[1]
            if action == "append":
                key, count = keys[step[2]], step[3]
                batch = [b"%d:%d" % (number, serial + index) for index in range(count)]
                serial += count
                writers[number].append(*key, encode(batch))
                staged[key, number] += batch
            elif action == "flush":
                await writers[number].flush(WAIT_MS)
            else:
                await getattr(writers[number], action)(WAIT_MS)
                for key in keys:
                    batch = staged.pop((key, number), [])
                    committed[key, number] += batch if action == "commit" else []
        for writer in writers:
            await writer.abort(WAIT_MS)
            await writer.close()

        found = await read_all(log, *keys)
        for key in keys:
            for number in range(2):
                own = [v for v in found[key] if v is not None and v.startswith(b"%d:" % number)]
                assert own == committed[key, number]
            assert len(found[key]) == sum(len(committed[key, number]) for number in range(2))

    # --- groups ------------------------------------------------------------------------------

    @pytest.fixture
    async def group(self, new_topic: NewTopic) -> AsyncIterator[Group]:
        group = Group(await new_topic(partitions=4), 4)
        yield group
        await group.close()

    async def test_a_single_member_gets_everything(self, log: Log, group: Group) -> None:
        one = await group.join(log, info=lambda: b"about one")

        await group.settle(lambda: group.is_shared_by(one), one)

        member = group.member(one)
        assert member.member_id
        assert group.asked[-1] == {member.member_id: b"about one"}
        assert await member.next_assignment(0) is None

    async def test_members_share_and_a_leaver_is_replaced(
        self, open_log: OpenTestLog, group: Group
    ) -> None:
        one = await group.join(await open_log(), info=lambda: b"one")
        await group.settle(lambda: group.is_shared_by(one), one)
        two = await group.join(await open_log(), info=lambda: b"two")
        await group.settle(lambda: group.is_shared_by(one, two), one, two)
        three = await group.join(await open_log(), info=lambda: b"three")
        await group.settle(lambda: group.is_shared_by(one, two, three), one, two, three)
        assert sorted(group.asked[-1].values()) == [b"one", b"three", b"two"]

        await group.member(three).leave()

        await group.settle(lambda: group.is_shared_by(one, two), one, two)

    async def test_generations_grow(self, open_log: OpenTestLog, group: Group) -> None:
        async def newest(number: int) -> Assignment:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    found = await group.member(number).next_assignment(POLL_MS)
                    if found is not None and found.partitions:
                        return found

        one = await group.join(await open_log())
        first = await newest(one)
        group.held[one] = first.partitions
        two = await group.join(await open_log())
        await group.settle(lambda: group.is_shared_by(one, two), one, two)
        await group.member(two).leave()

        last = await newest(one)

        assert last.generation > first.generation
        assert last.partitions == group.everything

    async def test_a_rebalance_can_be_asked_for(self, log: Log, group: Group) -> None:
        about = [b"old"]
        one = await group.join(log, info=lambda: about[0])
        await group.settle(lambda: group.is_shared_by(one), one)
        about[0] = b"new"

        group.member(one).request_rebalance()

        await group.settle(lambda: list(group.asked[-1].values()) == [b"new"], one)

    async def test_the_same_instance_replaces_its_former_self_at_once(
        self, open_log: OpenTestLog, group: Group
    ) -> None:
        former_log = await open_log()
        former = await group.join(former_log, instance_id="worker-1")
        await group.settle(lambda: group.is_shared_by(former), former)
        await former_log.close()

        restarted = await group.join(await open_log(), instance_id="worker-1")

        async with asyncio.timeout(SESSION_MS / 1000 / 2):
            await group.settle(lambda: group.is_shared_by(restarted), restarted)

    async def test_a_group_remembers_offsets(
        self, log: Log, open_log: OpenTestLog, group: Group
    ) -> None:
        one = await group.join(log)
        await group.settle(lambda: group.is_shared_by(one), one)
        first, second = sorted(group.everything)[:2]
        assert await log.group_offsets(group.name, [first, second]) == {}

        await group.member(one).commit_offsets({first: 17})
        await group.member(one).commit_offsets({first: 18})

        other = await open_log()
        assert await other.group_offsets(group.name, [first, second]) == {first: 18}
        assert await other.group_offsets(unique("group"), [first]) == {}
