"""Figures of all engines: as a table, as Markdown, and as bars."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .catalog import JOBS, PEERS, RIVERRUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .drain import PeerResult

COLUMNS = (
    "job",
    "engine",
    "records/s per core of CPU",
    "riverrun is",
    "wall",
    "CPU of start-up",
    "first result",
    "peak memory",
    "records",
)
GUARANTEES = {
    RIVERRUN: ("riverrun", "exactly once, commits each 100 ms, 500 ms while it catches up")
}
RIVERRUN_SETTING = "one worker, one task, RocksDB with changelog"
TITLES = {RIVERRUN: "riverrun", **{peer.name: peer.title for peer in PEERS}}
OWN_COLOUR, PEER_COLOUR = "#1f77b4", "#9aa5b1"


@dataclass(slots=True)
class PeerReport:
    """Everything that one run beside the peers has measured."""

    machine: dict[str, str]
    options: dict[str, Any]
    results: list[PeerResult] = field(default_factory=list["PeerResult"])
    seconds: float = 0.0

    def ratio(self, result: PeerResult) -> float | None:
        """Return how many times as much riverrun does per second of CPU in the same job."""
        own = next((r for r in self.results if r.engine == RIVERRUN and r.job == result.job), None)
        if own is None or own.reason or result.reason or result is own:
            return None
        return own.per_cpu_s / result.per_cpu_s

    def rows(self) -> list[tuple[str, ...]]:
        """Return the figures as text, in the order of the columns."""
        return [self._row(result) for job in JOBS for result in self.results if result.job == job]

    def _row(self, result: PeerResult) -> tuple[str, ...]:
        title = TITLES[result.engine]
        if result.reason:
            return (result.job, title, "no figure", *[""] * (len(COLUMNS) - 3))
        ratio, first_s = self.ratio(result), result.first_result_s
        return (
            result.job,
            title,
            rate(result.per_cpu_s),
            "" if ratio is None else f"{ratio:,.1f}x",
            # Where two drains took about the same time the difference says nothing.
            f"{rate(result.per_wall_s)}/s" if result.per_wall_s > 0 else "",
            f"{result.startup_cpu_s:.1f} s",
            "" if first_s is None else f"{first_s:.1f} s",
            f"{result.peak_mb:,.0f} MB",
            f"{result.records:,}",
        )

    def failures(self) -> list[str]:
        """Return why there are figures missing; ``--json`` has the last lines of the log too."""
        return [
            f"{TITLES[result.engine]}, {result.job}: {result.reason.splitlines()[0]}"
            for result in self.results
            if result.reason
        ]

    def table(self) -> str:
        """Return the figures as text for a terminal."""
        cells = [COLUMNS, *self.rows()]
        widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
        align: list[Callable[[str, int], str]] = [str.ljust, str.ljust, *[str.rjust] * 7]
        lines = [
            "  ".join(
                side(text, width) for side, text, width in zip(align, row, widths, strict=True)
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, *self.failures()])

    def markdown(self) -> str:
        """Return the figures as a Markdown section, for ``docs/benchmarks.md``."""
        lines = [f"- {name}: {value}" for name, value in self.machine.items()]
        lines += ["", f"| {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
        lines += [f"| {' | '.join(row)} |" for row in self.rows()]
        if failures := self.failures():
            lines += ["", *(f"- {failure}" for failure in failures)]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for ``--json``."""
        return asdict(self)


def rate(per_s: float) -> str:
    """Return a rate in three digits or so."""
    if per_s >= 1_000_000:
        return f"{per_s / 1e6:,.2f} M"
    return f"{per_s / 1e3:,.{1 if per_s < 100_000 else 0}f} k"


def engines_markdown() -> str:
    """Return what each engine is and how it runs, for ``docs/benchmarks.md``."""
    lines = ["| engine | version | guarantee | configuration |", "|---|---|---|---|"]
    own, guarantee = GUARANTEES[RIVERRUN]
    lines.append(f"| {own} | this one | {guarantee} | {RIVERRUN_SETTING} |")
    lines += [
        f"| {peer.title} | {peer.version()} | {peer.guarantee} | {peer.setting} |" for peer in PEERS
    ]
    return "\n".join(lines)


def draw(report: PeerReport, path: Path) -> bool:
    """Draw the rates per second of CPU as bars; return whether there was anything to draw.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    jobs = [job for job in JOBS if any(r.job == job and not r.reason for r in report.results)]
    if not jobs:
        return False
    # The same file for the same figures.
    mpl.rcParams.update({"svg.hashsalt": "riverrun", "svg.fonttype": "none"})
    figure = Figure(figsize=(5.5 * len(jobs), 3.6), layout="constrained")
    for number, job in enumerate(jobs, start=1):
        found = [r for r in report.results if r.job == job and not r.reason]
        found.sort(key=lambda result: result.per_cpu_s)
        axes = figure.add_subplot(1, len(jobs), number)
        colours = [OWN_COLOUR if r.engine == RIVERRUN else PEER_COLOUR for r in found]
        bars = axes.barh(
            [TITLES[r.engine] for r in found], [r.per_cpu_s for r in found], color=colours
        )
        axes.bar_label(bars, labels=[rate(r.per_cpu_s) for r in found], padding=3)
        axes.set_xscale("log")
        axes.set_xlim(1_000, max(r.per_cpu_s for r in found) * 4)
        axes.set_title(job)
        axes.set_xlabel("records per second of CPU (logarithmic)")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})
    return True
