"""Worker processes that a test starts, kills, stops and holds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent.parent
TOPOLOGY = "tests.integration.topologies:two_step"
SESSION_TIMEOUT_S = 3.0
STOP_DEADLINE_S = 60.0
TAIL_LINES = 40
LIFE_MARK = "--- life "

_ASSIGNMENT = re.compile(r"generation \d+: tasks (.*)")
_TASK = re.compile(r"'(\w+)-(\d+)'")

Task = tuple[str, int]
"""Subtopology and partition."""


@dataclass
class Slot:
    """A place for a worker: its state directory and its log outlive the processes in it."""

    number: int
    state: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    started_s: float = 0.0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_s

    def text(self) -> str:
        """Return all that its processes have written."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def present_life(self) -> str:
        """Return what the present process has written."""
        return self.text().rpartition(LIFE_MARK)[2]

    def tasks(self) -> list[Task]:
        """Return the tasks of the newest assignment of the present process, by its log."""
        found = _ASSIGNMENT.findall(self.present_life())
        named = _TASK.findall(found[-1]) if found else []
        return [(subtopology, int(partition)) for subtopology, partition in named]


@dataclass
class Workers:
    """Workers of one job, each in a slot of its own. All processes end with the context."""

    job: str
    broker: str
    home: Path
    snapshots: str
    environment: Mapping[str, str]
    options: tuple[str, ...] = ()
    slots: list[Slot] = field(default_factory=list)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.send_signal(signal.SIGCONT)
                slot.process.kill()
                slot.process.wait(STOP_DEADLINE_S)
        if error is not None:
            error.add_note(self.tails())

    def start(self, number: int, *, failpoints: str = "") -> Slot:
        """Start a process in a slot that has none; with ``failpoints``, it kills itself there."""
        while len(self.slots) <= number:
            name = f"worker-{len(self.slots)}"
            self.slots.append(Slot(len(self.slots), self.home / name, self.home / f"{name}.log"))
        slot = self.slots[number]
        assert not slot.running
        environment = {
            **os.environ,
            **self.environment,
            "RIVERRUN_TEST_JOB": self.job,
            "RIVERRUN_FAILPOINTS": failpoints,
        }
        slot.lives += 1
        with slot.log.open("ab") as log:
            log.write(f"{LIFE_MARK}{slot.lives} {failpoints}\n".encode())
            log.flush()
            slot.process = subprocess.Popen(
                self._command(slot),
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        slot.started_s = time.monotonic()
        return slot

    def _command(self, slot: Slot) -> list[str]:
        options = {
            "--broker": f"kafka://{self.broker}",
            "--state-dir": str(slot.state),
            "--snapshots": self.snapshots,
            "--snapshot-interval": "2s",
            "--commit-interval": "100ms",
            "--session-timeout": f"{SESSION_TIMEOUT_S:.0f}s",
        }
        command = [sys.executable, "-m", "riverrun", "worker", TOPOLOGY, *self.options]
        return command + [word for option in options.items() for word in option]

    def kill(self, number: int) -> None:
        """SIGKILL, and wait until it is gone. Fails if it had ended by itself."""
        process = self._process(number)
        code = process.poll()
        assert code is None, f"worker {number} had ended by itself, exit code {code}"
        process.kill()
        process.wait(STOP_DEADLINE_S)

    def pause(self, number: int) -> None:
        """SIGSTOP: it stands still and does not know it."""
        self._process(number).send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """SIGCONT."""
        self._process(number).send_signal(signal.SIGCONT)

    def ask_to_stop(self, number: int) -> None:
        """SIGTERM, without waiting."""
        self._process(number).terminate()

    def stop(self, number: int) -> int:
        """SIGTERM, and wait for the end; return the exit code."""
        self.ask_to_stop(number)
        return self._process(number).wait(STOP_DEADLINE_S)

    def stop_all(self) -> list[int]:
        """SIGTERM to all that run; return their exit codes."""
        running = [slot.number for slot in self.slots if slot.running]
        for number in running:
            self.ask_to_stop(number)
        return [self._process(number).wait(STOP_DEADLINE_S) for number in running]

    def check_alive(self) -> None:
        """Fail if a worker has ended that nobody has killed."""
        for slot in self.slots:
            code = slot.process.poll() if slot.process is not None else None
            # A process that was killed or stopped on purpose is replaced or taken out by the test.
            if code not in (None, 0, -signal.SIGKILL):
                raise AssertionError(f"worker {slot.number} ended by itself, exit code {code}")

    def tails(self) -> str:
        """Return the last lines of each worker's log."""
        parts: list[str] = []
        for slot in self.slots:
            lines = slot.text().splitlines()[-TAIL_LINES:]
            parts += [f"=== worker {slot.number}, life {slot.lives} ({slot.log})", *lines]
        return "\n".join(parts)

    def _process(self, number: int) -> subprocess.Popen[bytes]:
        process = self.slots[number].process
        assert process is not None
        return process


class Deadline:
    """Raises when it is over; for loops that wait."""

    def __init__(self, seconds: float, what: str) -> None:
        self._end_s = time.monotonic() + seconds
        self._seconds = seconds
        self._what = what

    def check(self, state: object = "") -> None:
        """Raise if the time is over, telling ``state``."""
        if time.monotonic() > self._end_s:
            raise TimeoutError(f"{self._what}: not within {self._seconds:.0f} s; {state}")
