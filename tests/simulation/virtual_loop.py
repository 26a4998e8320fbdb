"""An event loop whose time is virtual: it jumps from one timer to the next, and repeats exactly."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
"""The simulated process that the running code belongs to; asyncio tasks inherit it."""


class Process:
    """All asyncio tasks of one simulated process."""

    def __init__(self) -> None:
        # In order of their start: addresses, which would order a set, never repeat.
        self.tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work``, and whatever it starts, as a part of this process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        return context.run(asyncio.get_running_loop().create_task, work)

    def kill(self) -> None:
        """Cancel everything. Their clean-up runs, so first take away what it could change."""
        for task in list(self.tasks):
            task.cancel()


class StuckError(RuntimeError):
    """Nothing is ready and no timer is set: everybody waits for everybody."""


class _InstantSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise StuckError("nothing is ready, and nothing ever will be")
        self.now_s += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs in virtual time, and threads' work inline: no thread is ever started."""

    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)
        self.errors: list[dict[str, Any]] = []
        self.set_task_factory(_make_task)
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._instant.now_s

    def run_in_executor(
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run ``func`` a moment later, on the loop itself; like a thread it cannot be stopped."""
        del executor
        future = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_soon(run)
        return future


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    process = PROCESS.get()
    if process is not None:
        process.tasks[task] = None
        task.add_done_callback(process.tasks.pop)
    return task


class LoopClock:
    """The engine's clock, on the virtual time of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start_ms: int) -> None:
        self._loop = loop
        self._start_ms = start_ms

    def now_ms(self) -> int:
        """Return the wall-clock time."""
        return self._start_ms + round(self._loop.time() * 1000)

    def monotonic_ms(self) -> int:
        """Return the time since the loop began."""
        return round(self._loop.time() * 1000)
