"""Records of a topic to lines of JSON."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import orjson

from riverrun.engine.log import TopicPartition
from riverrun.engine.planes import select_plane

from .command import CommandFailedError, print_note

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from riverrun.engine.batch import RawRecords
    from riverrun.engine.log import Log, LogReader, TopicInfo

POLL_MS = 1_000
TOPIC_POLL_S = 0.5
TROUBLE_POLLS = 5
"""So many polls without anything while records are there, and the reader's trouble is told."""


async def find_topic(log: Log, name: str, *, wait: bool) -> TopicInfo:
    """Return the topic; if it is missing, wait for it where that is wanted.

    Raises:
        CommandFailedError: If it is missing.
    """
    info = await log.describe_topic(name)
    if info is None and wait:
        print_note(f"waiting for topic {name}")
        while info is None:
            await asyncio.sleep(TOPIC_POLL_S)
            info = await log.describe_topic(name)
    if info is None:
        raise CommandFailedError(
            f"topic {name!r} does not exist; look at its name and at --broker, or wait for it with "
            "--follow"
        )
    return info


class TopicReader:
    """Reads all partitions of a topic.

    Args:
        log: Where it is.
        topic: The topic.
        from_end: Whether to begin at its present end.
        follow: Whether to go on beyond its present end.
    """

    def __init__(self, log: Log, topic: TopicInfo, *, from_end: bool, follow: bool) -> None:
        self._log = log
        self._topic = topic
        self._from_end = from_end
        self._follow = follow
        self._codec = select_plane().record_batches

    async def read(self) -> AsyncIterator[RawRecords]:
        """Yield records as they come, those of one partition in order."""
        partitions = [TopicPartition(self._topic.name, n) for n in range(self._topic.partitions)]
        spans = await self._log.offsets(partitions)
        begin = {w: span.end if self._from_end else span.start for w, span in spans.items()}
        ends = {w: span.end for w, span in spans.items()}
        reader = await self._log.open_reader(begin)
        quiet_polls = 0
        try:
            while self._follow or _is_behind(reader, ends):
                chunks = await reader.poll(POLL_MS)
                quiet_polls = 0 if chunks else quiet_polls + 1
                if quiet_polls % TROUBLE_POLLS == 0 and (trouble := reader.trouble()):
                    print_note(trouble)
                for chunk in chunks:
                    records = self._codec.decode(chunk)
                    if not self._follow:
                        records = _before(records, ends[chunk.partition])
                    if len(records):
                        yield records
        finally:
            await reader.close()


def _is_behind(reader: LogReader, ends: dict[TopicPartition, int]) -> bool:
    return any(reader.position(where) < end for where, end in ends.items())


def _before(records: RawRecords, end: int) -> RawRecords:
    """Return the records below an offset: what came after the command started is left out."""
    count = sum(offset < end for offset in records.offsets)
    if count == len(records):
        return records
    headers = records.headers
    return type(records)(
        records.topic,
        records.partition,
        records.offsets[:count],
        records.timestamps_ms[:count],
        records.keys[:count],
        records.values[:count],
        None if headers is None else headers[:count],
    )


def line_of(records: RawRecords, index: int, shape: str) -> bytes:
    """Return one record as a line: ``value``, ``key`` with value, or all with ``metadata``."""
    value = as_json(records.values[index])
    if shape == "value":
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    key = as_text(records.keys[index])
    if shape == "key":
        entry: dict[str, Any] = {"key": key, "value": value}
    else:
        headers = records.headers[index] if records.headers is not None else ()
        entry = {
            "topic": records.topic,
            "partition": records.partition,
            "offset": records.offsets[index],
            "timestamp_ms": records.timestamps_ms[index],
            "key": key,
            # Pairs, since a name may come twice.
            "headers": [[name, as_text(content)] for name, content in headers],
            "value": value,
        }
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def as_json(content: bytes | None) -> Any:
    """Return what bytes stand for as JSON: a document as it is, otherwise as ``as_text``."""
    if content is None:
        return None
    try:
        # Checked, so that a broken document cannot break the lines; passed on as it was written.
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return as_text(content)
    # Its type stub is missing.
    return orjson.Fragment(content.translate(None, b"\r\n"))  # pyright: ignore


def as_text(content: bytes | None) -> Any:
    """Return bytes as text, or where they are none as ``{"base64": ...}``."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
