"""What the command says, and how it exits, when it is asked for what cannot be."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from riverrun.cli import main
from riverrun.engine.config import TaskSettings
from riverrun.engine.errors import ConfigError
from riverrun.state import StateDirectory
from tests.batches import encode
from tests.faults.harness import local_world
from tests.kafka_broker import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
JOB = "tests.faults.command_line_job"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands that run in this process set up logging for all of it."""
    loggers = [logging.getLogger(name) for name in ("", "riverrun", "asyncio")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


MISTAKES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "a duration without a unit": (
        ["--commit-interval", "100"], ["--commit-interval", "'100'", "like 100ms, 5s, 1m"],
    ),
    "a duration of nothing": (["--snapshot-interval", "0s"], ["must be longer than 0 ms"]),
    "an unknown guarantee": (
        ["--guarantee", "maybe_once"], ["'maybe_once'", "exactly_once", "at_least_once"],
    ),
    "a broker without a scheme": (
        ["--broker", "localhost:9092"], ["'localhost:9092'", "write kafka://HOST:PORT"],
    ),
    "a broker of another kind": (
        ["--broker", "amqp://localhost"], ["'amqp://localhost'", "or local:PATH"],
    ),
    "a broker without a port": (
        ["--broker", "kafka://localhost"], ["'localhost' is not HOST:PORT"],
    ),
    "a broker of no path": (["--broker", "local:"], ["local:PATH"]),
    "snapshots of another kind": (
        ["--snapshots", "ftp://host/path"], ["--snapshots", "'ftp://host/path'", "file, s3"],
    ),
    "snapshots at a relative path": (
        ["--snapshots", "file://path"], ["--snapshots", "file:///absolute/path"],
    ),
    "no address to serve on": (["--http", "here"], ["'here'", "as in 127.0.0.1:9100"]),
    "no number of processes": (["--processes", "0"], ["must be a number of at least 1"]),
    "an unknown option": (["--exactly-twice"], ["--exactly-twice"]),
}  # fmt: skip


@pytest.mark.parametrize(("options", "hints"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_on_the_command_line_ends_with_code_2_and_says_what_to_write(
    options: Sequence[str],
    hints: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ["--broker", "local:log", "--state-dir", "state"]

    assert run(["worker", JOB, *before, *options]) == 2

    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("riverrun: error: ")
    for hint in hints:
        assert hint in line
    assert not (tmp_path / "state").exists()


def run(arguments: list[str]) -> int:
    """Run a command here, as the entry point does."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("guarantee", "maybe"), ("commit_interval_ms", 0), ("snapshots_retained", 0)],
)
def test_a_setting_that_makes_no_sense_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be .* not {value!r}"):
        TaskSettings(**{setting: value})  # type: ignore[arg-type]


def test_a_broker_that_is_not_there_is_an_error_within_the_time_allowed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riverrun.cli.brokers.CONNECT_TIMEOUT_MS", 1_000)
    address = f"127.0.0.1:{free_port()}"
    began_s = time.monotonic()

    state = str(tmp_path / "state")
    code = run(["worker", JOB, "--broker", f"kafka://{address}", "--state-dir", state])

    assert code == 1
    assert time.monotonic() - began_s < 20
    error = capsys.readouterr().err
    assert "riverrun: error: " in error
    assert address in error
    assert "Traceback" not in error


def test_a_log_directory_that_cannot_be_used_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("a file in the way")

    code = run(["worker", JOB, "--broker", f"local:{tmp_path / 'log'}"])

    assert code == 1
    assert f"cannot use {tmp_path / 'log'} as a log directory" in capsys.readouterr().err


def test_a_missing_source_topic_is_an_error_that_says_how_to_make_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broker, state = f"local:{tmp_path / 'log'}", str(tmp_path / "state")

    code = run(["worker", JOB, "--broker", broker, "--state-dir", state])

    assert code == 1
    error = capsys.readouterr().err
    assert "reads topic 'orders', which does not exist; create it" in error
    assert "Traceback" not in error


def test_a_state_directory_in_use_is_an_error_that_names_the_process(tmp_path: Path) -> None:
    broker, state = f"local:{tmp_path / 'log'}", tmp_path / "state"
    command = [sys.executable, "-P", "-m", "riverrun"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [*command, "produce", "orders", "--broker", broker, "--partitions", "2"],
        input=b'{"user": "ada", "amount": 1, "ts": 1}\n',
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
    )

    with StateDirectory(state):
        refused = subprocess.run(
            [*command, "worker", JOB, "--broker", broker, "--state-dir", str(state)],
            env=environment,
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )

    assert refused.returncode == 1
    (line,) = [each for each in refused.stderr.splitlines() if "riverrun: error: " in each]
    assert f"{state} is in use by process {os.getpid()}" in line
    assert "another state directory" in line


def test_a_record_that_cannot_be_read_ends_the_worker_with_code_1_and_its_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def write_rubbish() -> None:
        async with local_world(tmp_path) as world:
            writer = await world.log.open_writer("w", transactional=True, timeout_ms=10_000)
            writer.append("orders", 1, encode([b"rubbish"]))
            await writer.commit(10_000)

    asyncio.run(write_rubbish())
    broker, state = f"local:{tmp_path / 'log'}", str(tmp_path / "state")

    code = run(["worker", JOB, "--broker", broker, "--state-dir", state])

    assert code == 1
    error = capsys.readouterr().err
    assert "topic orders, partition 1, offset 0" in error
    assert "on_error=" in error
    assert "Traceback" not in error
