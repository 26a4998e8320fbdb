"""Results as a table beside the goals, and as Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .latency import Latency
    from .restart import Restart, Start
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
        """How good it is: above 1 the goal is met."""
        if self.goal is None:
            return None
        return self.value / self.goal if self.direction == AT_LEAST else self.goal / self.value

    def cells(self) -> tuple[str, str, str, str]:
        """Return it as text."""
        ratio = self.ratio
        if self.goal is None or ratio is None:
            return self.what, _shown(self.value, self.unit), "", ""
        goal = f"{self.direction} {_shown(self.goal, self.unit)}"
        verdict = "met" if ratio >= 1 else "missed"
        return self.what, _shown(self.value, self.unit), goal, f"{verdict}, {ratio:.2f}x"


def _shown(value: float, unit: str) -> str:
    if unit == "records/s":
        return f"{value / 1000:,.0f} k records/s"
    digits = 2 if unit in ("s", "cores") and value < 100 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} {unit}"


GOALS_RECORDS_S = {"window": 300_000.0}
GOALS_P99_MS = {"at_least_once": 25.0, "exactly_once": 200.0}
GOAL_START_S = 2.0
GOAL_RESTART_S = 5.0


@dataclass(slots=True)
class Report:
    """Everything that one run has measured."""

    machine: dict[str, str]
    options: dict[str, Any]
    throughputs: list[Throughput] = field(default_factory=list["Throughput"])
    latencies: list[Latency] = field(default_factory=list["Latency"])
    start: Start | None = None
    restart: Restart | None = None
    seconds: float = 0.0

    def rows(self) -> list[Row]:
        """Return the figures in the order of the goals."""
        rows: list[Row] = []
        for each in self.throughputs:
            goal = GOALS_RECORDS_S.get(each.job)
            name = f"{each.job}, exactly once"
            rows += [
                Row(f"{name}: per core of CPU", each.per_cpu_s, "records/s", goal, AT_LEAST),
                Row(f"{name}: wall", each.per_wall_s, "records/s"),
                Row(f"{name}: CPU of start-up", each.startup_cpu_s, "s"),
                Row(f"{name}: peak memory", each.peak_mb, "MB"),
            ]
        for latency in self.latencies:
            name = f"{latency.guarantee.replace('_', ' ')}, {latency.rate:,} records/s"
            goal = GOALS_P99_MS[latency.guarantee]
            rows += [
                Row(f"{name}: p50", latency.p50_ms, "ms"),
                Row(f"{name}: p95", latency.p95_ms, "ms"),
                Row(f"{name}: p99", latency.p99_ms, "ms", goal),
                Row(f"{name}: max", latency.max_ms, "ms"),
                Row(f"{name}: CPU", latency.cpu_cores, "cores"),
            ]
        if self.start is not None:
            rows.append(Row("start to first result", self.start.first_result_s, "s", GOAL_START_S))
        if self.restart is not None:
            size_mb, taken_s = self.restart.state_mb, self.restart.first_result_s
            # The goal is of about 1 GB; less says nothing about it.
            goal = GOAL_RESTART_S if size_mb >= 900 else None
            name = f"restart after kill -9, {size_mb:,.0f} MB of state, to first new result"
            rows.append(Row(name, taken_s, "s", goal))
        return rows

    def missed(self) -> list[Row]:
        """Return the figures that miss their goal."""
        return [row for row in self.rows() if row.ratio is not None and row.ratio < 1]

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
        lines = [f"- {name}: {value}" for name, value in self.machine.items()]
        lines += ["", "| measured | figure | goal | |", "|---|---:|---|---|"]
        lines += [f"| {' | '.join(row.cells())} |" for row in self.rows()]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for ``--json``."""
        return asdict(self)
