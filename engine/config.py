"""Settings of a worker and its tasks, typed and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .cache_budget import DEFAULT_BYTES
from .errors import ConfigError

Guarantee = Literal["exactly_once", "at_least_once"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """How tasks commit and snapshot. Times are milliseconds.

    Attributes:
        guarantee: ``exactly_once`` writes each epoch in one transaction; ``at_least_once`` makes
            output visible at once, and may repeat what came after the last commit.
        commit_interval_ms: Shortest time between two commits of a task; it stretches by itself
            with the number of tasks in a worker, and to 500 ms while a task catches up.
        commit_timeout_ms: Deadline of a commit; past it the task starts anew.
        barrier_timeout_ms: Deadline for async steps to finish at a barrier.
        snapshot_interval_ms: Time between two snapshots of a task.
        snapshots_retained: How many snapshots are kept, at least 1.
        start: Where to begin in a source without a commit record.
        allow_fresh_start: Start from nothing where committed work is lost; not for tasks that
            read or write repartition topics.
        allow_lost_records: Go on where the log no longer has what comes after the commit.
        allow_state_drop: Start although the topology no longer has tables that hold state.
        idle_after_ms: For sources that set none: see ``WatermarkPolicy.idle_after_ms``.
    """

    guarantee: Guarantee = "exactly_once"
    commit_interval_ms: int = 100
    commit_timeout_ms: int = 30_000
    barrier_timeout_ms: int = 25_000
    snapshot_interval_ms: int = 60_000
    snapshots_retained: int = 2
    start: Literal["earliest", "latest"] = "earliest"
    allow_fresh_start: bool = False
    allow_lost_records: bool = False
    allow_state_drop: bool = False
    idle_after_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: Naming the setting.
        """
        if self.commit_interval_ms < 1:
            raise ConfigError(
                f"commit_interval_ms must be at least 1, not {self.commit_interval_ms}"
            )
        if self.snapshots_retained < 1:
            raise ConfigError(
                f"snapshots_retained must be at least 1, not {self.snapshots_retained}"
            )
        if self.guarantee not in ("exactly_once", "at_least_once"):
            raise ConfigError(
                f"guarantee must be exactly_once or at_least_once, not {self.guarantee!r}"
            )


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker takes part in its group. Times are milliseconds.

    Attributes:
        task: Settings of its tasks.
        session_timeout_ms: How long the group keeps a silent worker.
        restart_backoff_ms: First pause before a task is started again; doubles up to 30 times.
        stall_after_ms: A partition with lag that does not move for this long is reported, and so
            is a task that cannot be brought to run.
        offsets_interval_ms: How often the group is told how far we are.
        topics_interval_ms: How often the input topics are looked at, for partitions that were
            added.
    """

    task: TaskSettings = TaskSettings()
    session_timeout_ms: int = 10_000
    restart_backoff_ms: int = 200
    stall_after_ms: int = 60_000
    offsets_interval_ms: int = 1_000
    topics_interval_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class StateMemory:
    """What a worker may take to have state in memory that its disk has too: a third for each use.

    Rows of window tables, blocks that RocksDB has read, and what RocksDB has not written to disk
    yet. Each is a bound for all tasks of the worker together. What an epoch changes comes on top.

    Attributes:
        total_bytes: All three together; 24 MiB at least.
    """

    total_bytes: int = 3 * DEFAULT_BYTES

    def __post_init__(self) -> None:
        """Refuse what RocksDB cannot work with.

        Raises:
            ConfigError: Naming the setting.
        """
        if self.total_bytes < 24 * _MIB:
            raise ConfigError(
                f"the memory for state must be at least 24 MiB, not {self.total_bytes:,} bytes"
            )

    @property
    def each_bytes(self) -> int:
        """What each of the three uses may take."""
        return self.total_bytes // 3
