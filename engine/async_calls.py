"""Runs the calls of async steps on the event loop, bounded and in order per key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chain import AsyncEntry, AsyncStage


class CallCancelledError(RuntimeError):
    """A call ended as cancelled although nobody cancelled it."""


class AsyncCalls:
    """The running calls of one task.

    The chain queues records on its batch thread; between two calls into the chain, ``pump``
    starts what may start. A record starts when fewer than ``in_flight_max`` run, and no earlier
    record of its key is unfinished: so a user's function sees the records of a key in order.

    Args:
        stages: The async steps of the task.
    """

    def __init__(self, stages: list[AsyncStage]) -> None:
        self._stages = stages
        self._running: dict[asyncio.Task[None], AsyncEntry] = {}
        self._in_flight: dict[str, int] = {stage.name: 0 for stage in stages}
        self._closing = False
        self.finished = asyncio.Event()
        """Set when results wait to be delivered."""

    def pump(self) -> None:
        """Start the calls that may start."""
        for stage in self._stages:
            self._pump_stage(stage)

    def _pump_stage(self, stage: AsyncStage) -> None:
        room = stage.logic.in_flight_max - self._in_flight[stage.name]
        if room <= 0:
            return
        busy_keys: set[Any] = set()
        for entry in stage.queue:
            if room == 0:
                return
            if entry.batch is None or entry.done:
                continue
            # A stream without keys has no order per key to keep: all its keys are None.
            if entry.started or (entry.key is not None and entry.key in busy_keys):
                busy_keys.add(entry.key)
                continue
            busy_keys.add(entry.key)
            self._start(stage, entry)
            room -= 1

    def _start(self, stage: AsyncStage, entry: AsyncEntry) -> None:
        entry.started = True
        self._in_flight[stage.name] += 1
        task = asyncio.get_running_loop().create_task(self._call(stage, entry))
        self._running[task] = entry
        task.add_done_callback(self._running.pop)

    async def _call(self, stage: AsyncStage, entry: AsyncEntry) -> None:
        assert entry.batch is not None
        try:
            (value,) = entry.batch.rows()
            entry.result = await stage.logic.call(value)
        except Exception as error:
            entry.result = error
        except asyncio.CancelledError as error:
            if self._closing:
                raise
            # By the user's function, not by us; left alone it would never have a result.
            entry.result = CallCancelledError("the function raised asyncio.CancelledError")
            entry.result.__cause__ = error
        finally:
            self._in_flight[stage.name] -= 1
        entry.done = True
        self.finished.set()

    @property
    def saturated(self) -> bool:
        """Whether so much is queued that no more should be read."""
        return any(len(s.queue) >= 2 * s.logic.in_flight_max for s in self._stages)

    async def close(self) -> None:
        """Cancel what runs."""
        self._closing = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
