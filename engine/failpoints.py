"""Named places where a test may kill the process; a no-op unless asked for.

``RIVERRUN_FAILPOINTS=before_commit:3,after_restore:1`` kills the process with SIGKILL at the third
pass of ``before_commit`` or the first of ``after_restore``. Production workers are built without.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from .errors import ConfigError

FAILPOINTS = (
    "after_open_writer",
    "after_restore",
    "before_process",
    "after_process",
    "after_output_append",
    "before_commit",
    "after_delta_append",
    "after_commit",
    "after_store_apply",
    "after_checkpoint",
    "after_snapshot_upload",
    "before_snapshot_collect",
    "before_close",
)
"""Every place, in the order of a task's life."""

Failpoint = Callable[[str], None]


def no_failpoints(name: str) -> None:
    """Pass every place."""
    del name


def failpoints_from(environment: Mapping[str, str]) -> Failpoint:
    """Return what to call at each place, by ``RIVERRUN_FAILPOINTS``.

    Raises:
        ConfigError: If the setting names a place that does not exist.
    """
    setting = environment.get("RIVERRUN_FAILPOINTS", "")
    if not setting:
        return no_failpoints
    remaining: dict[str, int] = {}
    for each in setting.split(","):
        name, _, count = each.partition(":")
        if name not in FAILPOINTS:
            raise ConfigError(f"RIVERRUN_FAILPOINTS: no place {name!r}; there are {FAILPOINTS}")
        remaining[name] = int(count or "1")

    def hit(name: str) -> None:
        if name not in remaining:
            return
        remaining[name] -= 1
        if remaining[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return hit
