"""How one sees on the command line which plane runs, and forces one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun.cli import main
from riverrun.engine.planes import PLANE_VARIABLE
from tests.cli.commands import COUNTS, run_ok, start_line, started, terminate, words

if TYPE_CHECKING:
    from pathlib import Path

REASON = "not built: no Rust compiler"


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLANE_VARIABLE, raising=False)
    monkeypatch.setattr("riverrun.engine.planes._kernel_plane", lambda: REASON)


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_worker_runs_on_the_plane_that_is_asked_for(tmp_path: Path, command: str) -> None:
    (tmp_path / "job.py").write_text(COUNTS)
    run_ok("produce", "words", cwd=tmp_path, stdin=words(10))

    with started(command, "job.py", "--plane", "reference", cwd=tmp_path) as worker:
        assert ", plane reference, " in start_line(worker)
        assert terminate(worker) == 0


@pytest.mark.parametrize("command", ["run", "worker"])
@pytest.mark.usefixtures("no_kernel")
def test_a_worker_does_not_start_on_another_plane_than_asked_for(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.py"
    job.write_text(COUNTS)

    assert main([command, str(job), "--plane", "kernel"]) == 2
    errors = capsys.readouterr().err
    assert f"error: the kernel plane was asked for, and there is no kernel: {REASON}" in errors
    assert "install Rust" in errors


@pytest.mark.usefixtures("no_kernel")
def test_doctor_says_why_there_is_no_kernel_and_how_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert [line.split() for line in lines if "data plane" in line] == [
        ["data", "plane", "reference"]
    ]
    [kernel] = [line for line in lines if line.split()[:1] == ["kernel"]]
    assert REASON in kernel
    assert "to get it, install Rust" in kernel


@pytest.mark.usefixtures("no_kernel")
def test_doctor_finds_a_problem_if_the_kernel_is_asked_for_and_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLANE_VARIABLE, "kernel")

    assert main(["doctor"]) == 1
    assert f"there is no kernel: {REASON}" in capsys.readouterr().out


def test_doctor_tells_a_plane_that_is_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLANE_VARIABLE, "reference")

    assert main(["doctor"]) == 0
    assert "reference, as RIVERRUN_PLANE says" in capsys.readouterr().out
