"""Plots of a report, as SVG files for the documentation. They need matplotlib."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from .recovery import LOCAL
from .report import (
    GOAL_RATE,
    GOAL_SCALING,
    GOAL_STATE_MB,
    GOALS_P99_MS,
    GOALS_RECORDS_S,
    GOALS_RECOVERY_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .report import Report

INK, FAINT, GRID = "#24292f", "#6e7781", "#d8dee4"
BLUE, PALE, ORANGE = "#2f6690", "#a9c4d9", "#c8553d"
WIDTH, HEIGHT = 8.0, 3.6
"""Inches of 100 pixels: pages show them at about 800 pixels."""
STYLE = {
    "figure.figsize": (WIDTH, HEIGHT),
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "font.size": 10.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    # The same report gives the same file.
    "svg.hashsalt": "riverrun",
    "svg.fonttype": "path",
}
PERCENTILES = (
    ("p50", "p50_ms", PALE),
    ("p95", "p95_ms", "#6b9ac4"),
    ("p99", "p99_ms", BLUE),
    ("max", "max_ms", "#8c959f"),
)
BAR = 0.19


class PlotsNeedMatplotlibError(Exception):
    """matplotlib is not installed."""


def require_matplotlib() -> None:
    """Do nothing if plots can be drawn: to be asked before minutes of measuring.

    Raises:
        PlotsNeedMatplotlibError: If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise PlotsNeedMatplotlibError("plots need matplotlib; `make setup` installs it")


