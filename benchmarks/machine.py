"""What the machine is, and what a process has used of it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far.

    Attributes:
        cpu_s: Seconds of user and system time, all its threads together.
        peak_mb: Largest resident memory.
    """

    cpu_s: float
    peak_mb: float


def usage_of(pid: int) -> Usage:
    """Return what a process has used.

    Raises:
        FileNotFoundError: If it has ended.
    """
    # The name, in parentheses, may hold spaces: count from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
    return Usage(ticks / _TICKS_PER_S, peak_kb / 1024)


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process now.

    Raises:
        FileNotFoundError: If it has ended.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    kb = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
    return kb / 1024


def facts() -> dict[str, str]:
    """Return what figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": f"{os.cpu_count()} x {cpu}",
        "memory": f"{memory_kb / 1024 / 1024:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "polars": version("polars"),
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }
