"""A proxy that understands Kafka's framing: counts requests, and swallows, holds or edits answers.

It stands between one client and one broker and makes itself the broker's advertised address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.protocol.coordination import FindCoordinatorResponse_v1
from aiokafka.protocol.fetch import FetchResponse_v11
from aiokafka.protocol.metadata import MetadataResponse_v5
from aiokafka.protocol.produce import ProduceResponse_v7
from aiokafka.protocol.transaction import AddPartitionsToTxnResponse_v0, EndTxnResponse_v0

from riverrun.connectors.kafka.protocol import HeartbeatResponse_v3, OffsetFetchResponse_v7

PRODUCE, FETCH, METADATA, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 3, 9, 10
HEARTBEAT, ADD_PARTITIONS, END_TXN = 12, 24, 26

# {(api key, version): (response class, whether its header has tags)}
RESPONSES: dict[tuple[int, int], tuple[Any, bool]] = {
    (PRODUCE, 7): (ProduceResponse_v7, False),
    (FETCH, 11): (FetchResponse_v11, False),
    (METADATA, 5): (MetadataResponse_v5, False),
    (OFFSET_FETCH, 7): (OffsetFetchResponse_v7, True),
    (FIND_COORDINATOR, 1): (FindCoordinatorResponse_v1, False),
    (HEARTBEAT, 3): (HeartbeatResponse_v3, False),
    (ADD_PARTITIONS, 0): (AddPartitionsToTxnResponse_v0, False),
    (END_TXN, 0): (EndTxnResponse_v0, False),
}

Edit = Callable[[Any], Any]


@dataclass
class _Rule:
    """What to do with the next answers of one kind."""

    times: float
    edit: Edit | None = None
    swallow: bool = False
    hang_up: bool = False
    forward: bool = True  # False: the broker never sees the request
    gate: asyncio.Event | None = None


class KafkaProxy:
    """Use as an async context manager; ``address`` is what the client should connect to."""

    def __init__(self, upstream: str) -> None:
        host, port = upstream.rsplit(":", 1)
        self._upstream = (host, int(port))
        self.requests: Counter[int] = Counter()
        self.answers: Counter[int] = Counter()
        self._rules: dict[int, _Rule] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> KafkaProxy:
        await self.listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.hang_up()

    async def listen(self) -> None:
        """Take connections, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def hang_up(self) -> None:
        """Drop all connections and refuse new ones, as a dead broker does."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def reset(self) -> None:
        """Drop all connections as a killed broker does: by a reset, not by an end."""
        for writer in list(self._writers):
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()

    # --- rules: each holds for the next ``times`` answers of a kind ------------------------------

    def swallow(self, key: int, times: float = 1) -> None:
        """Let the broker do it, and lose its answer."""
        self._rules[key] = _Rule(times, swallow=True)

    def break_off(self, key: int, times: float = 1) -> None:
        """Let the broker do it, and close the connection instead of answering."""
        self._rules[key] = _Rule(times, hang_up=True)

    def hold(self, key: int, times: float = 1) -> asyncio.Event:
        """Let the broker do it, and answer when the returned event is set."""
        gate = asyncio.Event()
        self._rules[key] = _Rule(times, gate=gate)
        return gate

    def ignore(self, key: int, times: float = 1) -> None:
        """Neither let the broker see it nor answer."""
        self._rules[key] = _Rule(times, forward=False)

    def edit(self, key: int, edit: Edit, times: float = 1) -> None:
        """Let the broker do it, and answer what ``edit`` makes of its answer."""
        self._rules[key] = _Rule(times, edit=edit)

    def answer(self, key: int, response: Any, times: float = 1) -> None:
        """Answer this, without the broker's knowledge."""
        self._rules[key] = _Rule(times, edit=lambda _: response, forward=False)

    def be_honest(self, key: int) -> None:
        """Pass answers on again."""
        self._rules.pop(key, None)

    def _take_rule(self, key: int) -> _Rule | None:
        rule = self._rules.get(key)
        if rule is None or rule.times <= 0:
            return None
        rule.times -= 1
        return rule

    # --- plumbing --------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        up_writer: asyncio.StreamWriter | None = None
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            self._writers.add(up_writer)
            rules: dict[int, tuple[int, int, _Rule | None]] = {}
            down = asyncio.create_task(self._pass_answers(up_reader, writer, rules))
            try:
                await self._pass_requests(reader, up_writer, writer, rules)
            finally:
                down.cancel()
                await asyncio.wait([down])
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in (writer, up_writer):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _pass_requests(
        self,
        reader: asyncio.StreamReader,
        up: asyncio.StreamWriter,
        down: asyncio.StreamWriter,
        rules: dict[int, tuple[int, int, _Rule | None]],
    ) -> None:
        while True:
            frame = await _read_frame(reader)
            key, version, correlation = struct.unpack(">hhi", frame[:8])
            self.requests[key] += 1
            rule = self._take_rule(key)
            rules[correlation] = (key, version, rule)
            if rule is not None and not rule.forward:
                if rule.edit is not None:
                    self.answers[key] += 1
                    flexible = RESPONSES[key, version][1]
                    body = struct.pack(">i", correlation) + (b"\0" if flexible else b"")
                    _write_frame(down, body + rule.edit(None).encode())
                continue
            _write_frame(up, frame)
            await up.drain()

    async def _pass_answers(
        self,
        reader: asyncio.StreamReader,
        down: asyncio.StreamWriter,
        rules: dict[int, tuple[int, int, _Rule | None]],
    ) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame = await _read_frame(reader)
                key, version, rule = rules.pop(struct.unpack(">i", frame[:4])[0])
                if rule is not None:
                    if rule.gate is not None:
                        await rule.gate.wait()
                    if rule.swallow:
                        continue
                    if rule.hang_up:
                        break
                edit = None if rule is None else rule.edit
                if key == METADATA:
                    edit = self._be_the_broker
                elif key == FIND_COORDINATOR:
                    edit = self._be_the_coordinator
                if edit is not None:
                    frame = _edited(frame, key, version, edit)
                self.answers[key] += 1
                _write_frame(down, frame)
                await down.drain()
        down.close()

    def _be_the_broker(self, metadata: Any) -> Any:
        metadata.brokers = [
            (node, "127.0.0.1", self.port, rack) for node, _, _, rack in metadata.brokers
        ]
        return metadata

    def _be_the_coordinator(self, found: Any) -> Any:
        found.host, found.port = "127.0.0.1", self.port
        return found


def _edited(frame: bytes, key: int, version: int, edit: Edit) -> bytes:
    response_class, flexible = RESPONSES[key, version]
    header = 5 if flexible else 4
    response = response_class.decode(BytesIO(frame[header:]))
    return frame[:header] + edit(response).encode()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)
