"""What a writer has to send: queues per partition, one request per broker at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest

from riverrun.engine.errors import (
    BatchTooLargeError,
    FencedError,
    LogError,
    WriteError,
)
from riverrun.engine.log import EncodedBatch, TopicPartition

from .batches import sign
from .client import Backoff, Coordinator, Deadline, KafkaClient, NotAnsweredError
from .protocol import (
    COORDINATOR_PASSING,
    FENCED,
    PASSING,
    REFUSED,
    STALE_COORDINATOR,
    STALE_LEADER,
    Code,
    by_topic,
    code_name,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

log = logging.getLogger(__name__)

# All in-sync replicas, without which a broker crash could lose what was acknowledged.
ACKS_ALL = -1
# How long the broker waits for its replicas before it answers REQUEST_TIMED_OUT.
REPLICATION_TIMEOUT_MS = 5_000
# From the first attempt on; callers' own deadlines are usually shorter.
DELIVERY_TIMEOUT_MS = 30_000
# Bounds what one request carries, unless a single batch is larger.
REQUEST_BYTES_MAX = 8 * 1024 * 1024
# Below the broker's default socket.request.max.bytes (100 MiB): beyond that it hangs up without a
# word, which would look like a broken connection for ever.
BATCH_BYTES_MAX = 96 * 1024 * 1024
SEQUENCE_MASK = 0x7FFFFFFF


class _Outgoing:
    """One batch on its way; ``payload`` is signed at the first attempt and not changed after."""

    __slots__ = ("backoff", "count", "deadline", "not_before_s", "partition", "payload", "signed")

    def __init__(self, partition: TopicPartition, batch: EncodedBatch) -> None:
        self.partition = partition
        self.payload = batch.payload
        self.count = batch.record_count
        self.signed = False
        self.backoff: Backoff | None = None
        self.deadline: Deadline | None = None
        self.not_before_s = 0.0


class Sender:
    """Sends batches in order per partition and remembers what became of them.

    A failure is for good: nothing is sent after it, and ``flush`` raises it.
    """

    def __init__(
        self,
        client: KafkaClient,
        *,
        writer_id: str,
        owner: tuple[int, int],
        lane: str,
        coordinator: Coordinator | None,
    ) -> None:
        """Start sending for ``owner``; with a ``coordinator`` in transactions."""
        self._client = client
        self._id = writer_id
        self._owner = owner
        self._lane = lane
        self._coordinator = coordinator
        self.failure: LogError | None = None
        self.pending_bytes = 0
        self._queues: dict[TopicPartition, deque[_Outgoing]] = {}
        self._sequences: dict[TopicPartition, int] = {}
        self._added: set[TopicPartition] = set()  # partitions of the open transaction
        self._busy: set[int] = set()  # nodes with a request under way
        self._requests: set[asyncio.Task[None]] = set()
        self._flushed: dict[TopicPartition, int] = {}
        self._written: dict[TopicPartition, int] = {}
        self._held: list[tuple[TopicPartition, EncodedBatch]] | None = None
        self._trouble = ""  # why the newest attempt failed that will be repeated
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()  # something was acknowledged or failed
        self._loop = client.spawn(self._send_for_ever(), f"send {writer_id}")

    # --- the writer's side -------------------------------------------------------------------

    def append(self, partition: TopicPartition, batch: EncodedBatch) -> None:
        """Queue a batch; it goes out when the event loop gets to it."""
        if self.failure is not None:
            return  # told by the next flush
        if self._held is not None:
            self._held.append((partition, batch))
            self.pending_bytes += len(batch.payload)
            return
        if len(batch.payload) > BATCH_BYTES_MAX:
            self.fail(self._too_large(partition, len(batch.payload)))
            return
        self._queues.setdefault(partition, deque()).append(_Outgoing(partition, batch))
        self.pending_bytes += len(batch.payload)
        self._wake.set()

    def hold(self) -> None:
        """Keep what is appended from now on out of the open transaction."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Send what was held, in the next transaction."""
        held, self._held = self._held or (), None
        for partition, batch in held:
            self.pending_bytes -= len(batch.payload)
            self.append(partition, batch)

    @property
    def in_transaction(self) -> bool:
        """Whether the log knows of an open transaction of ours."""
        return bool(self._added)

    async def flush(self, deadline: Deadline) -> None:
        """Wait until all is acknowledged.

        Raises:
            LogError: What went wrong, now or before.
        """
        self._trouble = "no answer"
        while self.failure is None and self._queues:
            self._changed.clear()
            try:
                async with asyncio.timeout(deadline.left_ms() / 1000):
                    await self._changed.wait()
            except TimeoutError:
                waiting = ", ".join(str(partition) for partition in list(self._queues)[:3])
                self.fail(
                    WriteError(
                        f"writer {self._id!r}: not acknowledged within {deadline.timeout_ms} ms: "
                        f"{waiting} ({self._trouble})"
                    )
                )
        if self.failure is not None:
            raise self.failure

    def take_flushed(self) -> Mapping[TopicPartition, int]:
        """Return the ends of what was written since the last flush or commit."""
        flushed, self._flushed = self._flushed, {}
        return flushed

    def take_committed(self) -> Mapping[TopicPartition, int]:
        """Return the ends of what was written since the last commit, and begin anew."""
        written = self._written
        self.forget_transaction()
        return written

    def forget_transaction(self) -> None:
        """Begin anew: the transaction is over."""
        self._added.clear()
        self._flushed = {}
        self._written = {}

    def fail(self, error: LogError) -> None:
        """Stop for good. The first failure is the one that counts."""
        if self.failure is None:
            self.failure = error
        self._changed.set()
        self._wake.set()

    def drop_queued(self) -> None:
        """Forget what has not been sent yet. Sequence numbers are given out when sending."""
        self.pending_bytes -= sum(len(batch.payload) for _, batch in self._held or ())
        self._held = None
        for partition, queue in list(self._queues.items()):
            kept = deque(outgoing for outgoing in queue if outgoing.signed)
            self.pending_bytes -= sum(len(o.payload) for o in queue if not o.signed)
            if kept:
                self._queues[partition] = kept
            else:
                del self._queues[partition]

    async def settle(self, deadline: Deadline) -> bool:
        """Wait for what is under way; return whether all of it was answered for."""
        while self._queues and self.failure is None and not deadline.passed():
            self._changed.clear()
            try:
                async with asyncio.timeout(deadline.left_ms() / 1000):
                    await self._changed.wait()
            except TimeoutError:
                break
        if self._requests:
            await asyncio.wait(self._requests, timeout=deadline.left_ms() / 1000)
        return not self._queues and not self._requests

    async def close(self) -> None:
        """Stop. Never raises."""
        self.fail(self.failure or WriteError(f"writer {self._id!r} is closed"))
        tasks = [self._loop, *self._requests]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1.0)

    # --- sending -----------------------------------------------------------------------------

    async def _send_for_ever(self) -> None:
        with self._failing():
            while self.failure is None:
                self._wake.clear()
                pause_s = await self._send_what_can_be_sent()
                try:
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    @contextmanager
    def _failing(self) -> Generator[None]:
        """Let the writer fail by what is raised inside."""
        try:
            yield
        except (FencedError, WriteError) as error:
            self.fail(error)
        except LogError as error:  # from connecting: credentials, versions
            self.fail(WriteError(f"writer {self._id!r}: {error}"))
        except Exception as error:  # a defect: the writer must fail, not hang
            log.exception("writer %r", self._id)
            self.fail(WriteError(f"writer {self._id!r}: {error!r}"))

    async def _send_what_can_be_sent(self) -> float | None:
        """Send one request to each idle leader; return when to look again, None if woken only."""
        if self._coordinator is not None:
            await self._add_partitions(self._coordinator)
        now_s = asyncio.get_running_loop().time()
        pause_s: float | None = None
        by_node: dict[int, list[_Outgoing]] = {}
        unknown: list[_Outgoing] = []
        for queue in self._queues.values():
            head = queue[0]
            if head.not_before_s > now_s:
                wait_s = head.not_before_s - now_s
                pause_s = wait_s if pause_s is None else min(pause_s, wait_s)
                continue
            leader = self._client.leader(head.partition)
            if leader is None:
                unknown.append(head)
            elif leader not in self._busy:
                by_node.setdefault(leader, []).append(head)
        for node, heads in by_node.items():
            self._start_request(node, heads)
        if unknown:
            await self._find_leaders(unknown)
            return 0.0 if pause_s is None else min(pause_s, 0.0)
        return pause_s

    def _start_request(self, node: int, heads: Sequence[_Outgoing]) -> None:
        chosen: list[_Outgoing] = []
        size = 0
        for head in heads:
            if chosen and size + len(head.payload) > REQUEST_BYTES_MAX:
                break  # the rest goes when this is answered
            chosen.append(head)
            size += len(head.payload)
        self._busy.add(node)
        task = self._client.spawn(self._produce(node, chosen), f"produce {self._id}")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _find_leaders(self, unknown: Sequence[_Outgoing]) -> None:
        """Ask for leaders; those that still have none wait a little, up to their deadline."""
        try:
            topics = {outgoing.partition.topic for outgoing in unknown}
            await self._client.refresh(topics, Deadline(REPLICATION_TIMEOUT_MS))
            reason = "it has no leader"
        except NotAnsweredError as error:
            reason = str(error)
        for outgoing in unknown:
            if self._client.leader(outgoing.partition) is None:
                self._retry_later(outgoing, reason)

    async def _add_partitions(self, coordinator: Coordinator) -> None:
        """Tell the coordinator which partitions the transaction touches, before writing there."""
        backoff = Backoff(first_ms=3, max_ms=200)
        deadline = Deadline(DELIVERY_TIMEOUT_MS)
        while self.failure is None:
            new = [partition for partition in self._queues if partition not in self._added]
            if not new:
                return
            request = AddPartitionsToTxnRequest(self._id, *self._owner, by_topic(new))
            try:
                answer = await coordinator.send(request, deadline)
            except NotAnsweredError as error:
                reason = str(error)
            else:
                reason = self._check_added(answer, coordinator)
                if reason is None:
                    self._added.update(new)
                    return
            self._trouble = reason
            if deadline.passed():
                raise WriteError(f"writer {self._id!r}: transaction not begun: {reason}")
            await backoff.pause(deadline)

    def _check_added(self, answer: Any, coordinator: Coordinator) -> str | None:
        """Return None if all were added, else what passes; raise what does not."""
        # The coordinator may know them although we were told of an error for another partition.
        failed = [
            (TopicPartition(topic, partition), code)
            for topic, partitions in answer.errors
            for partition, code in partitions
            if code not in {Code.NONE, 55}  # 55: not tried, because of another's error
        ]
        reason: str | None = None
        for partition, code in failed:
            reason = f"{partition}: {code_name(code)}"
            if code in STALE_COORDINATOR:
                coordinator.moved()
            passing = code in COORDINATOR_PASSING or code in PASSING
            if not passing and code != Code.CONCURRENT_TRANSACTIONS:
                raise self._refusal(code, partition, size=0)
        return reason

    async def _produce(self, node: int, chosen: Sequence[_Outgoing]) -> None:
        try:
            with self._failing():
                await self._produce_and_check(node, chosen)
        finally:
            self._busy.discard(node)
            self._wake.set()

    async def _produce_and_check(self, node: int, chosen: Sequence[_Outgoing]) -> None:
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for outgoing in chosen:
            self._sign(outgoing)
            topics.setdefault(outgoing.partition.topic, []).append(
                (outgoing.partition.partition, outgoing.payload)
            )
        name = None if self._coordinator is None else self._id
        request = ProduceRequest(name, ACKS_ALL, REPLICATION_TIMEOUT_MS, list(topics.items()))
        try:
            answer = await self._client.send(
                node, request, lane=self._lane, timeout_ms=REPLICATION_TIMEOUT_MS * 2
            )
        except NotAnsweredError as error:
            for outgoing in chosen:
                self._client.forget_leader(outgoing.partition)
                self._retry_later(outgoing, str(error))
            return
        results = {
            TopicPartition(topic, entry[0]): (entry[1], entry[2])
            for topic, partitions in answer.topics
            for entry in partitions
        }
        for outgoing in chosen:
            code, base_offset = results.get(outgoing.partition, (Code.UNKNOWN_SERVER_ERROR, -1))
            self._settle_one(outgoing, code, base_offset)
        self._changed.set()

    def _sign(self, outgoing: _Outgoing) -> None:
        if outgoing.signed:
            return
        sequence = self._sequences.get(outgoing.partition, 0)
        self._sequences[outgoing.partition] = (sequence + outgoing.count) & SEQUENCE_MASK
        outgoing.payload = sign(
            outgoing.payload,
            producer_id=self._owner[0],
            producer_epoch=self._owner[1],
            sequence=sequence,
            transactional=self._coordinator is not None,
        )
        outgoing.signed = True

    def _settle_one(self, outgoing: _Outgoing, code: int, base_offset: int) -> None:
        partition = outgoing.partition
        # A duplicate has been written by an earlier attempt whose answer was lost.
        if code in {Code.NONE, Code.DUPLICATE_SEQUENCE_NUMBER}:
            if base_offset >= 0:
                self._flushed[partition] = self._written[partition] = base_offset + outgoing.count
            queue = self._queues[partition]
            queue.popleft()
            if not queue:
                del self._queues[partition]
            self.pending_bytes -= len(outgoing.payload)
        elif code in PASSING:
            if code in STALE_LEADER:
                self._client.forget_leader(partition)
            self._retry_later(outgoing, code_name(code))
        else:
            raise self._refusal(code, partition, size=len(outgoing.payload))

    def _retry_later(self, outgoing: _Outgoing, reason: str) -> None:
        if outgoing.backoff is None or outgoing.deadline is None:
            # NOT_ENOUGH_REPLICAS is also how a broker asks for 10 ms of patience while it still
            # completes the previous transaction (KIP-890): the first pauses are short.
            outgoing.backoff = Backoff(first_ms=8, max_ms=500)
            outgoing.deadline = Deadline(DELIVERY_TIMEOUT_MS)
        if outgoing.deadline.passed():
            raise WriteError(
                f"writer {self._id!r}: {outgoing.partition} took no batch for "
                f"{DELIVERY_TIMEOUT_MS} ms: {reason}"
            )
        self._trouble = f"{outgoing.partition}: {reason}"
        now_s = asyncio.get_running_loop().time()
        outgoing.not_before_s = now_s + outgoing.backoff.next_ms() / 1000

    # --- errors ------------------------------------------------------------------------------

    def _refusal(self, code: int, partition: TopicPartition, *, size: int) -> LogError:
        if code in FENCED:
            return self.fenced(code)
        if code in {Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE}:
            return self._too_large(partition, size)
        if code in REFUSED:
            return WriteError(
                f"writer {self._id!r} may not write to {partition}: {code_name(code)}"
            )
        return WriteError(f"writer {self._id!r}: {partition} refused a batch: {code_name(code)}")

    def _too_large(self, partition: TopicPartition, size: int) -> LogError:
        return BatchTooLargeError(
            f"{partition} refused a batch of {size} bytes: larger than the topic's "
            "max.message.bytes"
        )

    def fenced(self, code: int) -> FencedError:
        """Return the error for a lost ownership."""
        return FencedError(
            f"writer {self._id!r} (producer {self._owner[0]}, epoch {self._owner[1]}) was fenced "
            f"({code_name(code)}): another owner took over, or the log aborted a transaction that "
            "was open for too long"
        )
