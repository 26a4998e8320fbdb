"""Answers in pieces of any size, and connections that read them in our way."""

# aiokafka's connection module has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import struct
import weakref
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import CorrelationIdError, KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.connectors.kafka import answers
from riverrun.connectors.kafka.answers import AnswerProtocol, BadFrameError, Frames
from riverrun.engine.log import TopicPartition
from tests.kafka.helpers import fill, new_topic, read_values, started
from tests.kafka_proxy import KafkaProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

TIMEOUT_S = 30


def framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack(">i", len(part)) + part for part in parts)


def pour(frames: Frames, data: bytes) -> None:
    """Put in data as a socket does: at most as much as there is room."""
    while data:
        buffer = frames.buffer()
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        frames.filled(count)
        data = data[count:]


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_frames_are_found_however_they_come(parts: list[bytes], data: st.DataObject) -> None:
    stream = framed(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    found: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "READ_BYTES", data.draw(st.integers(4, 64)))
        patch.setattr(answers, "TRUSTED_BYTES", data.draw(st.integers(1, 64)))
        frames = Frames(found.append)
        for begin, end in pairwise([0, *cuts, len(stream)]):
            pour(frames, stream[begin:end])
    assert found == parts


def test_memory_is_taken_for_what_comes_not_for_what_is_announced() -> None:
    frames = Frames(lambda frame: None)
    pour(frames, struct.pack(">i", answers.FRAME_BYTES_MAX))
    assert len(frames.buffer()) <= answers.TRUSTED_BYTES


@pytest.mark.parametrize("size", [-1, answers.FRAME_BYTES_MAX + 1])
def test_a_size_that_makes_no_sense_is_refused(size: int) -> None:
    with pytest.raises(BadFrameError, match=f"{size} bytes"):
        pour(Frames(lambda frame: None), struct.pack(">i", size))


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run something on a loop of either kind: they switch protocols in ways of their own."""

    def run_in_time(work: Coroutine[Any, Any, None]) -> None:
        request.param(asyncio.wait_for(work, TIMEOUT_S))

    return run_in_time


async def connected(address: str) -> AIOKafkaConnection:
    host, _, port = address.partition(":")
    connection = await create_conn(host, int(port), request_timeout_ms=TIMEOUT_S * 1000)
    AnswerProtocol.install(connection)
    return connection


def protocol_of(connection: AIOKafkaConnection) -> AnswerProtocol:
    writer: Any = connection._writer
    protocol = writer.transport.get_protocol()
    assert isinstance(protocol, AnswerProtocol)
    return protocol


def test_small_and_large_answers_are_read(
    kafka: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    values = [b"%d" % n + bytes(range(256)) * 2_000 for n in range(8)]

    async def scenario() -> None:
        async with started(kafka) as log:
            partition = TopicPartition(await new_topic(log), 0)
            await fill(log, partition, *([value] for value in values))
            reader = await log.open_reader({partition: 0})
            assert await read_values(reader, len(values)) == values
            await reader.close()
        connection = await connected(kafka)
        for _ in range(3):
            answer: Any = await connection.send(ApiVersionRequest())
            assert answer.error_code == 0
        connection.close()

    run(scenario())


def test_what_is_no_answer_ends_the_connection(
    kafka: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def scenario(rubbish: bytes) -> None:
        connection = await connected(kafka)
        protocol = protocol_of(connection)
        writer: Any = connection._writer
        writer.transport.pause_reading()  # or the broker's own answer might be there first
        answer = asyncio.ensure_future(connection.send(ApiVersionRequest()))
        await asyncio.sleep(0)
        protocol.get_buffer(-1)[: len(rubbish)] = rubbish
        protocol.buffer_updated(len(rubbish))
        assert not connection.connected()
        with pytest.raises((KafkaConnectionError, CorrelationIdError)):
            await answer

    async def both() -> None:
        await scenario(b"\xff\xff\xff\xff")
        await scenario(framed([b"not an answer"]))

    run(both())


def test_what_comes_while_a_connection_closes_is_nobodys(
    kafka: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def scenario() -> None:
        connection = await connected(kafka)
        protocol = protocol_of(connection)
        writer: Any = connection._writer
        writer.transport.close()
        protocol.get_buffer(-1)[:4] = b"\xff\xff\xff\xff"
        protocol.buffer_updated(4)
        assert connection.connected()  # or close(), whose first step that was, would fail
        connection.close()

    run(scenario())


def test_a_broker_that_hangs_up_ends_the_connection(
    kafka: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def scenario() -> None:
        connection = await connected(kafka)
        answer = asyncio.ensure_future(connection.send(ApiVersionRequest()))
        protocol_of(connection).eof_received()
        with pytest.raises(KafkaConnectionError):
            await answer
        assert not connection.connected()

    run(scenario())


def test_whoever_sends_when_the_connection_is_reset_is_told(
    kafka: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def scenario() -> None:
        async with KafkaProxy(kafka) as proxy:
            connection = await connected(proxy.address)
            waiting: list[asyncio.Future[Any]] = []
            proxy.reset()
            # In each turn of the loop, for there is no telling in which it is heard of.
            while connection.connected():
                waiting.append(asyncio.ensure_future(connection.send(ApiVersionRequest())))
                await asyncio.sleep(0)
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(ends[-1], KafkaConnectionError)

    run(scenario())


def test_nothing_keeps_what_came_of_an_answer_when_the_connection_is_lost(
    kafka: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def scenario() -> None:
        async with KafkaProxy(kafka) as proxy:
            connection = await connected(proxy.address)
            gone = asyncio.Event()
            weakref.finalize(protocol_of(connection), gone.set)
            proxy.reset()
            await gone.wait()

    gc.disable()
    try:
        run(scenario())
    finally:
        gc.enable()


async def test_a_connection_that_is_closed_already_is_left_alone(kafka: str) -> None:
    connection = await connected(kafka)
    connection.close()
    AnswerProtocol.install(connection)
    assert not connection.connected()
