"""Waiting for a change without a background task of one's own."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Wakes everybody who waits; remembers nothing.

    Unlike ``asyncio.Condition`` it has no lock, and it is not tied to one event loop: a test
    driver may run each call in a loop of its own. The caller checks for work before it waits; no
    change is missed as long as there is no ``await`` between the check and ``wait``.
    """

    def __init__(self) -> None:
        # A dict for its order: who waited first is woken first, so that a simulation repeats.
        self._waiters: dict[asyncio.Future[None], None] = {}

    def has_waiters(self) -> bool:
        """Return whether anybody waits."""
        return bool(self._waiters)

    def notify(self) -> None:
        """Wake everybody who waits now."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float) -> bool:
        """Return True as soon as ``notify`` is called, False after ``timeout_s``."""
        if timeout_s <= 0:
            return False
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiters.pop(waiter, None)
        return True
