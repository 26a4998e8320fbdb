"""Limits the processor time of processes, as a container's limit does: by a control group.

Needs the right to make control groups, which root has as a rule, in either of their versions.
"""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PERIOD_US = 10_000
"""Short, so that a process which has used up its part waits milliseconds and no longer."""

_numbers = itertools.count(1)


class NoLimitError(Exception):
    """Processor time cannot be limited here; the message says why."""


@contextmanager
def cpu_limit(cores: float) -> Iterator[Callable[[int], object]]:
    """Make a control group with so much processor time; give what puts a process into it.

    The group is gone after ``with``, and its processes, with all their threads, must be before.

    Args:
        cores: How much, 0.5 being half of one core.

    Raises:
        NoLimitError: If the machine has no control groups, or none that may be made.
    """
    group = _root() / f"riverrun-bench-{os.getpid()}-{next(_numbers)}"
    quota_us = int(cores * PERIOD_US)
    try:
        group.mkdir()
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
    except OSError as error:
        raise NoLimitError(f"cannot make a control group: {error}") from error
    try:
        yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    finally:
        # With a process still in it the group stays, which harms nobody.
        with suppress(OSError):
            group.rmdir()


def _root() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted_at, kind, options = line.split()[:4]
        root = Path(mounted_at)
        if kind == "cgroup" and "cpu" in options.split(","):
            return root
        enabled = root / "cgroup.subtree_control"
        if kind == "cgroup2" and enabled.exists() and "cpu" in enabled.read_text().split():
            return root
    raise NoLimitError("there is no control group of processor time")
