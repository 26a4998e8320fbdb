"""The SQLite file of an embedded log: opening, format, transactions and what its errors mean.

Durability: write-ahead log with ``synchronous=NORMAL``. A commit is in the operating system's
hands when it returns and survives the death of every process (kill -9). Only a power cut or a
crash of the machine may take the latest commits, and then whole ones from the end: the file is
never left torn. ``fsync`` happens at checkpoints of the write-ahead log, not at each commit.

Needs a local file system: the processes share memory beside the file.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from riverrun.engine.errors import (
    CorruptBatchError,
    LogError,
    LogUnavailableError,
    OutcomeUnknownError,
    WriteError,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

FILE_NAME = "log.sqlite"
FORMAT_VERSION = 1
"""Raised with every change of the schema that older code cannot work with."""

APPLICATION_ID = 0x52495652
"""``RIVR``, in the header of the file: tells our files from those of others."""

BUSY_TIMEOUT_MS = 250
"""How long SQLite itself waits for another process's lock before we count an attempt."""

PAGE_BYTES = 8_192
"""Batches are large: double SQLite's default wrote and read them a third faster."""

CHECKPOINT_PAGES = 2_000
"""16 MB of write-ahead log between checkpoints: each costs an fsync, and reads slow down."""

WAL_BYTES_KEPT = 64 << 20
"""To what the write-ahead log is cut when a slow reader has let it grow."""

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PRIMARY_CODE = 0xFF  # the low byte of an extended result code

_SCHEMA = """
CREATE TABLE topics (
    name TEXT PRIMARY KEY,
    partitions INTEGER NOT NULL,
    retention_ms INTEGER NOT NULL,
    max_batch_bytes INTEGER NOT NULL
);
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL REFERENCES topics (name),
    partition INTEGER NOT NULL,
    start_offset INTEGER NOT NULL DEFAULT 0,
    end_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, partition)
);
CREATE TABLE batches (
    partition_id INTEGER NOT NULL REFERENCES partitions (id),
    base_offset INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    max_timestamp_ms INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX batches_by_offset ON batches (partition_id, next_offset);
CREATE TABLE writers (
    id INTEGER PRIMARY KEY,
    writer_id TEXT NOT NULL UNIQUE,
    epoch INTEGER NOT NULL
);
CREATE TABLE groups (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    state BLOB NOT NULL
);
CREATE TABLE group_offsets (
    group_name TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID;
"""


class BusyError(LogUnavailableError):
    """Another process kept the write lock for the whole time allowed; nothing was done."""


