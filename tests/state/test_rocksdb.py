from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from riverrun.state import (
    Delta,
    RocksDbStore,
    StateDirectoryFullError,
    StateDirectoryInUseError,
    StateError,
    StateStore,
    StoreCorruptError,
    StoreOptions,
)
from tests.contracts.stores import StoreContract

if TYPE_CHECKING:
    from collections.abc import Callable

END = b"\xff" * 8
SMALL = StoreOptions(cache_bytes=8 << 20, write_buffer_bytes=8 << 20, memtable_bytes=2 << 20)


class TestRocksDbStoreContract(StoreContract):
    @pytest.fixture
    def open_store(self) -> Callable[[Path], StateStore]:
        return lambda path: RocksDbStore(path, options=SMALL)

    @pytest.fixture
    def open_checkpoint(self) -> Callable[[Path], StateStore]:
        return lambda path: RocksDbStore(path, options=SMALL)


def filled(path: Path, rows: int = 30_000) -> RocksDbStore:
    store = RocksDbStore(path, options=SMALL)
    store.apply(Delta({b"%08d" % number: b"value" * 4 for number in range(rows)}), b"meta")
    store.flush()
    return store


def test_deltas_larger_than_one_batch_are_written_whole(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", rows=25_000)
    assert sum(1 for _ in store.scan(b"", END)) == 25_000
    assert store.live_bytes() > 25_000
    store.close()


def test_flushed_state_is_there_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path / "store").close()
    store = RocksDbStore(tmp_path / "store", options=SMALL)
    assert store.meta() == b"meta"
    assert store.get_many([b"%08d" % 29_999]) == [b"value" * 4]
    store.close()


def test_nothing_goes_to_a_write_ahead_log(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "store", options=SMALL)
    store.apply(Delta({b"a": b"1" * 10_000}), b"m")
    assert sum(log.stat().st_size for log in (tmp_path / "store").glob("*.log")) == 0
    store.close()


def test_leveled_store_reads_back(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "store", options=StoreOptions(leveled=True))
    store.apply(Delta({b"a": b"1"}), b"m")
    store.flush()
    assert store.get_many([b"a"]) == [b"1"]
    store.close()


