"""What pip gets: sdist and wheel with the linked packages in them, and a `riverrun` command.

Most of it is built without a Rust compiler in sight, which is quick, and what many users have. One
wheel is built with the kernel, from what `make setup` left behind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("connectors", "engine", "operators", "state")
KERNEL = "riverrun/_kernel.abi3.so"
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")

# setuptools calls nothing else that it would have to look for.
NO_RUST = {"PATH": str(Path(sys.executable).parent)}
# A cargo that builds the crate of the repository itself, where scripts/kernel.sh has built it
# already: of a copy it would compile everything that has its path in it again.
WARM_CARGO = f"""#!/bin/sh
for argument; do
    shift
    [ "$argument" != kernel/Cargo.toml ] || argument={ROOT}/kernel/Cargo.toml
    set -- "$@" "$argument"
done
CARGO_TARGET_DIR={ROOT}/.cache/kernel-target exec cargo "$@"
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path, timeout_s: int = 240, **env: str) -> str:
    """Run a command and return what it printed; what it says of a failure is in the error."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, links as links, as a clone would have them."""
    folder = tmp_path_factory.mktemp("checkout")
    listing = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", out)
    run(*build, cwd=checkout, **NO_RUST)
    [path] = out.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `pip install .` builds it: from the tree, through the links."""
    out = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", out)
    run(*build, cwd=checkout, **NO_RUST)
    [path] = out.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder.parent)
    # A path file of a path file is not read, so the editable riverrun of this environment stays
    # out of sight while its dependencies are seen.
    [site] = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_the_linked_packages_under_riverrun_only(wheel: Path) -> None:
    names = names_in(wheel)

    assert {f"riverrun/{package}/__init__.py" for package in PACKAGES} <= names
    assert {"riverrun/__init__.py", "riverrun/py.typed"} <= names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.startswith("riverrun-")} == {"riverrun"}


def test_wheel_holds_every_module_of_the_repository(wheel: Path, checkout: Path) -> None:
    modules = {
        f"riverrun/{path.relative_to(checkout)}"
        for package in PACKAGES
        for path in (checkout / package).rglob("*.py")
    }
    assert modules - names_in(wheel) == set(), "a folder without __init__.py?"


def test_wheel_is_for_every_python_from_3_11_and_names_its_licence(wheel: Path) -> None:
    assert wheel.name.endswith(f"-cp311-abi3-{PLATFORM}.whl")
    [metadata] = [name for name in names_in(wheel) if name.endswith(".dist-info/METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert any(name.endswith("/licenses/LICENSE") for name in names_in(wheel))


def test_sdist_holds_files_not_links_and_no_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = {member.name.split("/", 1)[-1] for member in members}

    assert {f"src/riverrun/{package}/__init__.py" for package in PACKAGES} <= names
    assert {"pyproject.toml", "LICENSE", "README.md"} <= names
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    assert [name for name in names if name.startswith(("tests/", "examples/", ".ci/"))] == []
    assert {"kernel/Cargo.toml", "kernel/src/lib.rs"} <= names
    assert [name for name in names if name.startswith(("kernel/target/", "kernel/fuzz/"))] == []
    assert [name for name in names if name.endswith(".so")] == []


def test_wheel_from_the_sdist_is_the_wheel_from_the_tree(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    pip_wheel = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    run(*pip_wheel, "--no-index", "-w", tmp_path, sdist, cwd=tmp_path, **NO_RUST)

    assert names_in(tmp_path / wheel.name) == names_in(wheel)


def test_wheel_without_rust_runs_on_the_reference_plane_and_says_why(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    assert KERNEL not in names_in(wheel)
    # Set by `make test`.
    printed = run(installed / "bin" / "riverrun", "doctor", cwd=tmp_path, RIVERRUN_PLANE="")

    assert re.search(r"^ *data plane +reference$", printed, re.MULTILINE)
    assert "not built: no Rust compiler when riverrun was installed" in printed


@pytest.mark.timeout(900)
def test_wheel_has_the_kernel_where_there_is_rust(
    checkout: Path, wheel: Path, tmp_path: Path
) -> None:
    """Where there is none, the wheel is the one without; `.ci/run` sees to it that there is."""
    usable = subprocess.run(["sh", ROOT / "scripts" / "kernel.sh", "usable"], check=False)
    cargo = tmp_path / "cargo"
    cargo.write_text(WARM_CARGO)
    cargo.chmod(0o755)
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", tmp_path / "out")
    run(*build, cwd=checkout, timeout_s=880, CARGO=str(cargo))
    [path] = (tmp_path / "out").iterdir()

    assert path.name == wheel.name
    added = {KERNEL} if usable.returncode == 0 else set[str]()
    assert names_in(path) - names_in(wheel) == added


def test_installed_riverrun_does_not_come_from_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    show = "import riverrun.engine, riverrun.state; print(riverrun.engine.__file__)"
    printed = run(installed / "bin" / "python", "-c", show, cwd=tmp_path)

    assert Path(printed.strip()).is_relative_to(installed)


def test_user_folders_of_the_same_names_do_no_harm(installed: Path, tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("mine = True\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import engine, state, operators, connectors, riverrun.engine, riverrun.operators\n"
        "assert all(m.mine for m in (engine, state, operators, connectors))\n"
    )
    run(installed / "bin" / "python", program, cwd=tmp_path)


def test_riverrun_command_is_installed_and_explains_itself(installed: Path, tmp_path: Path) -> None:
    command = run(installed / "bin" / "riverrun", "--help", cwd=tmp_path)
    module = run(installed / "bin" / "python", "-m", "riverrun", "--help", cwd=tmp_path)

    for printed in (command, module):
        assert "usage" in printed.lower()
        assert "demo" in printed
