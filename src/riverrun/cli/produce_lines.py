"""Lines of JSON to records of a topic, in transactions as large as the input is quick."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import orjson

from riverrun.engine.clock import SystemClock
from riverrun.engine.errors import BatchTooLargeError, LogError, OutcomeUnknownError
from riverrun.engine.keys import key_to_wire
from riverrun.engine.log import FOREVER_MS, TopicSpec
from riverrun.engine.output import OutputBuffer
from riverrun.engine.planes import select_plane

from .brokers import is_local
from .command import CommandFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType
    from typing import Self

    from riverrun.engine.log import Log, LogWriter, TopicInfo

DEFAULT_PARTITIONS = 4
READ_BYTES = 1 << 20
READS_AHEAD = 4
"""Parts of the input that wait to be written; the reader then waits, and so does its source."""

TIMEOUT_MS = 30_000
LINE_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RecordFields:
    """Which fields of a document are more than value.

    Attributes:
        key: Field with the key, None for records without key.
        timestamp: Field with the time, None for the wall clock.
    """

    key: str | None
    timestamp: str | None


async def ensure_topic(log: Log, name: str, partitions: int | None, broker: str) -> TopicInfo:
    """Return the topic, created if it may be.

    Raises:
        CommandFailedError: If it is missing and its partitions are not known.
        PartitionCountError: If it has another number of partitions than asked for.
    """
    info = await log.describe_topic(name)
    if info is None and partitions is None and not is_local(broker):
        raise CommandFailedError(
            f"topic {name!r} does not exist at {broker}; create it, or give --partitions N to have "
            "it created"
        )
    if info is None or partitions is not None:
        # With a number that differs from what is there, this is where it is found.
        wanted = TopicSpec(name, partitions or DEFAULT_PARTITIONS, retention_ms=FOREVER_MS)
        await log.create_topics([wanted])
        info = await log.describe_topic(name)
    if info is None:
        raise CommandFailedError(f"topic {name!r} was created at {broker} and is not there")
    return info


async def read_lines(descriptor: int) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a file descriptor as they come, many at a time.

    Raises:
        CommandFailedError: If a line is longer than ``LINE_MAX_BYTES``.
    """
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[bytes] = asyncio.Queue(READS_AHEAD)

    def read() -> None:
        try:
            while True:
                part = os.read(descriptor, READ_BYTES)
                asyncio.run_coroutine_threadsafe(parts.put(part), loop).result()
                if not part:
                    return
        except RuntimeError:
            # The loop is closed: nobody wants the rest.
            return

    # A daemon, since a read from a terminal or a quiet pipe cannot be interrupted. And a thread,
    # since the loop cannot wait for a plain file.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    rest: list[bytes] = []
    while part := await parts.get():
        head, newline, tail = part.rpartition(b"\n")
        if newline:
            yield b"".join([*rest, head]).split(b"\n")
            rest = []
        rest.append(tail)
        if sum(map(len, rest)) > LINE_MAX_BYTES:
            raise CommandFailedError(f"a line is longer than {LINE_MAX_BYTES} bytes: no JSON lines")
    if any(rest):
        yield [b"".join(rest)]


class LineProducer:
    """Writes lines to a topic; each part that was read is one transaction.

    Args:
        log: Where the topic is.
        topic: The topic.
        fields: Which fields are key and time.
    """

    def __init__(self, log: Log, topic: TopicInfo, fields: RecordFields) -> None:
        self._log = log
        self._topic = topic
        self._fields = fields
        self._clock = SystemClock()
        self._writer: LogWriter | None = None
        self._buffer = OutputBuffer(
            select_plane().record_batches,
            {topic.name: topic.partitions},
            {topic.name: topic.max_batch_bytes},
            self._clock.now_ms,
        )
        self._lines = 0
        self.written = 0

    async def __aenter__(self) -> Self:
        self._writer = await self._log.open_writer(
            f"riverrun-produce-{uuid4().hex}", transactional=True, timeout_ms=TIMEOUT_MS
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._writer is not None
        await self._writer.close()

    async def run(self, parts: AsyncIterator[list[bytes]]) -> None:
        """Write all lines.

        Raises:
            CommandFailedError: If a line is no record, or cannot be written; what came before it
                is written, and the message says how much that is.
        """
        async for lines in parts:
            try:
                count, fault = self._take(lines)
                await self._commit(count)
            except OutcomeUnknownError as error:
                raise CommandFailedError(
                    f"{error}. {self.written} records are in {self._topic.name}; whether the next "
                    f"{len(lines)} lines are as well is unknown"
                ) from error
            except LogError as error:
                raise CommandFailedError(f"{error}. {self._so_far()}") from error
            if fault is not None:
                raise CommandFailedError(f"{fault}. {self._so_far()}")

    def _so_far(self) -> str:
        return f"{self.written} records are in {self._topic.name}, and none after them"

    def _take(self, lines: list[bytes]) -> tuple[int, str | None]:
        """Add records up to the first line that is none; return their number, and what is wrong."""
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        times: list[int] = []
        now_ms = self._clock.now_ms()
        fault: str | None = None
        for line in lines:
            self._lines += 1
            text = line.strip()
            if not text:
                continue
            try:
                document = orjson.loads(text)
                keys.append(self._key(document))
                times.append(self._time_ms(document, now_ms))
            except (ValueError, TypeError, KeyError) as error:
                del keys[len(values) :]
                fault = f"line {self._lines} is no record: {_reason(error)}"
                break
            values.append(text)
        if values:
            self._buffer.write(self._topic.name, keys, values, times)
        return len(values), fault

    def _key(self, document: Any) -> bytes | None:
        if self._fields.key is None:
            return None
        return key_to_wire(_field(document, self._fields.key))

    def _time_ms(self, document: Any, now_ms: int) -> int:
        if self._fields.timestamp is None:
            return now_ms
        value = _field(document, self._fields.timestamp)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str):
            moment = dt.datetime.fromisoformat(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=dt.UTC)
            return int(moment.timestamp() * 1000)
        raise TypeError(f"field {self._fields.timestamp!r} holds no time: {value!r}")

    async def _commit(self, count: int) -> None:
        if not count:
            return
        assert self._writer is not None
        try:
            batches = self._buffer.drain()
        except BatchTooLargeError as error:
            raise CommandFailedError(f"{error}. {self._so_far()}") from error
        for topic, partition, batch in batches:
            self._writer.append(topic, partition, batch)
        await self._writer.commit(TIMEOUT_MS)
        self.written += count


def _field(document: Any, name: str) -> Any:
    if not isinstance(document, dict):
        raise TypeError(f"it is no JSON object, so it has no field {name!r}")
    return cast("dict[str, Any]", document)[name]


def _reason(error: Exception) -> str:
    return f"there is no field {error}" if isinstance(error, KeyError) else str(error)
