"""Kafka as the engine's log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .admin import QUESTION_TIMEOUT_MS, Admin
from .client import KafkaClient
from .fetcher import Fetcher
from .group import KafkaGroupMember
from .reader import KafkaReader
from .writer import TRANSACTION_TIMEOUT_MS, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from riverrun.engine.log import (
        Assignor,
        GroupMember,
        LogReader,
        LogWriter,
        OffsetRange,
        TopicInfo,
        TopicPartition,
        TopicSpec,
    )

    from .security import Security


class KafkaLog:
    """A Kafka cluster behind the log port; see ``riverrun.engine.log.Log``.

    One per process and event loop: readers share fetch requests, everybody shares connections.

    Example:
        >>> log = KafkaLog("broker-1:9092,broker-2:9092")
    """

    def __init__(
        self,
        bootstrap: str,
        security: Security | None = None,
        *,
        client_id: str = "riverrun",
        transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
        question_timeout_ms: int = QUESTION_TIMEOUT_MS,
    ) -> None:
        """Prepare, without connecting.

        Args:
            bootstrap: ``host:port``, or several with commas.
            security: Encryption and credentials.
            client_id: Name of this process in the brokers' logs and quotas.
            transaction_timeout_ms: How long an abandoned transaction may hold readers back.
            question_timeout_ms: Deadline of the calls that take none.
        """
        self._client = KafkaClient(bootstrap, security, client_id=client_id)
        self._admin = Admin(self._client, timeout_ms=question_timeout_ms)
        self._transaction_timeout_ms = transaction_timeout_ms
        self._fetcher: Fetcher | None = None

    async def start(self, timeout_ms: int) -> None:
        """Connect.

        Raises:
            LogUnavailableError: Nobody answers at the address within the time.
            LogAuthorizationError: The credentials were refused.
        """
        _silence_secrets()
        await self._client.start(timeout_ms)

    async def close(self) -> None:
        """Release everything; members of groups do not leave by it. Never raises."""
        await self._client.close()

    async def describe_topic(self, name: str) -> TopicInfo | None:
        """Return the topic as it is now, None if there is none."""
        return await self._admin.describe_topic(name)

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that are missing; see ``Log.create_topics``."""
        await self._admin.create_topics(specs)

    async def offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetRange]:
        """Return the committed range of each partition; see ``Log.offsets``."""
        return await self._admin.offsets(partitions)

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offset of each partition."""
        await self._admin.delete_records(before)

    async def open_reader(self, positions: Mapping[TopicPartition, int]) -> LogReader:
        """Return a reader at the given positions. Never waits: fetching begins behind it."""
        if self._fetcher is None:
            self._fetcher = Fetcher(self._client)
        return KafkaReader(self._fetcher, positions)

    async def open_writer(
        self, writer_id: str, *, transactional: bool, timeout_ms: int
    ) -> LogWriter:
        """Return a writer; a transactional one has fenced every earlier one with the same id.

        One that is not transactional fences nobody: Kafka knows it by no name.

        Raises:
            LogUnavailableError: It could not be opened within the time.
            LogAuthorizationError: Access was refused.
        """
        return await open_writer(
            self._client,
            writer_id,
            transactional=transactional,
            timeout_ms=timeout_ms,
            transaction_timeout_ms=self._transaction_timeout_ms,
        )

    async def join_group(
        self,
        group: str,
        topics: Sequence[str],
        info: Callable[[], bytes],
        assignor: Assignor,
        *,
        instance_id: str | None,
        session_timeout_ms: int,
    ) -> GroupMember:
        """Become a member of ``group``; see ``Log.join_group``."""
        return KafkaGroupMember(
            self._client,
            group,
            topics,
            info,
            assignor,
            instance_id=instance_id,
            session_timeout_ms=session_timeout_ms,
        )

    async def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the offsets told by ``commit_offsets``, for those partitions that have one."""
        return await self._admin.group_offsets(group, partitions)


def _silence_secrets() -> None:
    """Keep aiokafka from logging at DEBUG: it writes credentials and records there."""
    for name in ("aiokafka", "aiokafka.conn"):
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)
