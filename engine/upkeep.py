"""What a task's store needs beside processing: to be written to disk, and copied for a snapshot.

It happens on a thread of its own, while records are processed and epochs are committed: the store
is made for that, see ``OverlayStore``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .thread_calls import ThreadCalls

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from riverrun.state import OverlayStore


class Upkeep:
    """Drains the store of one task when that is worth it.

    Args:
        run: Runs a function on the upkeep thread and awaits its result.

    Attributes:
        calls: For what else is to happen on that thread.
    """

    def __init__(self, run: Callable[..., Awaitable[Any]]) -> None:
        self.calls = ThreadCalls(run)
        self._drain: asyncio.Future[Any] | None = None

    def after_apply(self, store: OverlayStore) -> None:
        """Begin a drain if one is due and none is under way.

        Raises:
            StateError: The drain before failed. What it was to write is in the changelog.
        """
        if self._drain is not None:
            if not self._drain.done():
                return
            drain, self._drain = self._drain, None
            drain.result()
        if store.should_drain():
            self._drain = self.calls.begin(store.drain)
