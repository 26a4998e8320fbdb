"""``riverrun worker``: several processes under one parent, snapshots, and what ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from riverrun.cli.supervisor import ERRORS_MAX, ChildCommand, Supervisor
from tests.cli.commands import (
    COUNTS,
    check_counts,
    counted,
    run,
    run_ok,
    start_line,
    started,
    terminate,
    wait_until,
    words,
)
from tests.kafka_broker import free_port

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(COUNTS)
    run_ok("produce", "words", "--partitions", "2", cwd=tmp_path, stdin=words(100))
    return path


def children_of(process: subprocess.Popen[str]) -> list[int]:
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as listed:
        return [int(pid) for pid in listed.read().split()]


@pytest.mark.timeout(240)
def test_processes_share_the_work_and_one_that_is_killed_comes_back(
    tmp_path: Path, job: Path
) -> None:
    log = tmp_path / ".riverrun"
    options = ("--processes", "2", "--state-dir", "state", "--http", "127.0.0.1:0")
    with started("worker", job, *options, cwd=tmp_path) as parent:
        lines = sorted([start_line(parent), start_line(parent)])
        assert [line[:3] for line in lines] == ["[0]", "[1]"]
        assert "state state/0" in lines[0]
        urls = {re.findall(r"http://127\.0\.0\.1:\d+", line)[0] for line in lines}
        assert len(urls) == 2
        for url in urls:
            with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
                assert json.loads(answer.read())["healthy"] is True
        wait_until(lambda: counted(log) == 100, "all counted")

        victim = children_of(parent)[0]
        os.kill(victim, signal.SIGKILL)
        again = start_line(parent)
        run_ok("produce", "words", cwd=tmp_path, stdin=words(100))
        wait_until(lambda: counted(log) == 200, "all counted after the kill")
        assert terminate(parent) == 0

    assert re.match(r"\[[01]\] riverrun: job counts", again)
    assert "ended by signal 9; again in" in (tmp_path / "stderr").read_text()
    check_counts(log, 200)


def test_children_leave_when_their_parent_is_killed(tmp_path: Path, job: Path) -> None:
    with started("worker", job, "--processes", "2", cwd=tmp_path) as parent:
        start_line(parent)
        start_line(parent)
        children = children_of(parent)
        parent.kill()
        parent.wait(10)

        wait_until(lambda: not any(map(is_running, children)), "the children gone")
    assert len(children) == 2


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_port_that_is_taken_stops_all(tmp_path: Path, job: Path) -> None:
    port = free_port(count=2)  # worker 1 can have its own
    with socket.create_server(("127.0.0.1", port)):
        result = run("worker", job, "--processes", "2", "--http", f"127.0.0.1:{port}", cwd=tmp_path)

    assert result.returncode == 1
    assert f"cannot serve HTTP on 127.0.0.1:{port}" in result.stderr
    assert "worker 0 ended with exit code 2" in result.stderr


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_a_child_that_fails_again_and_again_ends_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = f"open({str(tmp_path / 'tries')!r}, 'a').write('x'); raise SystemExit(1)"
    supervisor = Supervisor(
        [ChildCommand(0, python("import time; time.sleep(60)")), ChildCommand(1, python(failing))],
        first_backoff_s=0.01,
    )
    began_s = time.monotonic()

    assert supervisor.run() == 1
    assert time.monotonic() - began_s < 40
    assert (tmp_path / "tries").read_text() == "x" * ERRORS_MAX
    assert "worker 1 ended with exit code 1" in capfd.readouterr().err


def test_a_child_whose_command_line_is_wrong_is_not_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = f"open({str(tmp_path / 'tries')!r}, 'a').write('x'); raise SystemExit(2)"

    assert Supervisor([ChildCommand(0, python(failing))], first_backoff_s=0.01).run() == 1
    assert (tmp_path / "tries").read_text() == "x"
    assert "riverrun: error: worker 0 ended with exit code 2" in capfd.readouterr().err


def test_every_line_of_a_child_says_whose_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    chatting = "import sys; print('a\\nb'); print('c\\nd', file=sys.stderr); raise SystemExit(2)"

    assert Supervisor([ChildCommand(3, python(chatting))]).run() == 1
    out, err = capfd.readouterr()
    assert out == "[3] a\n[3] b\n"
    assert err.splitlines()[:2] == ["[3] c", "[3] d"]
    assert err.splitlines()[2].startswith("riverrun: error: worker 3 ended")


@pytest.mark.timeout(240)
def test_snapshots_are_listed_shown_and_verified(tmp_path: Path, job: Path) -> None:
    storage = ("--snapshots", (tmp_path / "snapshots").as_uri())

    def snapshots() -> list[dict[str, object]]:
        run_ok("produce", "words", cwd=tmp_path, stdin=words(20))
        result = run("checkpoints", "list", "counts", *storage, "--json", cwd=tmp_path)
        rows = json.loads(result.stdout or "[]")
        return rows if {"1-0", "1-1"} <= {row["task"] for row in rows} else []

    assert run("checkpoints", "list", "counts", *storage, cwd=tmp_path).returncode == 1
    with started("worker", job, *storage, "--snapshot-interval", "300ms", cwd=tmp_path) as worker:
        start_line(worker)
        wait_until(snapshots, "snapshots of both tasks with state")
        assert terminate(worker) == 0

    table = run_ok("checkpoints", "list", "job.py", *storage, cwd=tmp_path).splitlines()
    assert table[0].split() == ["TASK", "EPOCH", "CREATED", "FILES", "SIZE", "SNAPSHOT"]
    shown = run_ok("checkpoints", "show", "counts", *storage, "--task", "1-0", cwd=tmp_path)
    assert re.search(r"position +\S+-repartition/0 at offset \d+", shown)
    verified = run_ok("checkpoints", "verify", "counts", *storage, cwd=tmp_path)
    assert verified.count(": whole") == verified.count("\n") >= 2

    for file in (tmp_path / "snapshots").glob("counts/1-1/objects/*"):
        file.write_bytes(file.read_bytes() + b"x")
    damaged = run("checkpoints", "verify", "counts", *storage, cwd=tmp_path)
    assert damaged.returncode == 1
    assert "differs from the manifest" in damaged.stdout
