"""A task of a worker with what the worker knows of it: attempts, errors, and when it is to end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import TaskId
    from .task import Task

TASK_STATES = ("starting", "running", "waiting", "stopping")


@dataclass(slots=True)
class RunningTask:
    """A task and the asyncio task that runs it.

    Attributes:
        id: Which task.
        task: The present attempt, None between two.
        state: ``starting``, ``running``, ``waiting`` or ``stopping``.
        stopping: Whether it is to end.
        error: The last error, as text.
        restarts: How often it was started again.
        failing_since_ms: First error of those that came in a row, None after a steady run.
        running_since_ms: When it last began to run.
    """

    id: TaskId
    task: Task | None = None
    state: str = "starting"
    stopping: bool = False
    error: str | None = None
    restarts: int = 0
    failing_since_ms: int | None = None
    running_since_ms: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    runner: asyncio.Task[None] | None = None
    starting: asyncio.Task[None] | None = None
    pause_ms: int = 0

    def stop(self) -> None:
        """Ask it to commit and end."""
        self.stopping = True
        self.wake.set()
        if self.starting is not None:
            # Nothing is processed yet, and what is to be restored may be large.
            self.starting.cancel()
        if self.task is not None:
            self.task.wake()
