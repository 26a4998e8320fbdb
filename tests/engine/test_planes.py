"""Which plane runs, and what is said where the kernel cannot."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from riverrun.engine.errors import ConfigError
from riverrun.engine.planes import PLANE_VARIABLE, select_plane, why_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    Force = Callable[[str, pytest.MonkeyPatch], str]

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "riverrun._kernel"
KERNEL_PLANE = "riverrun.engine.kernel.plane"

NOT_BUILT = "not built: no Rust compiler when riverrun was installed, or it could not build it"


@pytest.fixture(autouse=True)
def nothing_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLANE_VARIABLE, raising=False)


def forget_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what sits on the kernel be imported anew, on what the test puts into its place."""
    for name in list(sys.modules):
        if name == KERNEL or name.startswith("riverrun.engine.kernel"):
            monkeypatch.delitem(sys.modules, name)
    # `from riverrun import _kernel` would find it there.
    monkeypatch.delattr("riverrun._kernel", raising=False)


def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_kernel(monkeypatch)
    monkeypatch.setitem(sys.modules, KERNEL, None)


def kernel_of(monkeypatch: pytest.MonkeyPatch, built_for: str) -> None:
    forget_kernel(monkeypatch)
    module = ModuleType(KERNEL)
    module.VERSION = built_for  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, KERNEL, module)


class FakeKernelPlane:
    name = "kernel"

    def __init__(self, cached_bytes: int) -> None:
        self.cached_bytes = cached_bytes


def kernel_plane_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that fits, also where none was built."""
    kernel_of(monkeypatch, version("riverrun"))
    module = ModuleType(KERNEL_PLANE)
    module.KernelPlane = FakeKernelPlane  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, KERNEL_PLANE, module)


def test_a_kernel_built_for_this_version_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_plane_in_place(monkeypatch)

    assert select_plane().name == "kernel"
    assert select_plane("kernel").name == "kernel"
    assert why_reference() is None


def test_without_a_kernel_the_reference_plane_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    no_kernel(monkeypatch)

    assert select_plane().name == "reference"
    assert why_reference() == NOT_BUILT


def test_a_kernel_left_behind_by_another_version_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel_of(monkeypatch, "0.0.1")

    assert select_plane().name == "reference"
    ours = version("riverrun")
    assert why_reference() == f"built for version 0.0.1, and this is riverrun {ours}"


def test_a_kernel_that_lacks_a_part_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Development: the version is the same, the sources went on.
    kernel_of(monkeypatch, version("riverrun"))
    monkeypatch.setitem(sys.modules, KERNEL_PLANE, None)

    assert select_plane().name == "reference"
    reason = why_reference()
    assert reason is not None
    assert reason.startswith("built from other sources than this riverrun: ")


def test_a_kernel_that_does_not_load_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> ModuleType:
        raise ImportError("GLIBC_2.99 not found", name=name)

    monkeypatch.setattr("riverrun.engine.planes.import_module", refuse)

    assert select_plane().name == "reference"
    assert why_reference() == "cannot be loaded: GLIBC_2.99 not found"


def by_argument(name: str, _: pytest.MonkeyPatch) -> str:
    return select_plane(name).name


def by_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(PLANE_VARIABLE, name)
    return select_plane().name


@pytest.mark.parametrize("force", [by_argument, by_variable])
def test_the_reference_plane_can_be_forced(force: Force, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_plane_in_place(monkeypatch)

    assert force("reference", monkeypatch) == "reference"


@pytest.mark.parametrize("force", [by_argument, by_variable])
def test_a_kernel_that_is_forced_and_missing_is_an_error(
    force: Force, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_kernel(monkeypatch)

    with pytest.raises(ConfigError) as raised:
        force("kernel", monkeypatch)
    assert NOT_BUILT in str(raised.value)
    assert "install Rust" in str(raised.value)


def test_an_unknown_plane_is_an_error_that_names_the_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"^there is no plane 'fast'; choose kernel or reference"):
        select_plane("fast")
    monkeypatch.setenv(PLANE_VARIABLE, "fast")
    with pytest.raises(ConfigError, match=r"^RIVERRUN_PLANE: there is no plane 'fast'"):
        select_plane()


def test_an_argument_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLANE_VARIABLE, "kernel")

    assert select_plane("reference").name == "reference"


def test_kernel_and_package_have_one_version() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    crate = tomllib.loads((ROOT / "kernel" / "Cargo.toml").read_text())["package"]

    assert crate["version"] == package["version"]
