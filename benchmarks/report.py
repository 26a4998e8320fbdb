"""Results as a table beside the goals, and as Markdown."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .large_state import LargeState
    from .latency import Latency
    from .recovery import Checkpoint, Recovery
    from .scaling import Scaling
    from .start import Start
    from .throughput import Throughput

AT_LEAST, AT_MOST = "at least", "at most"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its goal.

    Attributes:
        what: What was measured.
        value: The figure.
        unit: Of value and goal.
        goal: What it should be; None for a figure that only informs.
        direction: ``AT_LEAST`` or ``AT_MOST``.
    """

    what: str
    value: float
    unit: str
    goal: float | None = None
    direction: str = AT_MOST

    @property
    def ratio(self) -> float | None:
        """How good it is: from 1 on the goal is met."""
        if self.goal is None or math.isnan(self.value):
            return None
        if self.direction == AT_LEAST:
            return self.value / self.goal
        return self.goal / self.value if self.value else float("inf")

    def cells(self) -> tuple[str, str, str, str]:
        """Return it as text."""
        ratio = self.ratio
        if self.goal is None or ratio is None:
            return self.what, _shown(self.value, self.unit), "", ""
        goal = f"{self.direction} {_shown(self.goal, self.unit)}"
        verdict = "met" if ratio >= 1 else "missed"
        by = f", {ratio:.2f}x" if ratio < 1_000 else ""
        return self.what, _shown(self.value, self.unit), goal, f"{verdict}{by}"


def _shown(value: float, unit: str) -> str:
    if math.isnan(value):
        return "too short to tell"
    if unit == "records/s":
        if value >= 1_000_000:
            return f"{value / 1e6:,.2f} M records/s"
        return f"{value / 1000:,.0f} k records/s"
    digits = 2 if unit in ("s", "cores", "x") and value < 100 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} {unit}"


GOALS_RECORDS_S = {"filter": 2.0e6, "window": 3.5e6, "window-1m": 1.0e6, "python": 0.6e6}
GOAL_RATE = 10_000
GOALS_P99_MS = {"at_least_once": 10.0, "exactly_once": 150.0}
GOALS_RECOVERY_S = {"local disk kept": 3.0, "bare, snapshot in S3": 10.0}
GOAL_STATE_MB = 900.0
"""Goals of recovery and of checkpoints are of 1 GB; less state says nothing about them."""
GOAL_SCALING = 1.8
GOAL_PAUSE_MS = 20.0
GOAL_READY_S = 1.0
GOAL_IDLE_MB = 120.0


