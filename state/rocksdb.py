"""State on local disk in RocksDB.

One column family holds the rows and the meta, so that whatever a memtable flush makes durable is a
prefix of what was written: the meta, written last, never speaks of rows that are not there. There
is no write-ahead log; the changelog topic is it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from weakref import WeakSet

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DbClosedError,
    DBCompactionStyle,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    UniversalCompactOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from .errors import StateDirectoryFullError, StateDirectoryInUseError, StateError, StoreCorruptError
from .unhurried import no_rest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .delta import Delta
    from .unhurried import Rest

_MIB = 1024 * 1024
_ROW = b"d"
_META_KEY = b"m"

BATCH_ROWS = 500
"""Most rows in one write: it holds the GIL, so this bounds the stall of every other thread."""
BATCH_BYTES = _MIB // 4
"""Most bytes in one write, but for a row that is larger by itself; for the same reason."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How RocksDB uses memory and disk. Stores opened with the same object share the memory.

    Attributes:
        cache_bytes: Block cache, index and filter blocks included, of all stores together.
        write_buffer_bytes: Memtables of all stores together.
        memtable_bytes: Size at which one store's memtable is written out.
        file_bytes: Size at which a file is split; the unit of upload.
        compact_at_files: Sorted runs that may pile up before a compaction.
        leveled: Leveled compaction, for state whose keys begin with their window: what expires
            lies together, and whole files are dropped. Otherwise universal compaction, which
            rewrites, and so uploads, far less when keys are updated at random.
        open_files: Most files that one store keeps open.
    """

    cache_bytes: int = 256 * _MIB
    write_buffer_bytes: int = 256 * _MIB
    memtable_bytes: int = 64 * _MIB
    file_bytes: int = 32 * _MIB
    compact_at_files: int = 8
    leveled: bool = False
    open_files: int = 512
    _cache: Cache = field(init=False, repr=False, compare=False)
    _buffers: WriteBufferManager = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the shared memory and check the numbers."""
        for name in ("cache_bytes", "write_buffer_bytes", "memtable_bytes", "file_bytes"):
            if getattr(self, name) < _MIB:
                raise ValueError(f"{name} must be at least 1 MiB, got {getattr(self, name)}")
        if self.compact_at_files < 2 or self.open_files < 16:
            raise ValueError("compact_at_files must be at least 2 and open_files at least 16")
        object.__setattr__(self, "_cache", Cache(self.cache_bytes))
        object.__setattr__(self, "_buffers", WriteBufferManager(self.write_buffer_bytes, False))

    def build(self) -> Options:
        """Return the options for one store."""
        table = BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_bloom_filter(10, False)
        # In the cache, so that the cache's size bounds them; loaded lazily, so that opening is
        # quick however large the state is.
        table.set_cache_index_and_filter_blocks(True)
        table.set_pin_l0_filter_and_index_blocks_in_cache(True)
        # In pieces of a few kilobytes, with one that is always there to find them: filter and index
        # of one file take half a megabyte, and where the cache is too small for those of all files
        # a read would bring in that much, and check it, again and again.
        table.set_index_type(BlockBasedIndexType.two_level_index_search())
        table.set_partition_filters(True)
        table.set_pin_top_level_index_and_filter(True)
        table.set_format_version(5)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_write_buffer_manager(self._buffers)
        options.set_write_buffer_size(self.memtable_bytes)
        options.set_target_file_size_base(self.file_bytes)
        options.set_max_open_files(self.open_files)
        options.set_skip_stats_update_on_db_open(True)
        options.set_max_background_jobs(2)
        options.set_bytes_per_sync(_MIB)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(_MIB)
        options.set_stats_dump_period_sec(0)
        self._set_compaction(options)
        return options

    def _set_compaction(self, options: Options) -> None:
        options.set_level_zero_file_num_compaction_trigger(self.compact_at_files)
        # Writes must not be slowed down: they run on the path of a commit. Memory and the
        # number of files stay bounded by the stop trigger.
        options.set_level_zero_slowdown_writes_trigger(self.compact_at_files * 8)
        options.set_level_zero_stop_writes_trigger(self.compact_at_files * 12)
        if self.leveled:
            options.set_compaction_style(DBCompactionStyle.level())
            options.set_level_compaction_dynamic_level_bytes(True)
            return
        options.set_compaction_style(DBCompactionStyle.universal())
        universal = UniversalCompactOptions()
        universal.size_ratio = 10
        universal.max_size_amplification_percent = 200
        options.set_universal_compaction_options(universal)


