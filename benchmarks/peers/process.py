"""An engine as a tree of processes: started, watched and killed from outside."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.engine import EngineFailedError
from benchmarks.machine import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1024 / 1024
LOG_LINES = 30


def parse_stat(text: str) -> tuple[int, int, int, int]:
    """Return parent, session, ticks of CPU and resident pages from a ``/proc/PID/stat``.

    The ticks are those of the process and of its children that have ended.
    """
    # The name, in parentheses, may hold spaces: count from behind it.
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[3]), sum(map(int, fields[11:15])), int(fields[21])


def members(table: Mapping[int, tuple[int, int]], root: int) -> set[int]:
    """Return the processes of a tree, given ``(parent, session)`` of each process.

    Those are in it that descend from the root, and those of its session whose parent has ended.
    """
    found = {pid for pid, (_, session) in table.items() if session == root or pid == root}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in table.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


class ProcessTree:
    """A command, all processes that come of it, and a folder of theirs. Gone after ``with``.

    Args:
        name: What errors call it.
        command: What to start, as leader of a session of its own.
        variables: Environment variables beside those of this process.
    """

    def __init__(self, name: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="riverrun-peer-"))
        self._name = name
        self._peak_mb = 0.0
        state = self.home / "state"
        state.mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "BENCH_STATE": str(state),
            **variables,
        }
        with (self.home / "log").open("ab") as log:
            self.started_s = time.monotonic()
            self._process = subprocess.Popen(
                command,
                # Not the repository: its folders would hide packages of the engines.
                cwd=self.home,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pid in self._members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def usage(self) -> Usage:
        """Return the CPU of all processes so far, and the most memory that was seen."""
        ticks, pages = 0, 0
        for pid in self._members():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                _, _, own_ticks, own_pages = parse_stat(_stat(pid))
                ticks, pages = ticks + own_ticks, pages + own_pages
        self._peak_mb = max(self._peak_mb, pages * _PAGE_MB)
        return Usage(ticks / _TICKS_PER_S, self._peak_mb)

    def exit_code(self) -> int | None:
        """Return how the first process has ended, None as long as it runs.

        It stays there as a zombie, so that its CPU can still be read.
        """
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, self._process.pid, options)
        return None if ended is None else ended.si_status

    def failed(self, what: str) -> EngineFailedError:
        """Return the error that says what happened, with the last lines of the log."""
        lines = (self.home / "log").read_text(errors="replace").splitlines()[-LOG_LINES:]
        return EngineFailedError("\n".join([f"{self._name} {what}", *lines]))

    def _members(self) -> set[int]:
        table: dict[int, tuple[int, int]] = {}
        for pid in _pids():
            with contextlib.suppress(OSError):
                parent, session, _, _ = parse_stat(_stat(pid))
                table[pid] = (parent, session)
        return members(table, self._process.pid)


def _pids() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text()