def draw(report: Report, folder: Path, suffix: str = "svg") -> list[tuple[str, Path]]:
    """Draw what was measured; parts that were not are left out.

    Returns:
        Title and file of each plot.

    Raises:
        PlotsNeedMatplotlibError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, Path]] = []
    with rc_context(STYLE):
        for name, title, paint in _plots(report):
            figure = Figure(layout="constrained")
            paint(report, figure)
            path = folder / f"benchmark-{name}.{suffix}"
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(path, metadata=metadata)
            drawn.append((title, path))
    return drawn


def _plots(report: Report) -> Iterator[tuple[str, str, Callable[[Report, Any], None]]]:
    if report.throughputs:
        yield "throughput", "Throughput by job", _throughput
    if report.latencies:
        yield "latency", "Latency by load", _latency
    if report.recoveries:
        yield "recovery", "Recovery by size of state", _recovery
    if len(report.scaling) > 1:
        yield "scaling", "Scaling over processes", _scaling


def _throughput(report: Report, figure: Any) -> None:
    axes = figure.subplots()
    found = report.throughputs[::-1]
    axes.barh(
        [each.job for each in found], [each.per_cpu_s / 1e6 for each in found], 0.55, color=BLUE
    )
    for at, each in enumerate(found):
        rate = each.per_cpu_s / 1e6
        _value(axes, rate, at, f" {rate:.2f}", va="center", ha="left")
        goal = GOALS_RECORDS_S.get(each.job)
        if goal is not None:
            label = "goal" if at == len(found) - 1 else None
            axes.vlines(goal / 1e6, at - 0.36, at + 0.36, color=ORANGE, lw=2, label=label)
    axes.set_title("Throughput, exactly once")
    axes.set_xlabel("million records per second and core of CPU")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.08)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    _legend(axes)


def _latency(report: Report, figure: Any) -> None:
    kinds = [k for k in GOALS_P99_MS if any(each.guarantee == k for each in report.latencies)]
    places = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(places, kinds, strict=True):
        found = [each for each in report.latencies if each.guarantee == kind]
        for number, (name, field, colour) in enumerate(PERCENTILES):
            places_x = [at + (number - 1.5) * BAR for at in range(len(found))]
            values = [getattr(each, field) for each in found]
            axes.bar(places_x, values, BAR * 0.92, color=colour, label=name)
            for x, value in zip(places_x, values, strict=True):
                text = f"{value:.0f}" if value >= 10 else f"{value:.1f}"
                _value(axes, x, value * 1.06, text, fontsize=8)
        for at, each in enumerate(found):
            if each.rate == GOAL_RATE:
                goal = GOALS_P99_MS[kind]
                middle, half = at + 0.5 * BAR, 0.85 * BAR
                axes.hlines(
                    goal, middle - half, middle + half, color=ORANGE, lw=2, label="goal of p99"
                )
        axes.set_yscale("log")
        axes.set_title(kind.replace("_", " ").capitalize())
        axes.set_xticks(range(len(found)), [f"{each.rate / 1000:.0f} k" for each in found])
        axes.set_xlabel("records created per second")
        axes.grid(axis="y")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    places[0].set_ylabel("latency, ms")
    low, high = places[0].get_ylim()
    places[0].set_ylim(low, high * 1.5)
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _recovery(report: Report, figure: Any) -> None:
    axes = figure.subplots()
    sources = list(dict.fromkeys(each.source for each in report.recoveries))
    for source, colour in zip(sources, (BLUE, "#7a9e7e"), strict=False):
        found = sorted(
            (r for r in report.recoveries if r.source == source), key=lambda r: r.state_mb
        )
        sizes = [each.state_mb for each in found]
        axes.plot(sizes, [each.first_result_s for each in found], color=colour, label=source)
        for each in found:
            spots = [each.state_mb] * len(each.all_s)
            axes.plot(spots, each.all_s, "o", color=colour, ms=4, alpha=0.45, mew=0)
            axes.plot(each.state_mb, each.first_result_s, "o", color=colour, ms=7)
            axes.annotate(
                f"{each.first_result_s:.2f} s",
                (each.state_mb, each.first_result_s),
                (9, -12 if source == LOCAL and each.state_mb < GOAL_STATE_MB else 8),
                textcoords="offset points",
                fontsize=9.5,
                color=colour,
                path_effects=_halo(),
            )
            if each.state_mb >= GOAL_STATE_MB:
                goal = GOALS_RECOVERY_S[source]
                axes.plot(each.state_mb, goal, "_", color=ORANGE, ms=22, mew=2)
                axes.annotate(
                    f"goal, {source}",
                    (each.state_mb, goal),
                    (-14, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=9,
                    color=ORANGE,
                    path_effects=_halo(),
                )
    axes.set_title("Recovery after kill -9, to the first new result")
    axes.set_xlabel("state, MB")
    axes.set_ylabel("time, s")
    axes.set_xlim(0, max(each.state_mb for each in report.recoveries) * 1.12)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.06)
    axes.grid(axis="y")
    _legend(axes, loc="upper left")


def _scaling(report: Report, figure: Any) -> None:
    axes = figure.subplots()
    place = 0.0
    ticks: list[tuple[float, str]] = []
    for limit, alike in report.scaling_by_limit().items():
        label = "no limit: the broker on the same two cores"
        if limit is not None:
            label = f"each worker limited to {limit:g} cores"
        colour = PALE if limit is None else BLUE
        for nth, each in enumerate(alike):
            rate = each.per_wall_s / 1e6
            axes.bar(place, rate, 0.7, color=colour, label="" if nth else label)
            _value(axes, place, rate, f"{rate:.2f}")
            if nth:
                by = f"{each.per_wall_s / alike[0].per_wall_s:.2f} x"
                axes.text(place, rate / 2, by, ha="center", color=INK if limit is None else "white")
            if limit is not None and each.processes == 2:
                goal = alike[0].per_wall_s / 1e6 * GOAL_SCALING
                ends = place - 0.45, place + 0.45
                axes.hlines(goal, *ends, color=ORANGE, lw=2, label="goal")
            ticks.append((place, f"{each.processes}"))
            place += 1
        place += 0.6
    axes.set_title("Window job on 4 partitions, by worker processes")
    axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks])
    axes.set_xlabel("worker processes")
    axes.set_ylabel("million records per second of wall time")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    axes.grid(axis="y")
    _legend(axes, loc="upper left")


def _value(axes: Any, x: float, y: float, text: str, **more: Any) -> None:
    """Write a figure beside its bar, so that it can be read on top of lines too."""
    look = {"ha": "center", "va": "bottom", "fontsize": 9.5, **more}
    axes.text(x, y, text, path_effects=_halo(), **look)


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]


def _legend(axes: Any, **more: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(handles, labels, **more)
