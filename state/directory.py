"""The local state directory of one worker process.

PATH/lock                                   held while the worker lives; says who holds it
PATH/instance_id                            who this worker is, over restarts
PATH/tasks/JOB/SUBTOPOLOGY-PARTITION/       one store each
PATH/trash/                                 on its way out
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import UUID, uuid4

from .errors import StateDirectoryFullError, StateDirectoryInUseError, StateError
from .files import sync_directory, write_durably

if TYPE_CHECKING:
    from types import TracebackType

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_TASK_DIRECTORY = re.compile(r"(?P<subtopology>[A-Za-z0-9_][A-Za-z0-9._-]*)-(?P<partition>[0-9]+)")

SPACE_MIN_BYTES = 256 * 1024 * 1024
"""Default of ``check_space``: room for a flush and a compaction of a modest store."""


@dataclass(frozen=True, slots=True)
class HeldTask:
    """A task whose state is in the directory, whether or not it runs here now."""

    job: str
    subtopology: str
    partition: int
    path: Path
    size_bytes: int


class StateDirectory:
    """Opens ``path``, making it if missing, and holds its lock until ``close``.

    Raises:
        StateDirectoryInUseError: Another live process holds it.
        StateDirectoryFullError: There is no space for even the lock file.
        StateError: It cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self._tasks = self.path / "tasks"
        self._trash = self.path / "trash"
        try:
            for directory in (self.path, self._tasks, self._trash):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made by somebody else's umask, perhaps: state is records, which may be personal.
            self.path.chmod(0o700)
            self._lock_fd: int | None = _lock(self.path / "lock")
            try:
                self.instance_id = _instance_id(self.path / "instance_id")
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise _named(error, self.path) from error
        # What a crash left half deleted.
        shutil.rmtree(self._trash, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def task_path(self, job: str, subtopology: str, partition: int) -> Path:
        """Return where the task's store is or goes; its parent exists when this returns."""
        for name in (job, subtopology):
            if not _NAME.fullmatch(name):
                raise StateError(
                    f"{name!r} cannot be part of a path; use letters, digits, '.', '_' and '-'"
                )
        if partition < 0:
            raise StateError(f"partition {partition} is negative")
        parent = self._tasks / job
        try:
            parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _named(error, parent) from error
        return parent / f"{subtopology}-{partition}"

    def discard(self, store: Path) -> None:
        """Remove a closed store, if it is there. A crash midway leaves nothing that looks whole.

        Slow for a large store: call it on a thread.
        """
        if not store.absolute().is_relative_to(self._tasks):
            raise StateError(f"{store} is not in {self._tasks}; refusing to delete it")
        aside = self._trash / uuid4().hex
        try:
            self._trash.mkdir(mode=0o700, exist_ok=True)
            store.rename(aside)
            sync_directory(store.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _named(error, store) from error
        shutil.rmtree(aside, ignore_errors=True)

    def tasks(self) -> list[HeldTask]:
        """Return the tasks that have state here, in order, with what they take on disk."""
        held: list[HeldTask] = []
        for job in sorted(self._tasks.iterdir()):
            if not job.is_dir():
                continue
            for store in sorted(job.iterdir()):
                match = _TASK_DIRECTORY.fullmatch(store.name)
                if match is None or not store.is_dir():
                    continue
                held.append(
                    HeldTask(
                        job=job.name,
                        subtopology=match["subtopology"],
                        partition=int(match["partition"]),
                        path=store,
                        size_bytes=directory_bytes(store),
                    )
                )
        return held

    def free_bytes(self) -> int:
        """Return the space left for us on the file system."""
        return shutil.disk_usage(self.path).free

    def check_space(self, needed_bytes: int = SPACE_MIN_BYTES) -> None:
        """Do nothing if there are ``needed_bytes`` left.

        Raises:
            StateDirectoryFullError: There are not.
        """
        free = self.free_bytes()
        if free < needed_bytes:
            raise StateDirectoryFullError(
                f"state directory {self.path} has {free} bytes free, {needed_bytes} are needed. "
                "Free or add disk space; nothing committed is lost."
            )

    def close(self) -> None:
        """Release the lock; harmless if repeated."""
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)


def directory_bytes(path: Path) -> int:
    """Return the size of the files below ``path``; files that vanish meanwhile do not count."""
    size = 0
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                size += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return size


def _lock(path: Path) -> int:
    """Return a descriptor that holds the lock at ``path``, with our pid written into it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StateDirectoryInUseError(
            f"state directory {path.parent} is in use by process {holder}. Stop that worker, or "
            "give this one another state directory."
        ) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _instance_id(path: Path) -> str:
    """Return the id in the file at ``path``, which is made if missing."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        text = str(uuid4())
        write_durably(path, text.encode() + b"\n")
        return text
    try:
        return str(UUID(text))
    except ValueError as error:
        raise StateError(
            f"{path} does not hold an instance id but {text[:40]!r}. Delete the file; the worker "
            "then joins as a new one."
        ) from error


def _named(error: OSError, path: Path) -> StateError:
    """Return the error of ours that ``error`` at ``path`` means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StateDirectoryFullError(
            f"no space left for state directory {path}: {error}. Free or add disk space."
        )
    return StateError(f"cannot use state directory {path}: {error}")
