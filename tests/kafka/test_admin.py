"""Questions to the cluster, with forged answers where a real broker seldom gives them."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from riverrun.connectors.kafka import KafkaLog, Secret, Security
from riverrun.connectors.kafka.protocol import Code, OffsetFetchResponse_v7
from riverrun.engine.errors import ConfigError, LogError, LogUnavailableError
from riverrun.engine.log import TopicPartition, TopicSpec
from tests.kafka.helpers import HANG_S, WAIT_MS, fill, new_topic, started, unique
from tests.kafka_broker import free_port
from tests.kafka_proxy import METADATA, OFFSET_FETCH, KafkaProxy


async def commit(log: KafkaLog, group: str, key: TopicPartition, offset: int) -> None:
    member = await log.join_group(
        group,
        [key.topic],
        lambda: b"",
        lambda infos: {member: [key] for member in infos},
        instance_id=None,
        session_timeout_ms=6_000,
    )
    assert await member.next_assignment(WAIT_MS) is not None
    await member.commit_offsets({key: offset})
    await member.leave()


@pytest.mark.kafka
@pytest.mark.parametrize(
    "code",
    [
        Code.NOT_COORDINATOR,
        Code.COORDINATOR_LOAD_IN_PROGRESS,
        Code.COORDINATOR_NOT_AVAILABLE,
        Code.UNSTABLE_OFFSET_COMMIT,
    ],
)
async def test_a_coordinator_that_does_not_know_is_not_taken_for_nothing_committed(
    proxy: KafkaProxy, log: KafkaLog, code: int
) -> None:
    key = TopicPartition(await new_topic(log), 0)
    group = unique("group")
    await commit(log, group, key, 42)
    asked = proxy.requests[OFFSET_FETCH]
    if code == Code.UNSTABLE_OFFSET_COMMIT:
        topics: list[Any] = [(key.topic, [(0, -1, -1, "", code, {})], {})]
        proxy.answer(OFFSET_FETCH, OffsetFetchResponse_v7(0, topics, 0, {}), times=2)
    else:
        proxy.answer(OFFSET_FETCH, OffsetFetchResponse_v7(0, [], code, {}), times=2)

    assert await log.group_offsets(group, [key]) == {key: 42}

    assert proxy.requests[OFFSET_FETCH] == asked + 3


@pytest.mark.kafka
async def test_a_group_error_that_does_not_pass_is_raised(proxy: KafkaProxy, log: KafkaLog) -> None:
    proxy.answer(OFFSET_FETCH, OffsetFetchResponse_v7(0, [], 42, {}))
    with pytest.raises(LogError, match="group"):
        await log.group_offsets(unique("group"), [TopicPartition("t", 0)])


@pytest.mark.kafka
async def test_questions_have_a_deadline(proxy: KafkaProxy, kafka: str) -> None:
    async with started(proxy.address, question_timeout_ms=600) as log:
        proxy.ignore(METADATA, times=1000)
        began = time.monotonic()
        with pytest.raises(LogUnavailableError, match=proxy.address):
            await log.describe_topic("anything")
        with pytest.raises(LogUnavailableError):
            await log.offsets([TopicPartition(unique("topic"), 0)])
        with pytest.raises(LogUnavailableError):
            await log.create_topics([TopicSpec(unique("topic"), 1)])
        assert time.monotonic() - began < HANG_S


@pytest.mark.kafka
async def test_describing_does_not_create(log: KafkaLog) -> None:
    name = unique("topic")
    assert await log.describe_topic(name) is None
    assert await log.describe_topic(name) is None


@pytest.mark.kafka
async def test_deleted_records_move_the_start(log: KafkaLog) -> None:
    key = TopicPartition(await new_topic(log), 0)
    await fill(log, key, [b"a", b"b"], [b"c"])
    await log.delete_records({key: 2})
    assert (await log.offsets([key]))[key] == (2, 3)
    await log.delete_records({key: 1})  # already gone
    assert (await log.offsets([key]))[key] == (2, 3)


@pytest.mark.kafka
async def test_a_setting_that_the_broker_refuses_is_told(log: KafkaLog) -> None:
    with pytest.raises(LogError, match="cannot be created"):
        await log.create_topics([TopicSpec(unique("t"), 1, configs={"no.such.setting": "1"})])


async def test_nobody_there_names_the_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    log = KafkaLog(address)
    began = time.monotonic()
    with pytest.raises(LogUnavailableError, match=address):
        await log.start(300)
    assert time.monotonic() - began < HANG_S
    await log.close()


def test_secrets_do_not_show() -> None:
    security = Security(protocol="SASL_PLAINTEXT", username="me", password=Secret("hunter2"))
    assert "hunter2" not in repr(security)
    assert "hunter2" not in f"{security.password}"
    assert security.connection_arguments()["sasl_plain_password"] == "hunter2"


@pytest.mark.parametrize(
    "settings",
    [
        {"protocol": "TLS"},
        {"protocol": "SSL"},
        {"protocol": "SASL_PLAINTEXT"},
        {"protocol": "SASL_PLAINTEXT", "mechanism": "ROT13"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Security(**settings)  # type: ignore[arg-type]


@pytest.mark.kafka
async def test_the_client_does_not_log_what_it_sends(log: KafkaLog) -> None:
    assert logging.getLogger("aiokafka").level >= logging.INFO
    assert not logging.getLogger("aiokafka.conn").isEnabledFor(logging.DEBUG)
