"""Running ``riverrun`` as a user does, in processes of its own, each with a deadline."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from riverrun.cli.consume_lines import TopicReader
from riverrun.connectors.local import LocalLog
from riverrun.engine.planes import PLANE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE_S = 60
"""Far above what anything here takes on a quiet machine; the tests share a busy one."""

RIVERRUN = (sys.executable, "-P", "-m", "riverrun")

COUNTS = """
import riverrun as rr

topology = rr.Topology("counts")
(
    topology.source(rr.Topic("words", partitions=2))
    .key_by("word")
    .aggregate(n=rr.Count())
    .sink(rr.Topic("counts"))
)
"""
"""A topology that tells every count it comes to: a repeated or lost record shows."""


def environment(**more: str) -> dict[str, str]:
    """This process's own, without settings of riverrun except the plane that is under test."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RIVERRUN_") or name == PLANE_VARIABLE
    }
    return {**clean, **more}


def run(
    *arguments: str | Path, cwd: Path, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*RIVERRUN, *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environment(**env),
        check=False,
    )


def run_ok(*arguments: str | Path, cwd: Path, stdin: str = "", **env: str) -> str:
    """Run a command that is to succeed, and return what it printed."""
    result = run(*arguments, cwd=cwd, stdin=stdin, **env)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextmanager
def started(*arguments: str | Path, cwd: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs meanwhile; killed at the end if it still does. Its stderr is a file."""
    with (cwd / "stderr").open("a") as errors:
        process = subprocess.Popen(
            [*RIVERRUN, *map(str, arguments)],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(**env),
        )
    try:
        yield process
    except BaseException:
        # pytest shows it with the failure.
        sys.stdout.write((cwd / "stderr").read_text())
        raise
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        if process.stdout is not None:
            process.stdout.close()


def start_line(process: subprocess.Popen[str]) -> str:
    """Wait for the line that a worker prints when it starts; from then on it hears signals."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "ended before it started"
    return line


def terminate(process: subprocess.Popen[str]) -> int:
    """End a worker as an operator does, and return its exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(DEADLINE_S)


def wait_until(is_so: Callable[[], Any], what: str) -> Any:
    """Wait until ``is_so`` returns something true, and return that."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if found := is_so():
            return found
        time.sleep(0.05)
    raise AssertionError(f"in {DEADLINE_S} s: not {what}")


def read_topic(directory: Path, topic: str) -> list[Any]:
    """Return the committed values of a topic of the embedded log; none if it is missing."""

    async def read() -> list[Any]:
        log = LocalLog(directory)
        await log.start(10_000)
        try:
            info = await log.describe_topic(topic)
            if info is None:
                return []
            reader = TopicReader(log, info, from_end=False, follow=False)
            return [
                json.loads(value or b"null")
                async for records in reader.read()
                for value in records.values
            ]
        finally:
            await log.close()

    return asyncio.run(read())


def words(count: int, kinds: int = 5) -> str:
    """JSON lines for ``COUNTS``."""
    return "".join(f'{{"word": "w{number % kinds}"}}\n' for number in range(count))


def check_counts(directory: Path, total: int) -> None:
    """Assert that every count came once, growing, and that together they are ``total``."""
    latest: dict[str, int] = {}
    for row in read_topic(directory, "counts"):
        assert row["n"] > latest.get(row["word"], 0), f"{row} after {latest}"
        latest[row["word"]] = row["n"]
    assert sum(latest.values()) == total


def counted(directory: Path) -> int:
    """How many records the counts stand for so far."""
    latest = {row["word"]: row["n"] for row in read_topic(directory, "counts")}
    return sum(latest.values())
