"""Fixtures of the tests of the Kafka connector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kafka.helpers import started
from tests.kafka_proxy import KafkaProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from riverrun.connectors.kafka import KafkaLog


@pytest.fixture
async def proxy(kafka: str) -> AsyncIterator[KafkaProxy]:
    """A proxy before the broker, honest until a test says otherwise."""
    async with KafkaProxy(kafka) as proxy:
        yield proxy


@pytest.fixture
async def log(proxy: KafkaProxy) -> AsyncIterator[KafkaLog]:
    """A log behind the proxy."""
    async with started(proxy.address) as log:
        yield log
