"""The input of a run: orders at a steady rate, none of them late, and an end to every window."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaProducer

from .topologies import OUT_OF_ORDERNESS_MS, PARTITIONS, WINDOW_MS

if TYPE_CHECKING:
    from types import TracebackType

TICK_S = 0.05
USERS = 30
SEND_TIMEOUT_MS = 60_000
"""Longer than a broker is away in a test."""
REJECTED_SHARE = 0.05
CLOSE_DEADLINE_S = 10


class Load:
    """Writes orders until ``stop``. Event time goes with the wall clock of this process.

    An order is up to ``OUT_OF_ORDERNESS_MS`` earlier than the latest of its partition, never more:
    so none is late, and what a run must give does not depend on how it went.

    Args:
        broker: Where.
        topic: Into which topic.
        rate: Orders per second.
        seed: Of chance.
    """

    def __init__(self, broker: str, topic: str, *, rate: int, seed: int) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=broker,
            acks="all",
            enable_idempotence=True,
            linger_ms=10,
            request_timeout_ms=SEND_TIMEOUT_MS,
        )
        self._topic = topic
        self._rate = rate
        self._chance = random.Random(seed)
        self._next_id = 0
        self._began_ms = time.time_ns() // 1_000_000
        self._began_s = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Load:
        await self._producer.start()
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        # A broker that a failed test has left dead would be waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._producer.stop()

    @property
    def written(self) -> int:
        """How many orders were handed to the producer."""
        return self._next_id

    async def stop(self) -> None:
        """End the load, and write in each partition an order that closes all windows before it."""
        assert self._task is not None
        self._task.cancel()
        [ended] = await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        if ended is not None and not isinstance(ended, asyncio.CancelledError):
            raise ended
        closing_ms = self._now_ms() + WINDOW_MS + OUT_OF_ORDERNESS_MS + 1
        for partition in range(PARTITIONS):
            await self._send(partition, f"last-{partition}", 1, closing_ms)
        await self._producer.flush()

    def _now_ms(self) -> int:
        return self._began_ms + int((time.monotonic() - self._began_s) * 1000)

    async def _write(self) -> None:
        due = 0.0
        while True:
            due += self._rate * TICK_S
            while self._next_id < due:
                user = f"user-{self._chance.randrange(USERS)}"
                rejected = self._chance.random() < REJECTED_SHARE
                amount = 0 if rejected else self._chance.randrange(1, 1_000)
                ts = self._now_ms() - self._chance.randrange(OUT_OF_ORDERNESS_MS + 1)
                await self._send(self._chance.randrange(PARTITIONS), user, amount, ts)
            await asyncio.sleep(TICK_S)

    async def _send(self, partition: int, user: str, amount: int, ts: int) -> None:
        order = {"id": self._next_id, "user": user, "amount": amount, "ts": ts}
        self._next_id += 1
        # What became of it is of no interest: what must come out is computed from the topic.
        await self._producer.send(
            self._topic, orjson.dumps(order), partition=partition, timestamp_ms=ts
        )
