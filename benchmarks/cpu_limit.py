"""Limits the processor time of processes, as a container's limit does: by a control group.

Needs the right to make control groups, which root has as a rule, in either of their versions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

PERIOD_US = 10_000
"""Short, so that a process which has used up its part waits milliseconds and no longer."""

_numbers = itertools.count(1)


class NoLimitError(Exception):
    """Processor time cannot be limited here; the message says why."""


class CpuLimit:
    """A control group with so much processor time. Gone after ``with``, its processes must be too.

    Args:
        cores: How much, 0.5 being half of one core.

    Raises:
        NoLimitError: If the machine has no control groups, or none that may be made.
    """

    def __init__(self, cores: float) -> None:
        self._quota_us = int(cores * PERIOD_US)
        self._group = _root() / f"riverrun-bench-{os.getpid()}-{next(_numbers)}"

    def __enter__(self) -> Self:
        try:
            self._group.mkdir()
            if (self._group / "cpu.max").exists():
                self._write("cpu.max", f"{self._quota_us} {PERIOD_US}")
            else:
                self._write("cpu.cfs_period_us", str(PERIOD_US))
                self._write("cpu.cfs_quota_us", str(self._quota_us))
        except OSError as error:
            raise NoLimitError(f"cannot make a control group: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # With a process still in it the group stays, which harms nobody.
        with contextlib.suppress(OSError):
            self._group.rmdir()

    def add(self, pid: int) -> None:
        """Limit a process from here on, with all its threads."""
        self._write("cgroup.procs", str(pid))

    def _write(self, name: str, text: str) -> None:
        (self._group / name).write_text(text)


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
