"""Durations as users write them, as the milliseconds that the engine counts in."""

from __future__ import annotations

import datetime as dt
import re

from riverrun.engine.errors import TopologyError

Duration = str | int | dt.timedelta
"""``"1m"``, ``"1h30m"``, a ``timedelta``, or milliseconds as an int."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TEXT = re.compile(r"(?:\d{1,20}(?:ms|s|m|h|d))+")
_LIMIT_MS = 1 << 53
"""Less than this: 285 thousand years, so that a time and a duration add up within 64 bits."""

_PART = re.compile(r"(\d+)(ms|s|m|h|d)")


def duration_ms(value: Duration, what: str = "duration") -> int:
    """Return a duration in milliseconds.

    Args:
        value: Text of numbers with units ``ms``, ``s``, ``m``, ``h``, ``d``; a ``timedelta`` of
            whole milliseconds; or milliseconds.
        what: What it is, for the message: ``"gap of a session window"``.

    Raises:
        TopologyError: If it is none of these, negative or too long.

    Example:
        >>> duration_ms("1m"), duration_ms("1h30m"), duration_ms(250)
        (60000, 5400000, 250)
    """
    if isinstance(value, str):
        text = value.replace(" ", "")
        if not _TEXT.fullmatch(text):
            raise TopologyError(
                f"{what}: cannot read {value!r} as a duration; write a number and one of the units "
                'ms, s, m, h, d, like "200ms", "5s", "1m", "1h30m"'
            )
        whole = sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))
    elif isinstance(value, dt.timedelta):
        whole, rest = divmod(value, dt.timedelta(milliseconds=1))
        if rest:
            raise TopologyError(f"{what}: {value} is not a whole number of milliseconds")
    elif isinstance(value, int) and not isinstance(value, bool):
        whole = value
    else:
        raise TopologyError(
            f"{what}: {value!r} is not a duration; use text like '1m', a timedelta, or "
            "milliseconds as an int"
        )
    if whole < 0:
        raise TopologyError(f"{what}: {value!r} is negative")
    if whole >= _LIMIT_MS:
        raise TopologyError(f"{what}: {value!r} is too long, more than 285 thousand years")
    return whole


def positive_duration_ms(value: Duration, what: str = "duration") -> int:
    """Return a duration in milliseconds that is not zero.

    Raises:
        TopologyError: If it is zero, negative, or not a duration.
    """
    result = duration_ms(value, what)
    if result == 0:
        raise TopologyError(f"{what} must be longer than 0 ms")
    return result
