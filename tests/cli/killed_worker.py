"""A worker on Kafka that is killed, and the counts that must come out all the same."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.cli.commands import (
    COUNTS,
    run,
    run_ok,
    start_line,
    started,
    terminate,
    wait_until,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def check_counts_after_a_kill(directory: Path, broker: Sequence[str], first: int = 500) -> str:
    """Produce, count, kill the worker while it counts, start another one, and compare.

    Args:
        directory: Where to work.
        broker: Options that lead to it.
        first: Words before the kill, a multiple of five; 500 more come with it.

    Returns:
        What the first worker said when it started.
    """
    name = f"counts-{uuid4().hex[:8]}"
    job = directory / "job.py"
    job.write_text(COUNTS.replace('"counts"', f'"{name}"').replace('"words"', f'"in-{name}"'))
    produce = ("produce", f"in-{name}", "--partitions", "2", *broker)

    def latest() -> dict[str, int]:
        result = run("consume", name, *broker, cwd=directory)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        found: dict[str, int] = {}
        for row in rows:
            assert row["n"] > found.get(row["word"], 0), f"{row} after {found}"
            found[row["word"]] = row["n"]
        return found

    run_ok(*produce, cwd=directory, stdin=words(first))
    with started("worker", job, *broker, cwd=directory) as worker:
        line = start_line(worker)
        wait_until(lambda: sum(latest().values()) > 0, "some counted")
        run_ok(*produce, cwd=directory, stdin=words(500))
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    with started("worker", job, *broker, cwd=directory) as worker:
        start_line(worker)
        wait_until(lambda: sum(latest().values()) == first + 500, "all counted")
        assert terminate(worker) == 0
    assert latest() == dict.fromkeys((f"w{number}" for number in range(5)), (first + 500) // 5)
    return line
