"""Prometheus metrics of one worker, in a registry of its own."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_COMMIT_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_LONG_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Counts of one step in one task."""

    records: Counter
    skipped: Counter
    dead_letters: Counter
    late: Counter


@dataclass(frozen=True, slots=True)
class TaskMetrics:
    """Readings of one task."""

    busy_seconds: Counter
    commits: Counter
    commit_seconds: Histogram
    delta_bytes: Counter
    epoch: Gauge
    watermark_ms: Gauge
    restore_seconds: Histogram
    snapshot_seconds: Histogram
    snapshot_bytes: Counter
    snapshot_created_ms: Gauge
    snapshot_failures: Counter


class Metrics:
    """All metrics of a worker. No process-wide registry: two workers in one test do not mix.

    Example:
        >>> metrics = Metrics(job="revenue", worker="w1")
        >>> metrics.step("filter-1", partition=0).records.inc(3)
        >>> b'riverrun_step_records_total' in metrics.render()
        True
    """

    def __init__(self, job: str, worker: str) -> None:
        self.registry = CollectorRegistry()
        self._fixed = {"job": job, "worker": worker}
        self._step = {
            name: self._counter(f"step_{name}", text, "step", "partition")
            for name, text in (
                ("records", "Records that came into a step"),
                ("skipped", "Records left out by on_error=skip"),
                ("dead_letters", "Records written to the dead-letter topic"),
                ("late", "Records later than the allowed lateness"),
            )
        }
        task = ("task",)
        self._busy = self._counter("task_busy_seconds", "Time spent on batches", *task)
        self._commits = self._counter("task_commits", "Committed epochs", *task)
        self._commit_seconds = self._histogram(
            "task_commit_seconds", "Barrier to commit", _COMMIT_BUCKETS, *task
        )
        self._delta = self._counter("task_delta_bytes", "Changelog bytes written", *task)
        self._epoch = self._gauge("task_epoch", "Last committed epoch", *task)
        self._watermark = self._gauge("task_watermark_ms", "Smallest input watermark", *task)
        self._restore = self._histogram(
            "task_restore_seconds", "Time from assignment to first record", _LONG_BUCKETS, *task
        )
        self._snapshot_seconds = self._histogram(
            "snapshot_seconds", "Barrier to manifest", _LONG_BUCKETS, *task
        )
        self._snapshot_bytes = self._counter("snapshot_bytes", "Snapshot bytes uploaded", *task)
        self._snapshot_created = self._gauge(
            "snapshot_created_ms", "When the newest snapshot was made", *task
        )
        self._snapshot_failures = self._counter("snapshot_failures", "Failed snapshots", *task)
        self.lag = self._gauge(
            "lag_records", "Records between position and end", "topic", "partition"
        )
        self.position = self._gauge("position", "Next offset to read", "topic", "partition")
        self.partition_watermark_ms = self._gauge(
            "partition_watermark_ms", "Watermark of an input partition", "topic", "partition"
        )
        self.tasks = self._gauge("tasks", "Tasks by state", "state")
        self.rebalances = self._counter("rebalances", "Assignments received")
        self.fenced = self._counter("fenced", "Tasks fenced by another owner")
        self.restarts = self._counter("task_restarts", "Tasks restarted after an error", "error")
        self.stalled = self._gauge("stalled_partitions", "Partitions with lag that do not move")
        self.loop_delay = self._gauge("event_loop_delay_seconds", "Latest delay of the event loop")
        self.plane = self._gauge("plane_info", "Which data plane runs", "plane")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"riverrun_{name}", text, [*self._fixed, *labels], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"riverrun_{name}", text, [*self._fixed, *labels], registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"riverrun_{name}",
            text,
            [*self._fixed, *labels],
            registry=self.registry,
            buckets=buckets,
        )

    def labels(self, **labels: str) -> dict[str, str]:
        """Return ``labels`` together with those that all metrics of the worker carry."""
        return {**self._fixed, **labels}

    def step(self, step: str, partition: int) -> StepMetrics:
        """Return the counts of one step in one task."""
        labels = self.labels(step=step, partition=str(partition))
        return StepMetrics(**{name: each.labels(**labels) for name, each in self._step.items()})

    def task(self, task: str) -> TaskMetrics:
        """Return the readings of one task."""
        labels = self.labels(task=task)
        return TaskMetrics(
            busy_seconds=self._busy.labels(**labels),
            commits=self._commits.labels(**labels),
            commit_seconds=self._commit_seconds.labels(**labels),
            delta_bytes=self._delta.labels(**labels),
            epoch=self._epoch.labels(**labels),
            watermark_ms=self._watermark.labels(**labels),
            restore_seconds=self._restore.labels(**labels),
            snapshot_seconds=self._snapshot_seconds.labels(**labels),
            snapshot_bytes=self._snapshot_bytes.labels(**labels),
            snapshot_created_ms=self._snapshot_created.labels(**labels),
            snapshot_failures=self._snapshot_failures.labels(**labels),
        )

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)