@dataclass(slots=True)
class Report:
    """Everything that one run has measured."""

    machine: dict[str, str]
    options: dict[str, Any]
    throughputs: list[Throughput] = field(default_factory=list["Throughput"])
    latencies: list[Latency] = field(default_factory=list["Latency"])
    recoveries: list[Recovery] = field(default_factory=list["Recovery"])
    checkpoint: Checkpoint | None = None
    scaling: list[Scaling] = field(default_factory=list["Scaling"])
    start: Start | None = None
    large_state: LargeState | None = None
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def rows(self) -> list[Row]:
        """Return the figures in the order of the goals."""
        return [
            *self._throughput_rows(),
            *self._latency_rows(),
            *self._recovery_rows(),
            *self._checkpoint_rows(),
            *self._scaling_rows(),
            *self._start_rows(),
            *self._large_state_rows(),
        ]

    def planes(self) -> str:
        """Return the data planes that ran, usually one."""
        measured = [
            *self.throughputs,
            *self.latencies,
            *self.recoveries,
            *self.scaling,
            self.start,
            self.large_state,
        ]
        return ", ".join(sorted({each.plane for each in measured if each and each.plane}))

    def _throughput_rows(self) -> Iterator[Row]:
        for each in self.throughputs:
            goal = GOALS_RECORDS_S.get(each.job)
            name = f"{each.job}, exactly once"
            yield Row(f"{name}: per core of CPU", each.per_cpu_s, "records/s", goal, AT_LEAST)
            yield Row(f"{name}: wall", each.per_wall_s, "records/s")
            yield Row(f"{name}: CPU of start-up", each.startup_cpu_s, "s")
            yield Row(f"{name}: peak memory", each.peak_mb, "MB")

    def _latency_rows(self) -> Iterator[Row]:
        for each in self.latencies:
            name = f"{each.guarantee.replace('_', ' ')}, {each.rate:,} records/s"
            goal = GOALS_P99_MS[each.guarantee] if each.rate == GOAL_RATE else None
            yield Row(f"{name}: p50", each.p50_ms, "ms")
            yield Row(f"{name}: p95", each.p95_ms, "ms")
            yield Row(f"{name}: p99", each.p99_ms, "ms", goal)
            yield Row(f"{name}: max", each.max_ms, "ms")
            yield Row(f"{name}: CPU", each.cpu_cores, "cores")

    def _recovery_rows(self) -> Iterator[Row]:
        for each in self.recoveries:
            large = each.state_mb >= GOAL_STATE_MB
            goal = GOALS_RECOVERY_S[each.source] if large else None
            name = f"kill -9, {each.state_mb:,.0f} MB, {each.source}"
            yield Row(f"{name}: to first new result", each.first_result_s, "s", goal)

    def _checkpoint_rows(self) -> Iterator[Row]:
        each = self.checkpoint
        if each is None:
            return
        goal = GOAL_PAUSE_MS if each.state_mb >= GOAL_STATE_MB else None
        name = f"snapshots of {each.state_mb:,.0f} MB, {each.rate:,} records/s"
        yield Row(f"{name}: p99 while one is made", each.p99_during_ms, "ms")
        yield Row(f"{name}: p99 between them", each.p99_between_ms, "ms")
        yield Row(f"{name}: pause, p99", each.pause_p99_ms, "ms", goal)
        yield Row(f"{name}: longest pause of one, middle of {each.snapshots}", each.pause_ms, "ms")
        yield Row(f"{name}: longest pause of all", each.pause_max_ms, "ms")
        yield Row(f"{name}: longest snapshot", each.snapshot_s, "s")

    def _scaling_rows(self) -> Iterator[Row]:
        for limit, alike in self.scaling_by_limit().items():
            name = "window, 4 partitions" + ("" if limit is None else f", {limit:g} cores each")
            for each in alike:
                word = "process" if each.processes == 1 else "processes"
                here = f"{name}, {each.processes} {word}"
                yield Row(f"{here}: wall", each.per_wall_s, "records/s")
                yield Row(f"{here}: cores that the workers had", each.cores, "cores")
                if limit is None:
                    sum_s = each.sum_of_cores_s
                    yield Row(f"{here}: sum of rates per core of CPU", sum_s, "records/s")
            for more in alike[1:]:
                here = f"{name}, {more.processes} processes against {alike[0].processes}"
                wall = more.per_wall_s / alike[0].per_wall_s
                # Without a limit one process and the broker fill a small machine already.
                goal = GOAL_SCALING if limit is not None and more.processes == 2 else None
                yield Row(f"{here}: wall", wall, "x", goal, AT_LEAST)
                if limit is None:
                    cpu = more.sum_of_cores_s / alike[0].sum_of_cores_s
                    yield Row(f"{here}: sum of rates per core of CPU", cpu, "x")

    def scaling_by_limit(self) -> dict[float | None, list[Scaling]]:
        """Return what was measured of scaling by the limit of each worker, fewest workers first."""
        found: dict[float | None, list[Scaling]] = {}
        for each in self.scaling:
            found.setdefault(each.cores_each, []).append(each)
        return found

    def _start_rows(self) -> Iterator[Row]:
        if self.start is not None:
            yield Row("start to ready", self.start.ready_s, "s", GOAL_READY_S)
            yield Row("start to first result", self.start.first_result_s, "s")
            yield Row("idle worker: memory", self.start.idle_mb, "MB", GOAL_IDLE_MB)

    def _large_state_rows(self) -> Iterator[Row]:
        each = self.large_state
        if each is None:
            return
        name = f"large-state, {each.keys / 1e6:,.0f} M keys, {each.state_memory}"
        yield Row(f"{name}: per core of CPU", each.per_cpu_s, "records/s")
        yield Row(f"{name}: wall", each.per_wall_s, "records/s")
        yield Row(f"{name}: peak memory", each.peak_mb, "MB")
        yield Row(f"{name}: state on disk", each.state_mb, "MB")

    def missed(self) -> list[Row]:
        """Return the figures that miss their goal."""
        return [row for row in self.rows() if row.ratio is not None and row.ratio < 1]

    def facts(self) -> dict[str, str]:
        """Return what the figures depend on."""
        return {**self.machine, "plane": self.planes() or "not told"}

    def table(self) -> str:
        """Return the figures as text for a terminal."""
        cells = [row.cells() for row in self.rows()]
        widths = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
        lines = [
            f"{what:<{widths[0]}}  {value:>{widths[1]}}  {goal:<{widths[2]}}  {verdict}".rstrip()
            for what, value, goal, verdict in cells
        ]
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the figures as a Markdown section, for ``docs/benchmarks.md``."""
        lines = [f"- {name}: {value}" for name, value in self.facts().items()]
        lines += ["", "| measured | figure | goal | |", "|---|---:|---|---|"]
        lines += [f"| {' | '.join(row.cells())} |" for row in self.rows()]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for ``--json``."""
        return asdict(self)
