"""The commands on a real broker: the same module that runs on the embedded log."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.cli.commands import run
from tests.cli.killed_worker import check_counts_after_a_kill

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture
def broker(kafka: str) -> tuple[str, str]:
    return ("--broker", f"kafka://{kafka}")


def test_produce_worker_kill_worker_consume(tmp_path: Path, broker: tuple[str, str]) -> None:
    line = check_counts_after_a_kill(tmp_path, broker)

    assert f"broker {broker[1]}" in line


def test_a_topic_that_is_missing_is_not_created_unless_asked(
    tmp_path: Path, broker: tuple[str, str]
) -> None:
    result = run("produce", f"in-{uuid4().hex[:8]}", *broker, cwd=tmp_path, stdin="1\n")

    assert result.returncode == 1
    assert "--partitions N" in result.stderr
