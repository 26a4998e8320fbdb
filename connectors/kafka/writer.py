"""Writing: an idempotent producer with transactions, at request level.

One transaction goes: AddPartitionsToTxn for the partitions it touches, Produce (acks of all in-sync
replicas), EndTxn. The version 0 calls are used, so the producer's epoch is what fences and it
changes only with InitProducerId, that is with ``open_writer``.

Whatever goes wrong that a repeat of the identical bytes cannot mend ends the writer for good:
sequence numbers and the transaction's fate are the log's business then, and a new writer asks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from aiokafka.protocol.transaction import EndTxnRequest, InitProducerIdRequest

from riverrun.engine.errors import (
    ConfigError,
    FencedError,
    LogAuthorizationError,
    LogError,
    LogUnavailableError,
    OutcomeUnknownError,
    WriteError,
)
from riverrun.engine.log import EncodedBatch, TopicPartition

from .client import TRANSACTION_KIND, Backoff, Coordinator, Deadline, KafkaClient, NotAnsweredError
from .protocol import COORDINATOR_PASSING, FENCED, REFUSED, STALE_COORDINATOR, Code, code_name
from .sender import Sender

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

# How long the log waits for a silent writer before it aborts the open transaction; till then
# read_committed readers of its partitions are held back. Longer than a barrier may take, since an
# expired transaction fences its writer; a new owner of the task ends it at once in any case.
TRANSACTION_TIMEOUT_MS = 60_000
# Writers share connections, but a broker works on one request of a connection at a time: enough
# lanes that writers seldom wait for each other's replication.
LANES = 64
CLOSE_TIMEOUT_MS = 1_000
INVALID_TRANSACTION_TIMEOUT = 50


async def open_writer(
    client: KafkaClient,
    writer_id: str,
    *,
    transactional: bool,
    timeout_ms: int,
    transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
) -> KafkaWriter:
    """Take ownership of ``writer_id`` and return its writer.

    A transactional writer fences all earlier ones with its id, and their open transaction is over
    for good. One that is not transactional has no name that the log would know: it does **not**
    fence earlier writers.

    Raises:
        LogUnavailableError: It could not be opened within the time.
        LogAuthorizationError: Access was refused.
    """
    deadline, backoff = Deadline(timeout_ms), Backoff(first_ms=5)
    lane = client.new_lane("write", limit=LANES)
    name = writer_id if transactional else None
    request = InitProducerIdRequest(name, transaction_timeout_ms)  # type: ignore[arg-type]
    coordinator = Coordinator(client, kind=TRANSACTION_KIND, key=writer_id, lane=lane)
    while True:
        try:
            if transactional:
                answer = await coordinator.send(request, deadline)
            else:
                answer = await client.send_any(request, deadline)
        except NotAnsweredError as error:
            reason = str(error)
        else:
            code = answer.error_code
            if code == Code.NONE:
                owner = (answer.producer_id, answer.producer_epoch)
                return KafkaWriter(client, writer_id, owner, lane, coordinator, transactional)
            _raise_if_hopeless(code, writer_id, transaction_timeout_ms)
            if code in STALE_COORDINATOR:
                coordinator.moved()
            reason = code_name(code)
        if deadline.passed():
            raise LogUnavailableError(
                f"writer {writer_id!r} could not be opened within {timeout_ms} ms: {reason}"
            )
        await backoff.pause(deadline)


def _raise_if_hopeless(code: int, writer_id: str, transaction_timeout_ms: int) -> None:
    if code in REFUSED:
        raise LogAuthorizationError(f"writer {writer_id!r}: {code_name(code)}")
    if code == INVALID_TRANSACTION_TIMEOUT:
        raise ConfigError(
            f"a transaction timeout of {transaction_timeout_ms} ms is more than the broker's "
            "transaction.max.timeout.ms"
        )


class KafkaWriter:
    """One owner's way to write; see ``riverrun.engine.log.LogWriter``.

    Not transactional: batches are visible once acknowledged, in order and without repeats as long
    as this writer lives, but nothing keeps an earlier writer of the same id from writing on.
    """

    def __init__(
        self,
        client: KafkaClient,
        writer_id: str,
        owner: tuple[int, int],
        lane: str,
        coordinator: Coordinator,
        transactional: bool,
    ) -> None:
        """Wrap an owner; use ``open_writer``."""
        self._id = writer_id
        self._owner = owner
        self._coordinator = coordinator
        self._transactional = transactional
        self._closed = False
        self._sender = Sender(
            client,
            writer_id=writer_id,
            owner=owner,
            lane=lane,
            coordinator=coordinator if transactional else None,
        )

    @property
    def owner(self) -> tuple[int, int]:
        """``(producer id, epoch)``."""
        return self._owner

    def append(self, topic: str, partition: int, batch: EncodedBatch) -> None:
        """Send ``batch`` soon, in order with the other batches of its partition. Never waits."""
        self._sender.append(TopicPartition(topic, partition), batch)

    def pending_bytes(self) -> int:
        """Return the size of what is appended and not acknowledged yet."""
        return self._sender.pending_bytes

    async def flush(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Wait until everything appended is acknowledged; see ``LogWriter.flush``."""
        await self._sender.flush(Deadline(timeout_ms))
        return self._sender.take_flushed()

    async def commit(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        """Flush, then make everything since the last commit visible at once.

        See ``LogWriter.commit``. With nothing appended since the last commit nothing is sent. What
        is appended while this waits belongs to the next transaction.

        Kafka answers when the decision is durable; readers and ``Log.offsets`` see the records some
        milliseconds later, when the markers are written. ``FencedError`` is also what a transaction
        gets that was open for longer than the transaction timeout: Kafka does not tell them apart.
        """
        deadline = Deadline(timeout_ms)
        self._sender.hold()
        try:
            await self._sender.flush(deadline)
        except BaseException:
            self._sender.release()  # cancelled before anything was decided: it is all one again
            raise
        if self._transactional and self._sender.in_transaction:
            try:
                await self._end_transaction(deadline)
            except LogError as error:
                self._sender.fail(error)
                raise
            except asyncio.CancelledError:
                self._sender.fail(
                    OutcomeUnknownError(
                        f"writer {self._id!r}: the commit was interrupted; it may have happened"
                    )
                )
                raise
        flushed = self._sender.take_flushed()
        committed = self._sender.take_committed()
        self._sender.release()
        return committed if self._transactional else flushed

    async def _end_transaction(self, deadline: Deadline) -> None:
        """Send EndTxn(commit) and find out what became of it.

        Only explicit answers are followed by a repeat: no delayed request of ours is under way
        then which could end a later transaction.
        """
        request = EndTxnRequest(self._id, *self._owner, True)
        backoff = Backoff(first_ms=5)
        ambiguous = False  # an answer that leaves open whether the decision was written
        reason = "no time is left"
        while not deadline.passed():
            try:
                answer = await self._coordinator.send(request, deadline)
            except NotAnsweredError as error:
                reason = str(error)
                if error.sent:
                    ambiguous = True
                    break
            except LogError as error:  # from connecting: credentials, versions
                reason = str(error)
                break
            else:
                code = answer.error_code
                if code == Code.NONE:
                    return
                reason = code_name(code)
                if code in STALE_COORDINATOR:
                    # The coordinator may have lost its place after writing the decision.
                    ambiguous = True
                    self._coordinator.moved()
                elif code not in COORDINATOR_PASSING and code != Code.CONCURRENT_TRANSACTIONS:
                    self._raise_refused(code, ambiguous=ambiguous)
            await backoff.pause(deadline)
        if ambiguous:
            raise OutcomeUnknownError(
                f"writer {self._id!r}: the commit was sent and {reason}; it may have happened. "
                "Open a new writer and read back what was committed"
            )
        raise WriteError(
            f"writer {self._id!r}: not committed within {deadline.timeout_ms} ms: {reason}"
        )

    def _raise_refused(self, code: int, *, ambiguous: bool) -> None:
        not_committed = code in FENCED or code in REFUSED or code == Code.INVALID_TXN_STATE
        if ambiguous or not not_committed:
            raise OutcomeUnknownError(
                f"writer {self._id!r}: the commit was answered {code_name(code)}; it may have "
                "happened. Open a new writer and read back what was committed"
            )
        if code in FENCED:
            raise self._sender.fenced(code)
        raise WriteError(f"writer {self._id!r}: the commit was refused: {code_name(code)}")

    async def abort(self, timeout_ms: int) -> None:
        """Drop everything since the last commit. Best effort: a new owner does it as well.

        The writer can go on after it, unless something had gone wrong before or goes wrong now.
        """
        deadline = Deadline(timeout_ms)
        self._sender.drop_queued()
        settled = await self._sender.settle(deadline)
        if not self._sender.in_transaction or not self._may_abort():
            return
        request = EndTxnRequest(self._id, *self._owner, False)
        backoff = Backoff(first_ms=5)
        reason = "no time is left"
        while not deadline.passed():
            try:
                answer = await self._coordinator.send(request, deadline)
            except NotAnsweredError as error:
                reason = str(error)
                break  # as with commit: never a repeat after silence
            if answer.error_code == Code.NONE:
                if settled:
                    self._sender.forget_transaction()
                    return
                reason = "a request was still under way"
                break
            reason = code_name(answer.error_code)
            if answer.error_code in STALE_COORDINATOR:
                self._coordinator.moved()
            elif answer.error_code not in {
                Code.COORDINATOR_LOAD_IN_PROGRESS,
                Code.CONCURRENT_TRANSACTIONS,
            }:
                break
            await backoff.pause(deadline)
        log.info("writer %r: abort not confirmed (%s); the next owner settles it", self._id, reason)
        self._sender.fail(WriteError(f"writer {self._id!r}: abort not confirmed: {reason}"))

    def _may_abort(self) -> bool:
        # After an unknown outcome another EndTxn could end something else; once fenced, the
        # transaction belongs to somebody else.
        return self._transactional and not isinstance(
            self._sender.failure, OutcomeUnknownError | FencedError
        )

    async def close(self) -> None:
        """Release it without committing: an open transaction is aborted if that is quick."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_MS / 1000):
                await self.abort(CLOSE_TIMEOUT_MS)
        await self._sender.close()