def test_store_reopens_at_once_in_spite_of_abandoned_scan_and_checkpoint(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    abandoned = store.scan(b"", END)
    next(abandoned)
    store.checkpoint(tmp_path / "checkpoint")
    store.close()
    RocksDbStore(tmp_path / "store", options=SMALL).close()
    with pytest.raises(StateError, match="closed during a scan"):
        next(abandoned)


def test_checkpoint_shares_the_files(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    store.checkpoint(tmp_path / "checkpoint")
    tables = list((tmp_path / "checkpoint").glob("*.sst"))
    assert tables
    assert all(table.stat().st_nlink == 2 for table in tables)
    store.close()


def test_second_opener_is_told_of_the_first(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    with pytest.raises(StateDirectoryInUseError, match="open elsewhere"):
        RocksDbStore(tmp_path / "store", options=SMALL)
    store.close()


def test_closed_store_says_so(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", rows=10)
    store.close()
    store.close()
    for use in (
        lambda: store.get_many([b"a"]),
        lambda: store.apply(Delta(), b""),
        lambda: store.scan(b"", END),
        store.flush,
        store.live_bytes,
        lambda: store.checkpoint(tmp_path / "checkpoint"),
    ):
        with pytest.raises(StateError, match="closed"):
            use()


def damage(path: Path, pattern: str) -> None:
    [file] = list(path.glob(pattern))[:1]
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(size // 3)
        stream.write(bytes(byte ^ 0xFF for byte in b"\x00" * (size // 3)))


@pytest.mark.parametrize("use", ["scan", "get_many"])
def test_corrupt_block_is_an_error_and_not_an_absent_row(tmp_path: Path, use: str) -> None:
    filled(tmp_path / "store").close()
    damage(tmp_path / "store", "*.sst")

    def read_all() -> object:
        store = RocksDbStore(tmp_path / "store", options=SMALL)
        try:
            if use == "scan":
                return list(store.scan(b"", END))
            return store.get_many([b"%08d" % number for number in range(30_000)])
        finally:
            store.close()

    with pytest.raises(StoreCorruptError, match="Discard the directory"):
        read_all()


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        ("MANIFEST-*", "deleted"),
        ("MANIFEST-*", "overwritten"),
        ("CURRENT", "truncated"),
        ("CURRENT", "deleted"),
        ("CURRENT", "overwritten"),
        ("*.sst", "truncated"),
        ("*.sst", "deleted"),
        ("*.sst", "overwritten"),
    ],
)
def test_damaged_store_does_not_open(tmp_path: Path, pattern: str, harm: str) -> None:
    filled(tmp_path / "store").close()
    for file in (tmp_path / "store").glob(pattern):
        if harm == "truncated":
            os.truncate(file, file.stat().st_size // 2)
        elif harm == "deleted":
            file.unlink()
        else:
            file.write_bytes(b"junk" * (file.stat().st_size // 4 + 1))
    with pytest.raises(StoreCorruptError):
        RocksDbStore(tmp_path / "store", options=SMALL)


def test_rows_never_outlive_the_meta_that_a_cut_manifest_loses(tmp_path: Path) -> None:
    filled(tmp_path / "store").close()
    for file in (tmp_path / "store").glob("MANIFEST-*"):
        os.truncate(file, file.stat().st_size // 2)
    # RocksDB takes the cut for a crash and opens an earlier state: here, that before the epoch.
    store = RocksDbStore(tmp_path / "store", options=SMALL)
    assert store.meta() is None
    assert list(store.scan(b"", END)) == []
    store.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from riverrun.state import Delta, RocksDbStore, StateDirectoryFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RocksDbStore(Path(sys.argv[1]))
store.apply(Delta({b"a": b"1"}), b"durable")
store.flush()
store.apply(Delta({b"%06d" % number: b"%06d" % number * 9 for number in range(9000)}), b"lost")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    store.flush()
except StateDirectoryFullError as error:
    print(error)
store.close()
"""


def test_full_disk_is_named_and_loses_only_what_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert "no space left" in done.stdout
    assert str(path) in done.stdout
    store = RocksDbStore(path, options=SMALL)
    assert store.meta() == b"durable"
    store.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IO error: No space left on device: While appending to file: x.sst", "full"),
        ("Corruption: block checksum mismatch", "corrupt"),
        ("IO error: lock hold by current process: LOCK", "in use"),
        ("IO error: While lock file: x/LOCK: Resource temporarily unavailable", "in use"),
        ("Invalid argument: whatever", "other"),
    ],
)
def test_texts_of_rocksdb_become_named_errors(tmp_path: Path, text: str, expected: str) -> None:
    from riverrun.state.rocksdb import _raise_named

    kinds = {
        "full": StateDirectoryFullError,
        "corrupt": StoreCorruptError,
        "in use": StateDirectoryInUseError,
        "other": StateError,
    }
    with pytest.raises(StateError) as caught:
        _raise_named(Exception(text), tmp_path, "write")
    assert type(caught.value) is kinds[expected]
    assert text in str(caught.value)


@pytest.mark.parametrize("field", ["cache_bytes", "file_bytes", "compact_at_files", "open_files"])
def test_senseless_options_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        StoreOptions(**{field: 1})


# --- kill -9 ---------------------------------------------------------------------------------


def epoch_delta(epoch: int) -> Delta:
    """Return the delta of an epoch: the same in the test and in the process that is killed."""
    chance = random.Random(epoch)
    delta = Delta()
    if epoch % 7 == 0:
        start = chance.randrange(3000)
        delta.delete_range(b"%05d" % start, b"%05d" % (start + 400))
    for _ in range(300):
        delta.delete(b"%05d" % chance.randrange(3000))
    for _ in range(1500):
        delta.put(b"%05d" % chance.randrange(3000), b"%d" % epoch * 40)
    return delta


def test_there_is_a_rest_between_two_writes_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riverrun.state.rocksdb.BATCH_ROWS", 2)
    store = RocksDbStore(tmp_path / "store", options=SMALL)
    rests: list[bytes | None] = []
    rows = {b"%d" % n: b"" for n in range(5)}

    store.apply(Delta(rows), b"1", lambda: rests.append(store.meta()))

    assert rests == [None, None]
    assert (store.get_many(list(rows)), store.meta()) == ([b""] * 5, b"1")
    store.close()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from riverrun.state import RocksDbStore, StoreOptions
import riverrun.state.rocksdb as rocksdb
from test_rocksdb import epoch_delta
# Small batches and memtables: a kill hits between the batches of an epoch as well.
rocksdb.BATCH_ROWS = 200
store = RocksDbStore(
    Path(sys.argv[1]),
    options=StoreOptions(write_buffer_bytes=1 << 20, memtable_bytes=1 << 20, cache_bytes=1 << 20),
)
epoch = int((store.meta() or b"-1").decode()) + 1
print(epoch, flush=True)
while True:
    store.apply(epoch_delta(epoch), b"%d" % epoch)
    if epoch % 10 == 0:
        store.flush()
    print(epoch, flush=True)
    epoch += 1
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_store_equals_the_model_after_replay(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store"
    chance = random.Random(seed)
    epoch = -1
    for _ in range(3):
        here = str(Path(__file__).parent)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), here],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert writer.stdout is not None
        for _ in range(chance.randrange(12, 40)):
            epoch = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        newest = epoch + 20  # it went on until the signal came
        store = RocksDbStore(path, options=SMALL)
        durable = int((store.meta() or b"-1").decode())
        assert durable >= epoch // 10 * 10 - 10
        model: dict[bytes, bytes] = {}
        for number in range(newest + 1):
            delta = epoch_delta(number)
            for start, end in delta.range_deletes:
                model = {key: value for key, value in model.items() if not start <= key < end}
            for key in delta.deletes:
                model.pop(key, None)
            model.update(delta.puts)
            if number > durable:
                store.apply(delta, b"%d" % number)
        assert list(store.scan(b"", END)) == sorted(model.items())
        store.close()


@pytest.mark.slow
def test_a_gigabyte_opens_without_being_read(tmp_path: Path) -> None:
    store = RocksDbStore(tmp_path / "store")
    value = random.Random(1).randbytes(4000)
    for start in range(0, 250_000, 25_000):
        rows = {b"%012d" % n: value[:-12] + b"%012d" % n for n in range(start, start + 25_000)}
        # Not compressible: a gigabyte on disk, not only in the rows.
        rows = {key: random.Random(key).randbytes(4000) for key in rows}
        store.apply(Delta(rows), b"meta")
    store.flush()
    store.close()
    begin = time.perf_counter()
    store = RocksDbStore(tmp_path / "store")
    took = time.perf_counter() - begin
    assert store.live_bytes() > 900_000_000
    # A tenth of a second on a quiet machine; reading a gigabyte takes longer than this.
    assert took < 2
    store.close()
