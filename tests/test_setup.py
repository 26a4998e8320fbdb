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
# What the scripts call besides Python, Java, Maven and cargo.
TOOLS = ("sh", "cat", "cksum", "cp", "dirname", "find", "head", "mv", "rm", "sed", "tr", "uname")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with nothing but what set-up reads."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "kernel" / "src").mkdir(parents=True)
    shutil.copy(ROOT / "kernel" / "Cargo.toml", folder / "kernel")
    (folder / "src" / "riverrun").mkdir(parents=True)
    return folder


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A PATH with the tools of any machine, and without Python, Java, Maven and cargo."""
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


def kernel_in_place(checkout: Path) -> Path:
    return checkout / "src" / "riverrun" / "_kernel.abi3.so"


def add_cargo(bin_folder: Path, version: str, body: str = "exit 1") -> None:
    tell_version = f'[ "$1" = --version ] && echo "cargo {version}" && exit'
    add_program(bin_folder / "cargo", f"{tell_version}\n{body}")


CARGO_BUILDS = """
mkdir -p "$CARGO_TARGET_DIR/release"
echo "$@" > "$CARGO_TARGET_DIR/release/libriverrun_kernel.so"
"""


def test_setup_builds_the_kernel_once_and_again_when_its_sources_change(
    checkout: Path, bin_folder: Path
) -> None:
    fake_environment(checkout)
    (bin_folder / "mkdir").symlink_to(shutil.which("mkdir") or "")
    add_cargo(bin_folder, "1.95.0 (f2d3ce0bd 2026-03-21)", CARGO_BUILDS)
    kernel = kernel_in_place(checkout)

    first = run_script(checkout, "setup.sh", "dev", path=bin_folder)
    built = kernel.read_text().split()
    kernel.write_text("as it was")
    second = run_script(checkout, "setup.sh", "dev", path=bin_folder)

    assert "building the native kernel" in first.stdout
    assert built[:2] == ["rustc", "--release"]
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert kernel.read_text() == "as it was"

    source = checkout / "kernel" / "src" / "lib.rs"
    source.write_text("// changed")
    os.utime(source, (kernel.stat().st_mtime + 10,) * 2)
    run_script(checkout, "setup.sh", "dev", path=bin_folder)
    assert kernel.read_text().split() == built


def test_setup_leaves_the_kernel_to_cargo_not_to_pip_and_the_demo_does_without(
    checkout: Path, bin_folder: Path
) -> None:
    environment = checkout / ".venv" / "bin" / "python"
    add_program(environment, f'[ "$1" = -m ] && echo "$CARGO" >> {checkout}/calls || exit 0')
    add_cargo(bin_folder, "1.95.0", CARGO_BUILDS)

    result = run_script(checkout, "setup.sh", "run", path=bin_folder)

    assert result.returncode == 0
    assert (checkout / "calls").read_text() == "false\n"
    assert not kernel_in_place(checkout).exists()


def test_setup_without_rust_goes_on_and_says_so(checkout: Path, bin_folder: Path) -> None:
    fake_environment(checkout)
    kernel_in_place(checkout).write_text("left behind")
    os.utime(kernel_in_place(checkout), (0, 0))

    result = run_script(checkout, "setup.sh", "dev", path=bin_folder)

    assert result.returncode == 0
    assert "no native kernel: there is no Rust compiler (cargo). All works without" in result.stdout
    assert not kernel_in_place(checkout).exists(), "it was built from other sources"


def test_rust_that_is_too_old_counts_as_none(checkout: Path, bin_folder: Path) -> None:
    add_cargo(bin_folder, "1.63.0")

    usable = run_script(checkout, "kernel.sh", "usable", path=bin_folder)
    build = run_script(checkout, "kernel.sh", "build", path=bin_folder)

    assert usable.returncode == 1
    assert "no native kernel: cargo 1.63 is too old, it needs 1.88" in usable.stdout
    assert build.returncode == 1
    assert "cargo 1.63 is too old" in build.stderr


def test_setup_goes_on_without_a_kernel_that_does_not_compile(
    checkout: Path, bin_folder: Path
) -> None:
    fake_environment(checkout)
    add_cargo(bin_folder, "1.95.0", "echo 'error[E0425]' >&2; exit 101")

    setup = run_script(checkout, "setup.sh", "dev", path=bin_folder)
    build = run_script(checkout, "kernel.sh", "build", path=bin_folder)

    assert setup.returncode == 0
    assert "error[E0425]" in setup.stderr
    assert "the native kernel cannot be built, the reason is above" in setup.stderr
    assert build.returncode == 1


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_sources_of_the_kernel_go_unchecked_without_rust_but_not_in_ci(
    checkout: Path, bin_folder: Path, ci: str, code: int
) -> None:
    result = run_script(checkout, "kernel.sh", "check", path=bin_folder, CI=ci)

    assert result.returncode == code
    assert "the sources of the kernel are not looked at" in result.stdout


PYTEST_FAILS_ON = """
case "$*" in
*-c*) echo {reason} ;;
*) echo "$RIVERRUN_PLANE $*" >> {calls}; [ "$RIVERRUN_PLANE" != {failing} ] ;;
esac
"""


def run_tests(
    checkout: Path, bin_folder: Path, *, failing: str = "none", reason: str = "", plane: str = ""
) -> tuple[int, list[str], str]:
    calls = checkout / "calls"
    add_program(
        checkout / ".venv" / "bin" / "python",
        PYTEST_FAILS_ON.format(calls=calls, failing=failing, reason=reason),
    )
    result = run_script(checkout, "run_tests.sh", "-k", "one", path=bin_folder, PLANE=plane)
    return result.returncode, calls.read_text().splitlines(), result.stdout + result.stderr


def test_tests_run_on_both_planes(checkout: Path, bin_folder: Path) -> None:
    code, calls, _ = run_tests(checkout, bin_folder)

    assert code == 0
    assert calls == ["kernel -m pytest -k one", "reference -m pytest -k one"]


@pytest.mark.parametrize("failing", ["kernel", "reference"])
def test_a_failure_on_one_plane_is_one_and_the_other_is_tested_still(
    checkout: Path, bin_folder: Path, failing: str
) -> None:
    code, calls, said = run_tests(checkout, bin_folder, failing=failing)

    assert code == 1
    assert len(calls) == 2
    assert f"riverrun: tests failed: {failing}" in said


def test_tests_run_on_the_plane_that_is_named_or_there(checkout: Path, bin_folder: Path) -> None:
    assert run_tests(checkout, bin_folder, plane="kernel")[1] == ["kernel -m pytest -k one"]
    (checkout / "calls").unlink()
    _, calls, said = run_tests(checkout, bin_folder, reason="not-built")

    assert calls == ["reference -m pytest -k one"]
    assert "no native kernel, so the tests run on the reference plane alone: not-built" in said


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

    assert targets == {
        "help", "setup", "demo", "test", "check", "fmt", "kernel", "fuzz", "bench", "kafka", "clean"
    }  # fmt: skip
    assert {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} == targets