class RocksDbStore:
    """One task's state in a RocksDB directory, which it creates if missing.

    Reads may run on one thread while another writes, flushes or checkpoints.

    Args:
        path: Directory of the store; its parent must exist.
        options: Memory and disk use; share one object between the stores of a worker.

    Raises:
        StoreCorruptError: The directory is not a sound store. Discard and rebuild it.
        StateDirectoryInUseError: Another store has it open.
        StateDirectoryFullError: The disk is full.
    """

    def __init__(self, path: Path, *, options: StoreOptions | None = None) -> None:
        self._path = Path(path)
        self._options = options or StoreOptions()
        self._scans: WeakSet[_Scan] = WeakSet()
        self._write_options = WriteOptions()
        # The stub calls it a method; it is a property.
        setattr(self._write_options, "disable_wal", True)  # noqa: B010
        try:
            self._db: Rdict = Rdict(str(self._path), self._options.build())
        except Exception as error:
            _raise_named(error, self._path, "open")
        try:
            self._meta: bytes | None = self._db.get(_META_KEY)
        except Exception as error:
            # The error's traceback keeps the database alive, and with it the lock.
            self.close()
            _raise_named(error, self._path, "open")

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        if not keys:
            return []
        try:
            values: list[bytes | None] = self._db.get([_ROW + key for key in keys])  # pyright: ignore[reportAssignmentType]
        except Exception as error:
            _raise_named(error, self._path, "read")
        return values

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values of ``[start, end)`` in key order, as of this call."""
        if start >= end:
            return iter(())
        try:
            # No upper bound for RocksDB to know: rocksdict keeps a pointer to it that dangles.
            rows = self._db.iter()
            rows.seek(_ROW + start)
        except Exception as error:
            _raise_named(error, self._path, "scan")
        scan = _Scan(rows, _ROW + end, self._path)
        self._scans.add(scan)
        return scan

    def apply(self, delta: Delta, meta: bytes, rest: Rest = no_rest) -> None:
        """Apply a committed epoch and remember ``meta`` with it.

        Durable at the next ``flush``. After an error the store is to be closed; what it holds is
        still a committed epoch plus a part of the next, which a replay completes.
        """
        delta = delta.unfolded(rest)
        try:
            batch = WriteBatch(raw_mode=True)
            for start, end in delta.range_deletes:
                if start < end:
                    batch.delete_range(_ROW + start, _ROW + end)
            count = size = 0
            for key, value in _rows_of(delta):
                if count == BATCH_ROWS or size > BATCH_BYTES:
                    self._db.write(batch, self._write_options)
                    rest()
                    batch = WriteBatch(raw_mode=True)
                    count = size = 0
                count += 1
                if value is None:
                    batch.delete(_ROW + key)
                else:
                    size += len(value)
                    batch.put(_ROW + key, value)
            # In the last batch: a crash between two batches leaves the meta of the epoch before.
            batch.put(_META_KEY, meta)
            self._db.write(batch, self._write_options)
        except Exception as error:
            _raise_named(error, self._path, "write")
        self._meta = meta

    def meta(self) -> bytes | None:
        """Return the ``meta`` of the newest applied epoch, None for a new store."""
        return self._meta

    def flush(self) -> None:
        """Write the memtable out and sync it. Releases the GIL."""
        try:
            self._db.flush(True)
        except Exception as error:
            _raise_named(error, self._path, "flush")

    def checkpoint(self, target: Path) -> bytes | None:
        """Write an immutable copy to ``target``, by hard links on the same file system.

        Nothing may be written to the store meanwhile.
        """
        if target.exists():
            raise StateError(f"checkpoint target {target} exists already")
        # Creating a checkpoint flushes what is left with the GIL held: leave it nothing.
        self.flush()
        checkpoint = None
        try:
            checkpoint = Checkpoint(self._db)
            checkpoint.create_checkpoint(str(target))
        except Exception as error:
            _raise_named(error, self._path, f"checkpoint to {target}")
        finally:
            # As long as it lives the database cannot be opened anew, whether closed or not.
            del checkpoint
        return self._meta

    def close(self) -> None:
        """Release the store; harmless if repeated. Scans under way end with an error."""
        # A live iterator would keep the database open, and its lock held.
        for scan in list(self._scans):
            scan.release()
        try:
            self._db.close()
        except DbClosedError:
            return
        except Exception:
            # The last flush failed, on a full disk as a rule. The store is closed all the same,
            # and what did not reach the disk is replayed from the changelog.
            return

    def live_bytes(self) -> int:
        """Return the size of the files and memtables, for metrics."""
        try:
            files = self._db.property_int_value("rocksdb.live-sst-files-size") or 0
            tables = self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
        except Exception as error:
            _raise_named(error, self._path, "inspect")
        return files + tables


class _Scan:
    """An iterator over rows that tells a corrupt block from the end of the range."""

    def __init__(self, rows: RdictIter, end: bytes, path: Path) -> None:
        self._rows: RdictIter | None = rows
        self._end = end
        self._path = path
        self._ended = False

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        rows = self._rows
        if rows is None:
            if self._ended:
                raise StopIteration
            raise StateError(f"store {self._path} was closed during a scan; scan it before closing")
        if rows.valid():
            key: bytes = rows.key()
            if key < self._end:
                row = key[1:], rows.value()
                rows.next()
                return row
        self._rows = None
        self._ended = True
        try:
            # Invalid means the end or an error; the ready-made iterators take both for the end.
            rows.status()
        except Exception as error:
            _raise_named(error, self._path, "scan")
        raise StopIteration

    def release(self) -> None:
        """Drop the native iterator."""
        self._rows = None


def _rows_of(delta: Delta) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield keys and new values, None for those that are gone.

    In order, which RocksDB takes in quicker; but not sorted all at once, which holds the GIL too.
    """
    deletes = ((key, None) for key in delta.deletes)
    rows: Iterator[tuple[bytes, bytes | None]] = chain(iter(delta.puts.items()), deletes)
    while some := sorted(islice(rows, BATCH_ROWS), key=_row_key):
        yield from some


