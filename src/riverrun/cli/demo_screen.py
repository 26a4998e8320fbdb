"""The picture of the demo: pure functions from readings to text."""

from __future__ import annotations

import datetime as dt
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .demo_job import Amounts

RATES_KEPT = 30
BAR_MAX = 40
NAME_WIDTH = 10
BAR = "█"
_BAR = re.compile(f"{BAR}{BAR}*(?= )")
_BLOCKS = "▁▂▃▄▅▆▇█"

HOME_AND_CLEAR = "\x1b[{lines}F\x1b[J"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
BOLD, GREEN, PLAIN = "\x1b[1m", "\x1b[32m", "\x1b[0m"


@dataclass(slots=True)
class Readings:
    """What the picture shows.

    Attributes:
        records_in: Orders processed.
        lag: Orders written and not processed yet.
        watermark_ms: Event time that the windows have reached, None before the first record.
        windows: Number of windows that came out whole.
        commits: Epochs committed, by all tasks.
        tasks: Number of running tasks.
        delay_ms: From when a window could close to its last result, of the newest window.
        newest: Start of the newest whole window, None before the first.
        users: Its results.
        rates: Orders per second lately, newest last.
    """

    records_in: int = 0
    lag: int = 0
    watermark_ms: int | None = None
    windows: int = 0
    commits: int = 0
    tasks: int = 0
    delay_ms: int | None = None
    newest: int | None = None
    users: Mapping[str, Amounts] = field(default_factory=dict[str, "Amounts"])
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=RATES_KEPT))

    @property
    def rate(self) -> float:
        """Orders per second, over the last few readings."""
        latest = list(self.rates)[-4:]
        return sum(latest) / len(latest) if latest else 0.0


def clock_text(time_ms: int | None, form: str = "%H:%M:%S") -> str:
    """Return an event time for people.

    Example:
        >>> clock_text(90_000)
        '00:01:30'
    """
    if time_ms is None:
        return "--:--:--"
    return dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).strftime(form)


def sparkline(values: Sequence[float]) -> str:
    """Return values as a row of blocks, the largest as the highest.

    Example:
        >>> sparkline([0, 5, 10])
        '▁▄█'
    """
    top = max(values, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(values)
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[int(value / top * last)] for value in values)


def picture(readings: Readings, heading: str, width: int) -> list[str]:
    """Return the lines of the picture, without colours, none wider than ``width``."""
    r = readings
    delay = "" if r.delay_ms is None else f"results {r.delay_ms} ms after a window could close"
    lines = [
        heading,
        "",
        f"  records    {r.rate:>7,.0f}/s  {r.records_in:>10,} in all   {sparkline(list(r.rates))}",
        f"  watermark  {clock_text(r.watermark_ms):>9}  {r.lag:>10,} behind",
        f"  windows    {r.windows:>9,}  {delay}",
        f"  epochs     {r.commits:>9,}  committed by {r.tasks} tasks, exactly once",
        "",
        *_bars(readings, width),
    ]
    return [line[:width] for line in lines]


def _bars(readings: Readings, width: int) -> list[str]:
    if readings.newest is None:
        return ["  waiting for the first window to close"]
    start = clock_text(readings.newest, "%H:%M")
    top = max((amounts.total for amounts in readings.users.values()), default=1.0)
    room = max(min(BAR_MAX, width - NAME_WIDTH - 30), 1)
    lines = [f"  revenue per user in the minute {start}"]
    for user, amounts in sorted(readings.users.items()):
        bar = BAR * max(round(amounts.total / top * room), 1)
        figures = f"{amounts.total:>10,.2f} {amounts.orders:>6} orders"
        lines.append(f"  {user:<{NAME_WIDTH}}{bar:<{room}} {figures}")
    return lines


def coloured(lines: Sequence[str]) -> list[str]:
    """Return the lines of a picture with the heading in bold and the bars in green."""
    heading, *rest = lines
    return [f"{BOLD}{heading}{PLAIN}", *(_BAR.sub(f"{GREEN}\\g<0>{PLAIN}", line) for line in rest)]


def window_line(readings: Readings) -> str:
    """Return the newest window as one line, for output that is no terminal."""
    r = readings
    total = sum(amounts.total for amounts in r.users.values())
    orders = sum(amounts.orders for amounts in r.users.values())
    delay = "" if r.delay_ms is None else f", {r.delay_ms} ms after it could close"
    return (
        f"window {clock_text(r.newest, '%H:%M')}: {orders:,} orders of {len(r.users)} users, "
        f"revenue {total:,.2f}{delay}; {r.rate:,.0f} records/s, "
        f"watermark {clock_text(r.watermark_ms)}, {r.commits:,} epochs committed"
    )


def status_line(readings: Readings) -> str:
    """Return the readings as one line, for the time before the first window."""
    r = readings
    return f"{r.records_in:,} records, {r.rate:,.0f}/s, watermark {clock_text(r.watermark_ms)}"
