"""The commands on a real broker: the same module that runs on the embedded log."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

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
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture
def broker(kafka: str) -> tuple[str, str]:
    return ("--broker", f"kafka://{kafka}")


def test_produce_worker_kill_worker_consume(tmp_path: Path, broker: tuple[str, str]) -> None:
    name = f"counts-{uuid4().hex[:8]}"
    job = tmp_path / "job.py"
    job.write_text(COUNTS.replace('"counts"', f'"{name}"').replace('"words"', f'"in-{name}"'))
    produce = ("produce", f"in-{name}", "--partitions", "2", *broker)

    def latest() -> dict[str, int]:
        result = run("consume", name, *broker, cwd=tmp_path)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        found: dict[str, int] = {}
        for row in rows:
            assert row["n"] > found.get(row["word"], 0), f"{row} after {found}"
            found[row["word"]] = row["n"]
        return found

    run_ok(*produce, cwd=tmp_path, stdin=words(500))
    with started("worker", job, *broker, cwd=tmp_path) as worker:
        line = start_line(worker)
        wait_until(lambda: sum(latest().values()) > 0, "some counted")
        run_ok(*produce, cwd=tmp_path, stdin=words(500))
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    with started("worker", job, *broker, cwd=tmp_path) as worker:
        start_line(worker)
        wait_until(lambda: sum(latest().values()) == 1_000, "all counted")
        assert terminate(worker) == 0

    assert f"broker {broker[1]}" in line
    assert latest() == dict.fromkeys((f"w{number}" for number in range(5)), 200)


def test_a_topic_that_is_missing_is_not_created_unless_asked(
    tmp_path: Path, broker: tuple[str, str]
) -> None:
    result = run("produce", f"in-{uuid4().hex[:8]}", *broker, cwd=tmp_path, stdin="1\n")

    assert result.returncode == 1
    assert "--partitions N" in result.stderr
