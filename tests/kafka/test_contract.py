"""The contract of the log port, on a real broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun.connectors.kafka import KafkaLog
from tests.contracts.log import LogContract, OpenTestLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from riverrun.engine.log import Log


@pytest.mark.kafka
class TestKafkaLog(LogContract):
    """Each log is a process of its own, as far as Kafka can tell."""

    @pytest.fixture
    async def open_log(self, kafka: str) -> AsyncIterator[OpenTestLog]:
        opened: list[Log] = []

        async def open_one() -> Log:
            log = KafkaLog(kafka)
            await log.start(10_000)
            opened.append(log)
            return log

        yield open_one
        for log in opened:
            await log.close()
