"""The import package is made of links; nothing may be loaded a second time under a bare name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("connectors", "engine", "operators", "state")

# In a process of its own: only there is sys.modules the work of riverrun alone. The folders are
# importable by their bare names on purpose, so that a stray `import state` is seen, not an error.
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
import riverrun
names = sorted(
    module.name
    for module in pkgutil.walk_packages(riverrun.__path__, "riverrun.")
    if not module.name.endswith("__main__")
)
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # What sits on native code, where there is none.
        if error.name != "riverrun._kernel" or not name.startswith("riverrun.engine.kernel."):
            raise
print(json.dumps({"imported": names, "loaded": sorted(sys.modules)}))
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_a_relative_link_to_the_folder_at_the_top(package: str) -> None:
    link = ROOT / "src" / "riverrun" / package

    assert link.is_symlink(), f"{link} must be a link (on Windows: git config core.symlinks true)"
    assert os.readlink(link) == f"../../{package}"
    assert link.resolve() == ROOT / package
    assert (ROOT / package / "__init__.py").is_file()


def test_types_are_checked_behind_the_links_too() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    assert {f"src/riverrun/{package}" for package in PACKAGES} <= set(settings["include"])


def test_every_module_loads_and_none_under_a_bare_name() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    modules = json.loads(result.stdout)
    assert {f"riverrun.{package}" for package in PACKAGES} <= set(modules["imported"])
    bare = [name for name in modules["loaded"] if name.split(".")[0] in PACKAGES]
    assert bare == [], "import riverrun.x, or relatively inside a package; never the bare folder"
