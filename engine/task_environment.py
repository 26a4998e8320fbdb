"""What the tasks of a worker share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .failpoints import no_failpoints

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .clock import Clock
    from .config import TaskSettings
    from .failpoints import Failpoint
    from .log import Log
    from .metrics import Metrics
    from .plan import ResolvedPlan
    from .plane import Plane

PENDING_BYTES_MAX = 32 * 1024 * 1024
"""Output that is appended and not acknowledged; past it a task waits for the log."""

OPEN_TIMEOUT_MS = 60_000
"""Deadline for opening a writer: an earlier owner's transaction may have to time out first."""


@dataclass(frozen=True, slots=True)
class TaskEnvironment:
    """What a task works with; one for all tasks of a worker, except ``stores``.

    Attributes:
        resolved: The plan with its sizes.
        log: Where topics are.
        plane: Implementations of the hot steps.
        clock: Time.
        metrics: Metrics of the worker.
        settings: How to commit and snapshot.
        run_blocking: Runs a function on the batch thread and awaits its result.
        run_upkeep: The same on another thread, for what goes on beside processing.
        max_batch_bytes: Largest batch by topic.
        failpoint: Called at named places; for tests.
    """

    resolved: ResolvedPlan
    log: Log
    plane: Plane
    clock: Clock
    metrics: Metrics
    settings: TaskSettings
    run_blocking: Callable[..., Awaitable[Any]]
    run_upkeep: Callable[..., Awaitable[Any]]
    max_batch_bytes: Mapping[str, int]
    failpoint: Failpoint = no_failpoints