def code_of(error: sqlite3.Error) -> int:
    """Return the primary result code of SQLite, 0 if the error is not from there."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE


def explain(error: sqlite3.Error, path: Path) -> LogError:
    """Return the error of the log port that tells what ``error`` means at ``path``."""
    match code_of(error):
        case sqlite3.SQLITE_FULL:
            return WriteError(f"disk full: free some space for the log at {path}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return BusyError(f"another process holds the lock of the log at {path}")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return LogUnavailableError(
                f"the log at {path} cannot be written: give this user write access to the"
                f" directory and its files ({error})"
            )
        case sqlite3.SQLITE_CORRUPT:
            return CorruptBatchError(f"the log at {path} is damaged: {error}")
        case sqlite3.SQLITE_NOTADB:
            return LogUnavailableError(f"{path} is not a log directory: {FILE_NAME} is foreign")
        case _:
            return LogUnavailableError(f"the log at {path} failed: {error}")


class Database:
    """One connection, used by one thread only.

    Args:
        path: Directory of the log; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection.

        Raises:
            LogUnavailableError: It is not open.
        """
        if self._connection is None:
            raise LogUnavailableError(f"the log at {self.path} is not open")
        return self._connection

    def open(self, timeout_ms: int) -> None:
        """Open the file, creating directory and tables where they are missing.

        Raises:
            LogUnavailableError: The path cannot be used, or holds something else.
        """
        if self._connection is not None:
            return
        self._prepare_directory()
        try:
            self._connection = sqlite3.connect(
                self.path / FILE_NAME,
                timeout=BUSY_TIMEOUT_MS / 1000,
                isolation_level=None,
                check_same_thread=True,
            )
            self._set_up(timeout_ms)
        except sqlite3.Error as error:
            self.close()
            raise LogUnavailableError(str(explain(error, self.path))) from error
        except LogError:
            self.close()
            raise

    def _prepare_directory(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if (self.path / FILE_NAME).exists():
                return
            # Files of the file system's own (lost+found) and hidden ones do no harm.
            strangers = sorted(
                entry.name
                for entry in self.path.iterdir()
                if not entry.name.startswith((".", FILE_NAME)) and entry.name != "lost+found"
            )
        except OSError as error:
            raise LogUnavailableError(
                f"cannot use {self.path} as a log directory: {error.strerror}"
            ) from error
        # Another process may have created the file since we looked.
        if strangers and not (self.path / FILE_NAME).exists():
            raise LogUnavailableError(
                f"{self.path} is not a log directory: it holds {strangers[0]!r} but no"
                f" {FILE_NAME}; name an empty or a new directory"
            )

    def _set_up(self, timeout_ms: int) -> None:
        # Looked at first: a foreign file must not be touched.
        self._check_format()
        # Only has an effect before the first table, and before write-ahead logging.
        self.connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self._retry("PRAGMA journal_mode = WAL", timeout_ms)
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self.connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        with self.writing(timeout_ms):
            if self._check_format() == 0:
                for statement in _SCHEMA.split(";"):
                    self.connection.execute(statement)
                self.connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self.connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def _check_format(self) -> int:
        """Return the format version of the file, 0 if it is empty."""
        ((application_id,),) = self.connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = self.connection.execute("PRAGMA user_version").fetchall()
        ((tables,),) = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if application_id == version == tables == 0:
            return 0
        if application_id != APPLICATION_ID:
            raise LogUnavailableError(
                f"{self.path} is not a log directory: {FILE_NAME} is a database of something else"
            )
        if version > FORMAT_VERSION:
            raise LogUnavailableError(
                f"the log at {self.path} has format {version}, this riverrun knows up to"
                f" {FORMAT_VERSION}: use the newer riverrun that wrote it"
            )
        return int(version)

    def _retry(self, statement: str, timeout_ms: int) -> None:
        attempts = max(1, timeout_ms // BUSY_TIMEOUT_MS)
        for attempt in range(1, attempts + 1):
            try:
                self.connection.execute(statement).close()
            except sqlite3.OperationalError as error:
                if code_of(error) not in _BUSY or attempt == attempts:
                    raise
            else:
                return

    @contextmanager
    def writing(self, timeout_ms: int) -> Generator[sqlite3.Connection]:
        """Run the body in one transaction that holds the write lock.

        Raises:
            BusyError: The lock was not to be had within the time; nothing has happened.
            OutcomeUnknownError: The commit failed in a way that leaves its outcome open.
            LogError: Anything else; nothing has happened.
        """
        try:
            self._retry("BEGIN IMMEDIATE", timeout_ms)
            yield self.connection
        except sqlite3.Error as error:
            self._roll_back()
            raise explain(error, self.path) from error
        except BaseException:
            self._roll_back()
            raise
        self._commit()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Run the body on one consistent view of everything that is committed."""
        try:
            self.connection.execute("BEGIN")
            yield self.connection
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        finally:
            self._roll_back()

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if code_of(error) in _BUSY | {sqlite3.SQLITE_FULL}:
                raise explain(error, self.path) from error
            raise OutcomeUnknownError(
                f"the log at {self.path} failed in the middle of a commit ({error}): open a new"
                " writer and read back what was committed"
            ) from error

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself after some errors. One that it cannot roll back is told
        # by the next BEGIN; here the error that led to this matters more.
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection; the last process to do so folds the write-ahead log in."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
