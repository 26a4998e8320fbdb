"""Progress of a restore, and log lines."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from riverrun.cli.logs import JsonFormatter, TextFormatter
from riverrun.cli.progress import INTERVAL_S, RestoreProgress, size_text


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    lines: list[str] = []
    now_s = 0.0
    progress = RestoreProgress(lines.append, lambda: now_s)

    progress("1-0", 1_000, 4_000_000)
    now_s += INTERVAL_S / 2
    progress("1-0", 900_000, 4_000_000)
    now_s += INTERVAL_S / 2
    progress("1-0", 1_000_000, 4_000_000)
    progress("1-0", 2_000_000, 4_000_000)
    progress("1-1", 5, 5)
    progress("1-0", 4_000_000, 4_000_000)

    assert lines == [
        "restoring task 1-0: 1.0 MB of 4.0 MB (25 %)",
        "restoring task 1-1: 5 B of 5 B (100 %)",
        "restoring task 1-0: 4.0 MB of 4.0 MB (100 %)",
    ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2 * 10**9, "2.0 GB"), (10**16, "10000.0 TB")],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def record(message: str, *args: object, error: bool = False) -> logging.LogRecord:
    info = None
    if error:
        try:
            raise ValueError("broken")
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord("riverrun.x", logging.WARNING, __file__, 1, message, args, info)


def test_text_lines_are_short() -> None:
    line = TextFormatter().format(record("task %s", "1-0"))

    assert line[8:] == " W task 1-0"


def test_json_lines_are_one_object_each() -> None:
    line = JsonFormatter().format(record("zwei\nZeilen", error=True))

    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == (
        "warning", "riverrun.x", "zwei\nZeilen"
    )  # fmt: skip
    assert "ValueError: broken" in entry["exception"]
