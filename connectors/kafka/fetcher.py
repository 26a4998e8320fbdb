"""Fetching: one fetcher per process serves all readers, with few requests per broker.

Per broker there are a few *slots*, each a connection with a fetch session (KIP-227: a request
names only what changed, an answer only what is new). All partitions that want records go out with
the first free slot as one long poll. A partition that comes to want records while that poll is
under way takes the next slot instead of waiting for it; the last slot polls for a short time only,
so that there is soon a free one whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from aiokafka.protocol.fetch import FetchRequest_v11

from riverrun.engine.errors import (
    CorruptBatchError,
    LogAuthorizationError,
    LogError,
    OffsetOutOfRangeError,
    TopicMissingError,
)
from riverrun.engine.log import Chunk, TopicPartition

from .batches import cut_whole_batches
from .client import Backoff, Deadline, KafkaClient, NotAnsweredError
from .protocol import PASSING, REFUSED, STALE_LEADER, Code, Exact, by_topic, code_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

log = logging.getLogger(__name__)

SLOTS_PER_NODE = 4
LONG_POLL_MS = 500
SHORT_POLL_MS = 50
# What an answer may take beyond the poll itself, before the connection is given up.
ANSWER_GRACE_MS = 10_000
PARTITION_BYTES_MAX = 1024 * 1024
RESPONSE_BYTES_MAX = 8 * 1024 * 1024
# A partition that holds so much for its reader is not fetched: backpressure.
BUFFER_BYTES_MAX = 1024 * 1024
READ_COMMITTED = 1
# Metadata of a new topic spreads within a second; with growing pauses this is about 3 s.
MISSING_ATTEMPTS_MAX = 7
CORRUPT_ATTEMPTS_MAX = 5
UNEXPECTED_ATTEMPTS_MAX = 10
METADATA_TIMEOUT_MS = 5_000


class Cursor:
    """One partition as one reader reads it."""

    __slots__ = (
        "backoff", "buffered", "buffered_bytes", "closed", "end_offset", "error", "fetch_offset",
        "fetching", "max_bytes", "missing", "not_before_s", "on_ready", "partition", "position",
        "trouble",
    )  # fmt: skip

    def __init__(
        self, partition: TopicPartition, position: int, on_ready: Callable[[], None]
    ) -> None:
        self.partition = partition
        self.position = position  # what the reader gets next
        self.fetch_offset = position  # what the broker is asked for next
        self.on_ready = on_ready
        self.buffered: deque[Chunk] = deque()
        self.buffered_bytes = 0
        self.end_offset: int | None = None
        self.error: LogError | None = None
        self.trouble: str | None = None
        self.fetching = False
        self.closed = False
        self.max_bytes = PARTITION_BYTES_MAX
        self.missing = 0
        self.backoff = Backoff()
        self.not_before_s = 0.0

    def wants_records(self) -> bool:
        """Return whether it should be in a fetch request, its pause aside."""
        return not (
            self.fetching or self.closed or self.error or self.buffered_bytes >= BUFFER_BYTES_MAX
        )

    def fail(self, error: LogError) -> None:
        """Stop fetching; the reader raises ``error`` once it has had what is buffered."""
        self.error = error
        self.trouble = None
        self.on_ready()

    def retry_later(self, reason: str) -> None:
        """Pause, longer each time."""
        self.trouble = f"{self.partition}: {reason}"
        now_s = asyncio.get_running_loop().time()
        self.not_before_s = now_s + self.backoff.next_ms() / 1000

    def all_is_well(self) -> None:
        """Forget troubles."""
        if self.trouble is not None or self.missing:
            self.trouble = None
            self.missing = 0
            self.backoff.reset()

    def take(self) -> Chunk | None:
        """Return what is buffered, as one chunk, and advance the position; None if nothing."""
        if not self.buffered:
            return None
        first = self.buffered.popleft()
        chunk = first
        if self.buffered:
            rest = list(self.buffered)
            self.buffered.clear()
            aborted = {pair for part in (first, *rest) for pair in part.aborted}
            chunk = Chunk(
                partition=self.partition,
                offset=first.offset,
                next_offset=rest[-1].next_offset,
                payload=b"".join((first.payload, *(part.payload for part in rest))),
                aborted=sorted(aborted, key=lambda pair: pair[1]),
            )
        self.buffered_bytes = 0
        self.position = chunk.next_offset
        return chunk


class _Slot:
    """A connection to one broker with its fetch session."""

    def __init__(self, node: int, index: int) -> None:
        self.node = node
        self.lane = f"fetch-{index}"
        last = index == SLOTS_PER_NODE - 1
        self.wait_ms = SHORT_POLL_MS if last else LONG_POLL_MS
        self.busy = False
        self._session_id = 0
        self._epoch = 0
        self._known: dict[TopicPartition, tuple[int, int]] = {}  # {partition: (offset, max bytes)}

    def request(self, cursors: Sequence[Cursor]) -> Exact:
        """Return the request that makes the session read at ``cursors`` and nowhere else."""
        wanted = {c.partition: (c.fetch_offset, c.max_bytes) for c in cursors}
        topics: dict[str, list[tuple[int, int, int, int, int]]] = {}
        for partition, (offset, max_bytes) in wanted.items():
            if self._known.get(partition) != (offset, max_bytes):
                # no leader epoch known, no log start offset: we are no replica
                entry = (partition.partition, -1, offset, -1, max_bytes)
                topics.setdefault(partition.topic, []).append(entry)
        forgotten = by_topic(partition for partition in self._known if partition not in wanted)
        response_bytes = max(RESPONSE_BYTES_MAX, *(c.max_bytes for c in cursors))
        request = FetchRequest_v11(
            -1, self.wait_ms, 1, response_bytes, READ_COMMITTED,
            self._session_id, self._epoch, list(topics.items()), forgotten, "",
        )  # fmt: skip
        self._known = wanted
        return Exact(request)

    def answered(self, session_id: int) -> None:
        """Go on with the session that the broker opened or went on with; 0 if it has no room."""
        self._session_id = session_id
        if session_id == 0:
            self.reset()
        else:
            self._epoch = 1 if self._epoch == 0x7FFFFFFF else self._epoch + 1

    def reset(self) -> None:
        """Begin a new session with the next request."""
        self._session_id = self._epoch = 0
        self._known = {}


class Fetcher:
    """Keeps the buffers of all cursors filled."""

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._cursors: list[Cursor] = []
        self._slots: dict[int, list[_Slot]] = {}
        self._wake_up = asyncio.Event()
        self._looking = False  # for leaders
        self._loop: asyncio.Task[None] | None = None

    def add(self, cursors: Iterable[Cursor]) -> None:
        """Begin to fetch for ``cursors``."""
        self._cursors.extend(cursors)
        if self._loop is None:
            self._loop = self._client.spawn(self._dispatch_for_ever(), "fetch")
        self.wake()

    def remove(self, cursors: Iterable[Cursor]) -> None:
        """Stop fetching for ``cursors``; what is under way for them is dropped when it arrives."""
        for cursor in cursors:
            cursor.closed = True
        self._cursors = [cursor for cursor in self._cursors if not cursor.closed]

    def wake(self) -> None:
        """Look anew at what the cursors want."""
        self._wake_up.set()

    # --- dispatch ----------------------------------------------------------------------------

    async def _dispatch_for_ever(self) -> None:
        while True:
            self._wake_up.clear()
            try:
                pause_s = self._dispatch()
            except Exception:  # a defect: loud, and not in a hot loop
                log.exception("fetcher")
                pause_s = 1.0
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake_up.wait()
            except TimeoutError:
                continue

    def _dispatch(self) -> float | None:
        """Start the requests that can be started; return when to look again, None if woken."""
        now_s = asyncio.get_running_loop().time()
        pause_s: float | None = None
        # Two readers of one partition do not go into one request, so there are layers of requests.
        by_node: dict[int, list[dict[TopicPartition, Cursor]]] = {}
        unknown: list[Cursor] = []
        for cursor in self._cursors:
            if not cursor.wants_records():
                continue
            if cursor.not_before_s > now_s:
                wait_s = cursor.not_before_s - now_s
                pause_s = wait_s if pause_s is None else min(pause_s, wait_s)
                continue
            leader = self._client.leader(cursor.partition)
            if leader is None:
                unknown.append(cursor)
            else:
                layers = by_node.setdefault(leader, [{}])
                if all(cursor.partition in layer for layer in layers):
                    layers.append({})
                layer = next(layer for layer in layers if cursor.partition not in layer)
                layer[cursor.partition] = cursor
        for node, layers in by_node.items():
            for layer in layers:
                slot = self._free_slot(node)
                if slot is None:
                    break  # the next one that comes back takes them
                slot.busy = True
                for cursor in layer.values():
                    cursor.fetching = True
                self._client.spawn(self._fetch(slot, list(layer.values())), slot.lane)
        if unknown and not self._looking:
            self._looking = True
            self._client.spawn(self._find_leaders(unknown), "find leaders")
        return pause_s

    def _free_slot(self, node: int) -> _Slot | None:
        slots = self._slots.setdefault(node, [])
        for slot in slots:
            if not slot.busy:
                return slot
        if len(slots) < SLOTS_PER_NODE:
            slots.append(_Slot(node, len(slots)))
            return slots[-1]
        return None

    async def _find_leaders(self, cursors: Sequence[Cursor]) -> None:
        try:
            topics = {cursor.partition.topic for cursor in cursors}
            await self._client.refresh(topics, Deadline(METADATA_TIMEOUT_MS))
            for cursor in cursors:
                self._check_leader(cursor)
        except NotAnsweredError as error:
            for cursor in cursors:
                cursor.retry_later(str(error))
        except LogError as error:
            for cursor in cursors:
                cursor.fail(error)
        finally:
            self._looking = False
            self.wake()

    def _check_leader(self, cursor: Cursor) -> None:
        if self._client.leader(cursor.partition) is not None:
            return
        topic = self._client.topic(cursor.partition.topic)
        code = Code.UNKNOWN_TOPIC_OR_PARTITION if topic is None else topic.error
        if code in REFUSED:
            cursor.fail(LogAuthorizationError(f"{cursor.partition}: {code_name(code)}"))
            return
        exists = topic is not None and cursor.partition.partition in topic.leaders
        cursor.missing = 0 if exists else cursor.missing + 1
        if cursor.missing >= MISSING_ATTEMPTS_MAX:
            cursor.fail(TopicMissingError(f"{cursor.partition} does not exist"))
            return
        cursor.retry_later("it has no leader" if exists else "it is not known to the broker")

    # --- one request -------------------------------------------------------------------------

    async def _fetch(self, slot: _Slot, cursors: Sequence[Cursor]) -> None:
        try:
            answer = await self._client.send(
                slot.node,
                slot.request(cursors),
                lane=slot.lane,
                timeout_ms=slot.wait_ms + ANSWER_GRACE_MS,
            )
            self._take_answer(slot, cursors, answer)
        except NotAnsweredError as error:
            slot.reset()
            for cursor in cursors:
                self._client.forget_leader(cursor.partition)
                cursor.retry_later(str(error))
        except LogError as error:
            slot.reset()
            for cursor in cursors:
                cursor.fail(error)
        except Exception as error:  # a defect: loud, and not in a hot loop
            log.exception("fetching from broker %s", slot.node)
            slot.reset()
            for cursor in cursors:
                cursor.retry_later(repr(error))
        finally:
            slot.busy = False
            for cursor in cursors:
                cursor.fetching = False
            self.wake()

    def _take_answer(self, slot: _Slot, cursors: Sequence[Cursor], answer: Any) -> None:
        code = answer.error_code
        if code != Code.NONE:
            slot.reset()
            if code not in {Code.FETCH_SESSION_ID_NOT_FOUND, Code.INVALID_FETCH_SESSION_EPOCH}:
                for cursor in cursors:
                    cursor.retry_later(code_name(code))
            return
        slot.answered(answer.session_id)
        silent = {cursor.partition: cursor for cursor in cursors}
        for topic, partitions in answer.topics:
            for partition, error_code, _, stable, _, aborted, _, payload in partitions:
                cursor = silent.pop(TopicPartition(topic, partition), None)
                if cursor is None or cursor.closed:
                    continue
                if error_code != Code.NONE:
                    self._take_error(cursor, error_code)
                    continue
                if stable >= 0:
                    cursor.end_offset = stable
                if payload:
                    self._take_payload(cursor, payload, aborted or ())
                else:
                    cursor.all_is_well()
        for cursor in silent.values():  # a session says nothing of what has nothing new
            cursor.all_is_well()

    def _take_payload(
        self, cursor: Cursor, payload: bytes, aborted: Sequence[tuple[int, int]]
    ) -> None:
        try:
            cut = cut_whole_batches(payload)
        except CorruptBatchError as error:
            self._corrupt(cursor, str(error))
            return
        if cut.next_offset is None:
            # A batch larger than what we ask for, behind others in the answer.
            cursor.max_bytes = max(cut.wanted, cursor.max_bytes)
            return
        if cut.next_offset <= cursor.fetch_offset:
            self._corrupt(cursor, f"asked for {cursor.fetch_offset}, got up to {cut.next_offset}")
            return
        whole = payload if cut.size == len(payload) else payload[: cut.size]
        cursor.buffered.append(
            Chunk(cursor.partition, cursor.fetch_offset, cut.next_offset, whole, aborted)
        )
        cursor.buffered_bytes += len(whole)
        cursor.fetch_offset = cut.next_offset
        cursor.max_bytes = PARTITION_BYTES_MAX
        cursor.all_is_well()
        cursor.on_ready()

    def _take_error(self, cursor: Cursor, code: int) -> None:
        partition = cursor.partition
        if code == Code.OFFSET_OUT_OF_RANGE:
            cursor.fail(
                OffsetOutOfRangeError(
                    f"{partition}: offset {cursor.fetch_offset} is not in the log (any more)"
                )
            )
        elif code in REFUSED:
            cursor.fail(LogAuthorizationError(f"reading {partition}: {code_name(code)}"))
        elif code == Code.CORRUPT_MESSAGE:
            self._corrupt(cursor, "the broker says the stored data is corrupt")
        elif code in STALE_LEADER or code in PASSING:
            if code in STALE_LEADER:
                self._client.forget_leader(partition)
            cursor.retry_later(code_name(code))
        elif cursor.backoff.attempts >= UNEXPECTED_ATTEMPTS_MAX:
            cursor.fail(LogError(f"reading {partition}: {code_name(code)}"))
        else:
            cursor.retry_later(code_name(code))

    def _corrupt(self, cursor: Cursor, reason: str) -> None:
        if cursor.backoff.attempts >= CORRUPT_ATTEMPTS_MAX:
            cursor.fail(
                CorruptBatchError(f"{cursor.partition} at offset {cursor.fetch_offset}: {reason}")
            )
        else:
            cursor.retry_later(reason)