def _row_key(row: tuple[bytes, bytes | None]) -> bytes:
    return row[0]


# RLIMIT_FSIZE and quotas say the same as a full disk: no more bytes here.
_FULL = ("no space left on device", "disk quota exceeded", "file too large", "no space")
_LOCKED = ("lock hold by", "while lock file")
_CORRUPT = ("corruption", "no such file or directory", "does not exist", "not an sstable")


def _raise_named(error: Exception, path: Path, doing: str) -> NoReturn:
    """Raise what ``error`` means; RocksDB has one exception type and many texts."""
    if isinstance(error, StateError):
        raise error
    text = str(error).lower()
    if isinstance(error, DbClosedError):
        raise StateError(f"cannot {doing} state store {path}: it is closed") from error
    if any(sign in text for sign in _FULL):
        raise StateDirectoryFullError(
            f"cannot {doing} state store {path}: no space left ({error}). Free or add disk space, "
            "then restart the task; nothing committed is lost."
        ) from error
    if any(sign in text for sign in _LOCKED):
        raise StateDirectoryInUseError(
            f"cannot {doing} state store {path}: it is open elsewhere ({error}). Stop the other "
            "owner, or give this worker another state directory."
        ) from error
    if any(sign in text for sign in _CORRUPT):
        raise StoreCorruptError(
            f"cannot {doing} state store {path}: it is damaged ({error}). Discard the directory; "
            "it is rebuilt from the last snapshot and the changelog."
        ) from error
    raise StateError(f"cannot {doing} state store {path}: {error}") from error
