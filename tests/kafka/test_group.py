"""Groups on a real broker: who gets what, and how soon after somebody went."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from riverrun.connectors.kafka.protocol import Code, HeartbeatResponse_v3
from riverrun.engine.errors import ConfigError, FencedError, LogError
from riverrun.engine.log import TopicPartition
from tests.kafka.helpers import WAIT_MS, new_topic, started, unique
from tests.kafka_proxy import HEARTBEAT, KafkaProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from riverrun.connectors.kafka import KafkaLog
    from riverrun.engine.log import GroupMember

pytestmark = pytest.mark.kafka

SESSION_MS = 2_000  # short sessions are allowed on the test broker only
PARTITIONS = 6


@pytest.fixture
async def log(kafka: str) -> AsyncIterator[KafkaLog]:
    async with started(kafka) as log:
        yield log


class Group:
    """A group that shares one topic out in turn, and what its members were told."""

    def __init__(self, topic: str) -> None:
        self.name = unique("group")
        self.topic = topic
        self.all = frozenset(TopicPartition(topic, number) for number in range(PARTITIONS))
        self.rounds = 0

    def assign(self, infos: Mapping[str, bytes]) -> Mapping[str, Sequence[TopicPartition]]:
        self.rounds += 1
        members = sorted(infos)
        return {m: sorted(self.all)[index :: len(members)] for index, m in enumerate(members)}

    async def join(self, log: KafkaLog, instance_id: str | None = None) -> GroupMember:
        return await log.join_group(
            self.name,
            [self.topic],
            lambda: b"info",
            self.assign,
            instance_id=instance_id,
            session_timeout_ms=SESSION_MS,
        )

    async def shared_by(self, *members: GroupMember, timeout_s: float = 15.0) -> float:
        """Wait until these members hold everything between them; return how long it took."""
        began = time.monotonic()
        held: dict[GroupMember, frozenset[TopicPartition]] = {}
        async with asyncio.timeout(timeout_s):
            while frozenset().union(*held.values()) != self.all or len(held) < len(members):
                for member in members:
                    assignment = await member.next_assignment(20)
                    if assignment is not None:
                        held[member] = assignment.partitions
        assert sum(map(len, held.values())) == PARTITIONS
        return time.monotonic() - began


@pytest.fixture
async def group(log: KafkaLog) -> Group:
    return Group(await new_topic(log, PARTITIONS))


def kill(member: GroupMember) -> None:
    """End a member as a crash would: no heartbeat, no farewell."""
    member._task.cancel()  # type: ignore[attr-defined]


@pytest.mark.parametrize("static", [False, True])
async def test_three_share_and_a_dead_one_is_replaced_when_its_session_ends(
    log: KafkaLog, group: Group, static: bool
) -> None:
    names = ["a", "b", "c"] if static else [None] * 3
    members = [await group.join(log, name) for name in names]
    await group.shared_by(*members)

    kill(members[0])

    took = await group.shared_by(*members[1:])
    assert took > SESSION_MS / 1000 / 2
    assert took < SESSION_MS / 1000 + 2.0
    for member in members[1:]:
        await member.leave()


@pytest.mark.parametrize("static", [False, True])
async def test_a_member_that_leaves_is_replaced_at_once(
    log: KafkaLog, group: Group, static: bool
) -> None:
    one, two = [await group.join(log, name if static else None) for name in ("a", "b")]
    await group.shared_by(one, two)

    await one.leave()

    assert await group.shared_by(two) < SESSION_MS / 1000 / 2
    await two.leave()


async def test_a_restarted_static_member_has_its_place_back_without_a_round(
    kafka: str, log: KafkaLog, group: Group
) -> None:
    one, two = await group.join(log, "a"), await group.join(log, "b")
    await group.shared_by(one, two)
    rounds, former_id = group.rounds, one.member_id
    kill(one)

    async with started(kafka) as restarted_log:
        restarted = await group.join(restarted_log, "a")
        assignment = await restarted.next_assignment(WAIT_MS)

        # Without a round: nobody waits for the session of the former process to end.
        assert assignment is not None
        assert len(assignment.partitions) == 3
        assert restarted.member_id != former_id
        assert group.rounds == rounds
        assert await two.next_assignment(300) is None
        await restarted.leave()
    await two.leave()


async def test_a_replaced_member_learns_it_and_does_not_come_back(
    log: KafkaLog, group: Group
) -> None:
    former = await group.join(log, "a")
    assert await former.next_assignment(WAIT_MS) is not None

    successor = await group.join(log, "a")
    assert await successor.next_assignment(WAIT_MS) is not None

    emptied = await former.next_assignment(WAIT_MS)
    assert emptied is not None
    assert emptied.partitions == frozenset()
    with pytest.raises(FencedError, match="'a'"):
        await former.next_assignment(WAIT_MS)
    await former.leave()
    assert await successor.next_assignment(1_000) is None
    await successor.leave()


async def test_a_member_that_was_thrown_out_comes_back(kafka: str, group: Group) -> None:
    async with KafkaProxy(kafka) as proxy, started(proxy.address) as log:
        member = await group.join(log)
        first = await member.next_assignment(WAIT_MS)
        assert first is not None
        proxy.answer(HEARTBEAT, HeartbeatResponse_v3(0, Code.UNKNOWN_MEMBER_ID))

        emptied = await member.next_assignment(WAIT_MS)
        assert emptied is not None
        assert emptied.partitions == frozenset()
        again = await member.next_assignment(WAIT_MS)
        assert again is not None
        assert again.partitions == group.all
        assert again.generation > first.generation
        await member.leave()


async def test_silence_of_the_coordinator_alone_takes_nothing_away(
    kafka: str, group: Group
) -> None:
    async with KafkaProxy(kafka) as proxy, started(proxy.address) as log:
        member = await group.join(log)
        assert await member.next_assignment(WAIT_MS) is not None
        await proxy.hang_up()
        assert await member.next_assignment(400) is None
        await proxy.listen()
        beats = proxy.requests[HEARTBEAT]
        assert await member.next_assignment(800) is None
        assert proxy.requests[HEARTBEAT] > beats
        await member.leave()


async def test_members_of_one_process_do_not_block_each_other(log: KafkaLog, group: Group) -> None:
    others = [Group(group.topic) for _ in range(3)]
    members = [await each.join(log) for each in (group, *others)]
    for each, member in zip((group, *others), members, strict=True):
        await each.shared_by(member)
        await member.leave()


async def test_tools_can_read_the_group(kafka: str, log: KafkaLog, group: Group) -> None:
    member = await group.join(log)
    await group.shared_by(member)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        (description,) = await admin.describe_consumer_groups([group.name])
    finally:
        await admin.close()
    (found,) = description.groups
    assert (found[2], found[3], found[4]) == ("Stable", "consumer", "riverrun")
    await member.leave()


async def test_offsets_of_a_former_member_are_not_taken(log: KafkaLog, group: Group) -> None:
    key = TopicPartition(group.topic, 0)
    former = await group.join(log, "a")
    assert await former.next_assignment(WAIT_MS) is not None
    await former.commit_offsets({key: 7})
    successor = await group.join(log, "a")
    assert await successor.next_assignment(WAIT_MS) is not None

    await former.commit_offsets({key: 3})

    assert await log.group_offsets(group.name, [key]) == {key: 7}
    await successor.commit_offsets({key: 8})
    assert await log.group_offsets(group.name, [key]) == {key: 8}
    await former.leave()
    await successor.leave()


async def test_a_failing_assignor_is_told(log: KafkaLog, group: Group) -> None:
    def fail(infos: Mapping[str, bytes]) -> Mapping[str, Sequence[TopicPartition]]:
        raise ValueError("no idea")

    member = await log.join_group(
        group.name,
        [group.topic],
        lambda: b"",
        fail,
        instance_id=None,
        session_timeout_ms=SESSION_MS,
    )
    with pytest.raises(LogError, match="no idea"):
        await member.next_assignment(WAIT_MS)
    await member.leave()


async def test_a_session_that_the_broker_does_not_accept_is_told(
    log: KafkaLog, group: Group
) -> None:
    member = await log.join_group(
        group.name,
        [group.topic],
        lambda: b"",
        group.assign,
        instance_id=None,
        session_timeout_ms=10,
    )
    with pytest.raises(ConfigError, match=r"group\.min\.session\.timeout"):
        await member.next_assignment(WAIT_MS)
    await member.leave()
