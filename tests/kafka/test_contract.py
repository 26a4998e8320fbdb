"""The contract of the log port, on a real broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from riverrun.connectors.kafka import KafkaLog
from tests.contracts.log import LogContract, OpenTestLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from riverrun.engine.log import EncodedBatch, Log, LogWriter, TopicPartition

MARKERS_TIMEOUT_S = 0.3


class PatientWriter:
    """A writer whose commit returns when readers can see it.

    Kafka answers a commit as soon as the decision is durable; the markers that let readers pass
    follow some milliseconds later. The contract looks at once.
    """

    def __init__(self, writer: LogWriter, log: Log) -> None:
        self._writer = writer
        self._log = log

    @property
    def owner(self) -> tuple[int, int]:
        return self._writer.owner

    def append(self, topic: str, partition: int, batch: EncodedBatch) -> None:
        self._writer.append(topic, partition, batch)

    def pending_bytes(self) -> int:
        return self._writer.pending_bytes()

    async def flush(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        return await self._writer.flush(timeout_ms)

    async def commit(self, timeout_ms: int) -> Mapping[TopicPartition, int]:
        ends = await self._writer.commit(timeout_ms)
        try:
            # Longer only where another writer's open transaction holds readers back.
            async with asyncio.timeout(MARKERS_TIMEOUT_S):
                while True:
                    seen = await self._log.offsets(list(ends))
                    if all(seen[partition].end > end for partition, end in ends.items()):
                        return ends
                    await asyncio.sleep(0.002)
        except TimeoutError:
            return ends

    async def abort(self, timeout_ms: int) -> None:
        await self._writer.abort(timeout_ms)

    async def close(self) -> None:
        await self._writer.close()


class PatientLog(KafkaLog):
    """Kafka with ``PatientWriter``."""

    async def open_writer(
        self, writer_id: str, *, transactional: bool, timeout_ms: int
    ) -> LogWriter:
        writer = await super().open_writer(
            writer_id, transactional=transactional, timeout_ms=timeout_ms
        )
        return PatientWriter(writer, self) if transactional else writer


@pytest.mark.kafka
class TestKafkaLog(LogContract):
    """Each log is a process of its own, as far as Kafka can tell."""

    @pytest.fixture
    async def open_log(self, kafka: str) -> AsyncIterator[OpenTestLog]:
        opened: list[Log] = []

        async def open_one() -> Log:
            log = PatientLog(kafka)
            await log.start(10_000)
            opened.append(log)
            return log

        yield open_one
        for log in opened:
            await log.close()
