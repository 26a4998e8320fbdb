"""Which data plane runs: the kernel where it was built for this version, else the reference plane.

The kernel is optional. pip builds it where it finds a Rust compiler and says nothing where it finds
none, so what runs is decided, and can be asked for, here.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from .cache_budget import DEFAULT_BYTES
from .errors import ConfigError
from .reference import ReferencePlane

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plane import Plane

PLANE_VARIABLE = "RIVERRUN_PLANE"
"""Environment variable that forces a plane, for all commands and tests."""

PLANES = ("kernel", "reference")
"""What it may say."""

HOW_TO_GET_THE_KERNEL = (
    "install Rust (cargo, 1.88 or newer), then `make kernel` in a checkout, or "
    "`pip install --force-reinstall --no-deps --no-cache-dir` riverrun from its sources"
)
"""For messages; the cache of pip may hold a wheel that was built without it."""


def select_plane(name: str | None = None, cached_bytes: int = DEFAULT_BYTES) -> Plane:
    """Return the plane to run on.

    Args:
        name: ``kernel`` or ``reference``. None for what ``RIVERRUN_PLANE`` says or, if that is
            not set either, the kernel if it can be used and the reference plane if not.
        cached_bytes: What all window tables of the plane may keep in memory together, of rows that
            their stores have too.

    Raises:
        ConfigError: If there is no such plane, or the kernel is wanted and cannot be used.
    """
    wanted = name or os.environ.get(PLANE_VARIABLE) or None
    if wanted is not None and wanted not in PLANES:
        source = "" if name else f"{PLANE_VARIABLE}: "
        raise ConfigError(f"{source}there is no plane {wanted!r}; choose {' or '.join(PLANES)}")
    if wanted == "reference":
        return ReferencePlane(cached_bytes)
    found = _kernel_plane()
    if not isinstance(found, str):
        return found(cached_bytes)
    if wanted == "kernel":
        raise ConfigError(
            f"the kernel plane was asked for, and there is no kernel: {found}. "
            f"To get it, {HOW_TO_GET_THE_KERNEL}"
        )
    return ReferencePlane(cached_bytes)


def why_reference() -> str | None:
    """Return why the kernel cannot be used; None if it can."""
    found = _kernel_plane()
    return found if isinstance(found, str) else None


def _kernel_plane() -> Callable[[int], Plane] | str:
    """Return what makes the kernel plane, or why there is none."""
    try:
        built_for = import_module("riverrun._kernel").VERSION
    except ModuleNotFoundError:
        return "not built: no Rust compiler when riverrun was installed, or it could not build it"
    except ImportError as error:
        return f"cannot be loaded: {error}"
    # What an earlier installation left behind stays in the folder of an editable one.
    ours = _package_version()
    if ours is not None and built_for != ours:
        return f"built for version {built_for}, and this is riverrun {ours}"
    try:
        # Not at the top: it loads native code, which may be missing.
        from .kernel.plane import KernelPlane
    except ImportError as error:
        return f"built from other sources than this riverrun: {error}"
    return KernelPlane


def _package_version() -> str | None:
    """Return the version; None in sources that are not installed, with nothing to compare to."""
    try:
        return version("riverrun")
    except PackageNotFoundError:
        return None
