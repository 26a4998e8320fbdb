"""Calls on a thread that whoever made them can wait for, also when they were given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SETTLE_TIMEOUT_S = 60
"""Longest that a call which nobody waits for any more is waited for."""


class ThreadCalls:
    """Runs functions on a thread, and knows which of them are still under way.

    Cancelling whoever awaits a call does not end the call: the thread may be inside the store, and
    has to be out before that is closed.

    Args:
        run: Runs a function on a thread and awaits its result.
    """

    def __init__(self, run: Callable[..., Awaitable[Any]]) -> None:
        self._run = run
        self._running: set[asyncio.Future[Any]] = set()

    async def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function, and return what it does or raise its error."""
        return await asyncio.shield(self.begin(function, *args))

    def begin(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run a function, and return its result to come."""
        call = asyncio.ensure_future(self._run(function, *args))
        self._running.add(call)
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._running.discard(call)
        # Seen here, so that asyncio does not complain of an error that nobody waits for any more.
        _ = call.cancelled() or call.exception()

    async def settle(self) -> None:
        """Wait until no call is under way, for a bounded time. Never raises."""
        if self._running:
            await asyncio.wait(self._running, timeout=SETTLE_TIMEOUT_S)
