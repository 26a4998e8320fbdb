"""The scripts behind the Makefile: what they say when something is missing, and when nothing is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What the scripts call besides Python, Java and Maven.
TOOLS = ("sh", "cat", "cksum", "dirname", "head", "rm", "sed", "tr")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with nothing but what set-up reads."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A PATH with the tools of any machine, and without Python, Java and Maven."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (folder / tool).symlink_to(found)
    return folder


def add_program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run_script(
    checkout: Path, name: str, *arguments: str, path: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", f"scripts/{name}", *arguments],
        cwd=checkout,
        env={"PATH": str(path), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_setup_without_python_says_which_one_it_needs(checkout: Path, bin_folder: Path) -> None:
    result = run_script(checkout, "setup.sh", "run", path=bin_folder)

    assert result.returncode == 1
    assert "needs Python 3.11 or newer and found none." in result.stderr


def test_setup_names_the_python_that_is_too_old(checkout: Path, bin_folder: Path) -> None:
    add_program(bin_folder / "python3", '[ "$1" = -V ] && echo Python 3.9.2 || exit 1')

    result = run_script(checkout, "setup.sh", "run", path=bin_folder)

    assert result.returncode == 1
    assert "found none, python3 is Python 3.9.2." in result.stderr


def test_setup_on_debian_without_venv_names_the_package(checkout: Path, bin_folder: Path) -> None:
    add_program(bin_folder / "python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')

    result = run_script(checkout, "setup.sh", "run", path=bin_folder)

    assert result.returncode == 1
    assert "apt-get install python3-venv" in result.stderr


def fake_environment(checkout: Path) -> Path:
    """A .venv whose python notes what pip is asked for."""
    calls = checkout / "calls"
    add_program(
        checkout / ".venv" / "bin" / "python", f'[ "$1" = -m ] && echo "$@" >> {calls} || exit 0'
    )
    return calls


def test_setup_installs_once_and_again_when_the_project_file_changes(
    checkout: Path, bin_folder: Path
) -> None:
    calls = fake_environment(checkout)

    first = run_script(checkout, "setup.sh", "run", path=bin_folder)
    started = time.monotonic()
    second = run_script(checkout, "setup.sh", "run", path=bin_folder)
    seconds = time.monotonic() - started

    assert "installing riverrun with its run dependencies" in first.stdout
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert seconds < 2
    assert len(calls.read_text().splitlines()) == 1

    with (checkout / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    run_script(checkout, "setup.sh", "run", path=bin_folder)
    assert len(calls.read_text().splitlines()) == 2


def test_setup_for_development_serves_the_demo_too(checkout: Path, bin_folder: Path) -> None:
    calls = fake_environment(checkout)

    run_script(checkout, "setup.sh", "dev", path=bin_folder)
    run_script(checkout, "setup.sh", "run", path=bin_folder)

    assert [line.split()[-1] for line in calls.read_text().splitlines()] == [".[dev,codecs]"]


def test_setup_that_failed_is_tried_again(checkout: Path, bin_folder: Path) -> None:
    add_program(checkout / ".venv" / "bin" / "python", '[ "$1" = -c ]')

    for _ in range(2):
        result = run_script(checkout, "setup.sh", "run", path=bin_folder)
        assert result.returncode == 1
        assert "the installation failed" in result.stderr


def test_missing_java_and_maven_are_named_with_the_way_out(
    checkout: Path, bin_folder: Path
) -> None:
    result = run_script(checkout, "check_kafka_tools.sh", path=bin_folder)

    assert result.returncode == 1
    assert "this machine lacks: java mvn" in result.stderr
    assert "apt-get install openjdk-17-jdk-headless maven" in result.stderr
    assert "RIVERRUN_TEST_KAFKA=host:port" in result.stderr


def test_java_too_old_for_kafka_is_named(checkout: Path, bin_folder: Path) -> None:
    add_program(bin_folder / "java", "echo 'openjdk version \"11.0.22\" 2024-01-16' >&2")
    add_program(bin_folder / "mvn", "exit 0")

    result = run_script(checkout, "check_kafka_tools.sh", path=bin_folder)

    assert result.returncode == 1
    assert "java>=17 (found 11)" in result.stderr


def test_a_broker_of_ones_own_needs_no_java(checkout: Path, bin_folder: Path) -> None:
    result = run_script(
        checkout, "check_kafka_tools.sh", path=bin_folder, RIVERRUN_TEST_KAFKA="localhost:9092"
    )

    assert result.returncode == 0


def test_make_alone_lists_every_target_for_people() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)) - {"setup-run"}

    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    listed = subprocess.run(
        ["make"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=True
    ).stdout

    assert targets == {"help", "setup", "demo", "test", "check", "fmt", "bench", "kafka", "clean"}
    assert {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} == targets
