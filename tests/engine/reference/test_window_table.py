from __future__ import annotations

import datetime as dt
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverrun.engine.batch import KEY, TIME, key_series, keys_to_list
from riverrun.engine.cache_budget import CacheBudget, CacheShare
from riverrun.engine.keys import key_to_state
from riverrun.engine.plane import WINDOW
from riverrun.engine.planes import why_reference
from riverrun.engine.reference import slice_index, window_rows
from riverrun.engine.reference import window_table as subject
from riverrun.engine.reference.window_table import ReferenceWindowTable
from riverrun.state import Delta
from riverrun.state.memory import MemoryStore
from tests.engine.window_cases import KINDS, PREFIX, SLICE_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from riverrun.engine.plane import WindowTable


TABLES: dict[str, Any] = {"reference": ReferenceWindowTable}
SUBJECTS: list[ModuleType] = [subject]
if why_reference() is None:
    kernel_subject = import_module("riverrun.engine.kernel.window_table")
    TABLES["kernel"] = kernel_subject.KernelWindowTable
    SUBJECTS.append(kernel_subject)
chosen: list[str] = []


@pytest.fixture(autouse=True, scope="module", params=TABLES)
def plane(request: pytest.FixtureRequest) -> Iterator[str]:
    """The plane whose table ``table`` makes."""
    chosen.append(request.param)
    yield request.param
    chosen.clear()


def table(
    store: MemoryStore | None = None,
    kinds: dict[str, Any] = KINDS,
    cache: CacheShare | None = None,
) -> WindowTable:
    """Return a table of the plane at hand."""
    return TABLES[chosen[-1]](kinds, PREFIX, store or MemoryStore(), cache)


def add(
    into: WindowTable,
    rows: list[tuple[Any, int, Any]],
    dtype: Any = None,
    kinds: dict[str, Any] = KINDS,
) -> None:
    """Add ``(key, time, value)`` rows; every aggregate reads the value."""
    values = pl.Series([row[2] for row in rows], dtype=dtype, strict=True)
    numbers = values.cast(pl.Float64) if values.dtype.is_numeric() else values
    times = pl.Series(TIME, [row[1] for row in rows], dtype=pl.Int64)
    columns = [key_series([row[0] for row in rows]), times]
    for name, kind in kinds.items():
        if kind != "count":
            columns.append((numbers if kind == "mean" else values).alias(name))
    into.update(pl.DataFrame(columns), times // SLICE_MS * SLICE_MS)


def results(
    of: WindowTable,
    start: int = -1000,
    end: int = 10_000,
    keys: pl.Series | None = None,
) -> Any:
    """Return the results of one window by key."""
    windows = [start] if keys is None else [start] * len(keys)
    found = results_by_window(of, windows, end - start, keys)
    return {key: row for (_, key), row in found.items()}


def results_by_window(
    of: WindowTable, windows: Sequence[int], size: int, keys: pl.Series | None = None
) -> dict[tuple[int, Any], dict[str, Any]]:
    """Return the results of windows by window and key."""
    found: dict[tuple[int, Any], dict[str, Any]] = {}
    for frame in of.read(windows, size, keys):
        starts = frame.get_column(WINDOW).to_list()
        named = zip(starts, keys_to_list(frame.get_column(KEY)), strict=True)
        for name, row in zip(named, frame.drop(KEY, WINDOW).to_dicts(), strict=True):
            assert name not in found
            found[name] = row
    return found


def drain(of: WindowTable) -> Delta:
    delta = Delta()
    of.drain_delta(delta)
    return delta.unfolded()


def model(rows: list[tuple[Any, int, Any]]) -> dict[Any, dict[str, Any]]:
    """Return what the aggregates of rows are, straight from their definition."""
    found: dict[Any, dict[str, Any]] = {}
    for key in {row[0] for row in rows}:
        mine = [(time, value) for k, time, value in rows if k == key]
        timed = [(time, value) for time, value in mine if value is not None]
        values = [value for _, value in timed]
        found[key] = {
            "n": len(mine),
            "present": len(values),
            "total": sum(values),
            "average": sum(values) / len(values) if values else None,
            "low": min(values, default=None),
            "high": max(values, default=None),
            "opening": min(timed, key=lambda tv: tv[0])[1] if timed else None,
            "closing": max(reversed(timed), key=lambda tv: tv[0])[1] if timed else None,
        }
    return found


def test_an_empty_table_has_nothing() -> None:
    empty = table()
    assert results(empty) == {}
    assert empty.slices() == []
    assert not drain(empty)
    empty.remove_below(100)
    assert not drain(empty)


def test_aggregates_of_a_few_records_written_out() -> None:
    one = table()
    add(one, [("ada", 15, 4), ("ada", 11, 2), ("bob", 12, None), ("ada", 13, None), ("ada", 25, 9)])
    assert one.slices() == [10, 20]
    assert results(one, 10, 20) == {
        "ada": {
            "n": 3,
            "present": 2,
            "total": 6,
            "average": 3.0,
            "low": 2,
            "high": 4,
            "opening": 2,
            "closing": 4,
        },
        "bob": {
            "n": 1,
            "present": 0,
            "total": 0,
            "average": None,
            "low": None,
            "high": None,
            "opening": None,
            "closing": None,
        },
    }
    assert results(one, 0, 10) == {}
    assert results(one, 10, 30)["ada"]["total"] == 15
    assert list(results(one, 10, 30, keys=pl.Series(["bob", "eve"]))) == ["bob"]


def test_results_come_in_order_of_keys_with_columns_in_order_of_definition() -> None:
    one = table()
    add(one, [(key, 5, 1) for key in ["c", "a", "b"]])
    (frame,) = one.read([0], 10)
    assert frame.get_column(KEY).to_list() == ["a", "b", "c"]
    assert frame.columns == [WINDOW, KEY, *KINDS]


def test_firing_is_one_range_delete_and_state_keys_sort_by_slice() -> None:
    one = table()
    add(one, [("a", -5, 1), ("a", 5, 1), ("a", 15, 1), ("b", 1005, 1)])
    stored = sorted(drain(one).puts)
    assert [key[-2:] for key in stored] == [b"sa", b"sa", b"sa", b"sb"]
    assert all(key.startswith(PREFIX) for key in stored)
    one.remove_below(20)
    assert one.slices() == [1000]
    delta = drain(one)
    assert delta.puts == {}
    ((start, end),) = delta.range_deletes
    assert [start <= key < end for key in stored] == [True, True, True, False]


def test_only_what_changed_is_drained() -> None:
    one = table()
    add(one, [("a", 5, 1), ("b", 5, 1)])
    assert len(drain(one).puts) == 2
    assert not drain(one)
    add(one, [("b", 5, 1)])
    assert [key[-2:] for key in drain(one).puts] == [b"sb"]


def test_a_removed_slice_that_comes_back_begins_anew() -> None:
    store = MemoryStore()
    one = table(store)
    add(one, [("a", 5, 1)])
    store.apply(drain(one), b"")
    again = table(store)
    assert again.slices() == [0]
    again.remove_below(10)
    add(again, [("a", 5, 7)])
    assert results(again)["a"]["total"] == 7
    store.apply(drain(again), b"")
    assert results(table(store))["a"]["total"] == 7


def test_an_overflow_names_the_aggregate_and_leaves_the_table_as_it_was() -> None:
    one = table(kinds={"total": "sum"})
    add(one, [("a", 5, 2**62)], kinds={"total": "sum"})
    before = results(one)
    for rows in ([("a", 5, 2**62), ("new", 99, 1)], [("c", 5, 2**62)] * 4 + [("d", 77, 1)]):
        with pytest.raises(OverflowError, match="'total'"):
            add(one, rows, kinds={"total": "sum"})
        assert results(one) == before
        assert one.slices() == [0]
    add(one, [("a", 5, 2**62 - 1), ("e", 5, 2**63 - 1), ("e", 5, -(2**63))], kinds={"total": "sum"})
    assert results(one) == {"a": {"total": 2**63 - 1}, "e": {"total": -1}}
    assert len(drain(one).puts) == 2


def test_types_widen_from_null_over_int_to_float() -> None:
    store = MemoryStore()
    kinds = {"total": "sum", "high": "max", "closing": "last"}
    one = table(store, kinds)
    add(one, [("a", 1, None)], pl.Null, kinds)
    assert results(one) == {"a": {"total": 0, "high": None, "closing": None}}
    store.apply(drain(one), b"")
    one = table(store, kinds)
    add(one, [("a", 2, 3)], pl.Int64, kinds)
    assert results(one) == {"a": {"total": 3, "high": 3, "closing": 3}}
    store.apply(drain(one), b"")
    one = table(store, kinds)
    add(one, [("b", 1, 0.5), ("a", 3, 2.5)], pl.Float64, kinds)
    add(one, [("b", 1, None)], pl.Null, kinds)
    expected = {
        "a": {"total": 5.5, "high": 3.0, "closing": 2.5},
        "b": {"total": 0.5, "high": 0.5, "closing": 0.5},
    }
    assert results(one) == expected
    store.apply(drain(one), b"")
    one = table(store, kinds)
    assert results(one) == expected
    (frame,) = one.read([0], 10)
    assert frame.dtypes == [pl.Int64, pl.String, pl.Float64, pl.Float64, pl.Float64]


def test_types_that_do_not_go_together_are_refused() -> None:
    kinds = {"high": "max"}
    one = table(kinds=kinds)
    add(one, [("a", 1, "text")], kinds=kinds)
    with pytest.raises(TypeError, match="'high' has seen values of type String"):
        add(one, [("a", 1, 7)], kinds=kinds)
    assert results(one) == {"a": {"high": "text"}}


UTC = dt.UTC
TYPES: dict[str, tuple[Any, list[Any]]] = {
    "text": (pl.String, ["b", "a", "", "é"]),
    "bytes": (pl.Binary, [b"b", b"a", b"\xff"]),
    "bool": (pl.Boolean, [True, False]),
    "date": (pl.Date, [dt.date(2026, 1, 2), dt.date(1900, 1, 1)]),
    "time": (pl.Time, [dt.time(1, 2, 3, 4), dt.time(0)]),
    "datetime": (
        pl.Datetime("us", "UTC"),
        [dt.datetime(2026, 1, 2, 3, 4, 5, 6, UTC), dt.datetime(1950, 1, 1, tzinfo=UTC)],
    ),
    "naive": (pl.Datetime("ms"), [dt.datetime(2026, 1, 2), dt.datetime(1950, 1, 1)]),  # noqa: DTZ001
    "duration": (pl.Duration("us"), [dt.timedelta(seconds=3), dt.timedelta(days=-2)]),
    "decimal": (pl.Decimal(10, 2), [Decimal("1.25"), Decimal("-3.50")]),
    "float": (pl.Float64, [1.5, -2.5, float("inf")]),
    "narrow int": (pl.Int8, [1, -2]),
}


@pytest.mark.parametrize("name", TYPES)
def test_values_of_every_type_survive_a_restart(name: str) -> None:
    dtype, values = TYPES[name]
    kinds = {
        "low": "min",
        "high": "max",
        "opening": "first",
        "closing": "last",
        "p": "count_values",
    }
    store = MemoryStore()
    one = table(store, kinds)
    rows = [("a", i, value) for i, value in enumerate([*values, None])] + [("b", 1, None)]
    add(one, rows[:2], dtype, kinds)
    store.apply(drain(one), b"")
    one = table(store, kinds)
    add(one, rows[2:], dtype, kinds)
    store.apply(drain(one), b"")
    expected = {
        "a": {
            "low": min(values),
            "high": max(values),
            "opening": values[0],
            "closing": values[-1],
            "p": len(values),
        },
        "b": {"low": None, "high": None, "opening": None, "closing": None, "p": 0},
    }
    assert results(one) == expected
    assert results(table(store, kinds)) == expected
    (frame,) = table(store, kinds).read([0], 10)
    if name != "narrow int":
        assert frame.get_column("low").dtype == dtype


def test_first_and_last_of_lists() -> None:
    kinds = {"opening": "first", "closing": "last"}
    store = MemoryStore()
    one = table(store, kinds)
    add(one, [("a", 1, [1, 2]), ("a", 2, [3, 4]), ("b", 2, [5, 6])], kinds=kinds)
    store.apply(drain(one), b"")
    expected = {
        "a": {"opening": [1, 2], "closing": [3, 4]},
        "b": {"opening": [5, 6], "closing": [5, 6]},
    }
    assert results(one) == expected
    assert results(table(store, kinds)) == expected


KEYS: dict[str, list[Any]] = {
    "text": ["ada", "", "é\0", "7"],
    "int": [7, -1, 2**62, 0],
    "bool": [True, False],
    "bytes": [b"", b"\xff\x00"],
    "composite": [("ada", 7), ("ada", 8), ("", -1)],
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_every_form_come_back_as_given(name: str) -> None:
    keys = KEYS[name]
    store = MemoryStore()
    one = table(store)
    add(one, [(key, 5, i) for i, key in enumerate(keys)])
    delta = drain(one)
    assert {key[len(PREFIX) + 8 :] for key in delta.puts} == {key_to_state(key) for key in keys}
    store.apply(delta, b"")
    for of in (one, table(store)):
        assert {key: row["total"] for key, row in results(of).items()} == {
            key: i for i, key in enumerate(keys)
        }
        assert list(results(of, keys=key_series(keys[:1]))) == keys[:1]


def test_many_results_come_in_several_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in SUBJECTS:
        monkeypatch.setattr(module, "_FRAME_ROWS_MAX", 10)
    one = table()
    add(one, [(i, 5, i) for i in range(25)])
    assert [frame.height for frame in one.read([0], 10)] == [10, 10, 5]
    assert len(results(one)) == 25


def test_many_windows_come_as_one_frame_in_order_of_time_and_key() -> None:
    one = table(kinds={"n": "count"})
    rows = [("b", 25, 1), ("a", 995, 1), ("a", 21, 1), ("b", 3, 1), ("b", 4, 1), ("c", -5, 1)]
    add(one, rows, kinds={"n": "count"})
    (frame,) = one.read(range(-10, 1000, 10), 10)
    assert frame.rows() == [(-10, "c", 1), (0, "b", 2), (20, "a", 1), (20, "b", 1), (990, "a", 1)]
    (frame,) = one.read(range(-10, 30, 10), 20)
    assert frame.rows() == [
        (-10, "b", 2), (-10, "c", 1), (0, "b", 2), (10, "a", 1), (10, "b", 1),
        (20, "a", 1), (20, "b", 1),
    ]  # fmt: skip


class _CountingStore(MemoryStore):
    scans = 0

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        self.scans += 1
        return super().scan(start, end)


def test_after_a_restart_the_store_is_scanned_once_for_slices_and_once_for_rows() -> None:
    store = _CountingStore()
    one = table(store)
    add(one, [("a", SLICE_MS * i, i) for i in range(500)])
    store.apply(drain(one), b"")
    store.scans = 0
    again = table(store)
    assert len(again.slices()) == 500
    (frame,) = again.read(again.slices(), SLICE_MS)
    assert frame.get_column("total").to_list() == list(range(500))
    again.remove_below(SLICE_MS * 500)
    assert again.slices() == []
    assert len(drain(again).range_deletes) == 1
    assert store.scans == 2


def test_a_window_larger_than_a_frame_is_read_from_the_store_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slice_index, "_COUNTED_ROWS_MAX", 10)
    store = MemoryStore()
    one = table(store)
    add(one, [(i, time, 1) for i in range(25) for time in (5, 15)] + [(1, 25, 1), (2, 35, 1)])
    store.apply(drain(one), b"")
    again = table(store)
    assert again.slices() == [0, 10, 20, 30]
    found = [
        frame.get_column(WINDOW).unique().sort().to_list()
        for frame in again.read([0, 10, 20, 30], 10)
    ]
    assert found == [[0], [10], [20, 30]]


def test_a_row_of_an_unknown_format_is_refused() -> None:
    store = MemoryStore()
    one = table(store)
    add(one, [("a", 5, 1)])
    delta = drain(one)
    delta.puts = {key: b"\x09" + row[1:] for key, row in delta.puts.items()}
    store.apply(delta, b"")
    with pytest.raises(ValueError, match="unknown format"):
        results(table(store))


def test_rows_of_other_aggregates_are_refused() -> None:
    store = MemoryStore()
    one = table(store)
    add(one, [("a", 5, 1)])
    store.apply(drain(one), b"")
    with pytest.raises(ValueError, match="has 8 aggregates, the window has 1"):
        results(table(store, {"n": "count"}))


class Readable:
    """A store that shows a delta one barrier after it was drained, as late as a task may."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._pending: Delta | None = None

    def barrier(self, of: WindowTable) -> None:
        self.settle()
        self._pending = drain(of)

    def settle(self) -> None:
        if self._pending is not None:
            self.store.apply(self._pending, b"")
        self._pending = None


operation = st.one_of(
    st.tuples(
        st.just("add"),
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"),
                st.integers(0, 59),
                st.none() | st.integers(-5, 5),
            ),
            min_size=1,
            max_size=12,
        ),
    ),
    st.tuples(st.just("overflow"), st.sampled_from("abc"), st.integers(0, 59)),
    st.tuples(st.just("remove"), st.integers(0, 6)),
    st.tuples(st.just("barrier")),
    st.tuples(st.just("restart")),
    st.tuples(
        st.just("read"),
        st.integers(-2, 6),  # first window
        st.integers(1, 6),  # number of windows
        st.sampled_from([(1, 1), (2, 1), (3, 2), (6, 1), (1, 2), (1, 6)]),  # size, advance
        st.booleans(),
    ),
)


@given(st.lists(operation, max_size=25), st.sampled_from([0, 3, 10**6]))
@example(  # rows in the store that lie between the windows
    [
        ("add", [("a", 10, None)]),
        ("restart",),
        ("add", [("a", 0, None), ("a", 20, None)]),
        ("read", 0, 2, (1, 2), False),
    ],
    3,
)
@settings(max_examples=200, deadline=None)
def test_any_history_gives_what_the_definition_says(history: list[Any], bound: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # Bounds that a few rows reach, so that work is done in parts.
        for module in SUBJECTS:
            patch.setattr(module, "_FRAME_ROWS_MAX", bound + 1)
            patch.setattr(module, "_LOADED_ROWS_MAX", bound + 1)
        patch.setattr(window_rows, "_PENDING_ROWS_MAX", bound + 1)
        patch.setattr(slice_index, "_COUNTED_ROWS_MAX", bound)
        _run(history, CacheBudget(bound * subject.ROW_BYTES))


def _run(history: list[Any], budget: CacheBudget) -> None:
    store = Readable()
    one = table(store.store, cache=budget.new_share())
    rows: list[tuple[Any, int, Any]] = []
    for name, *arguments in history:
        match name:
            case "add":
                add(one, arguments[0], pl.Int64)
                rows += arguments[0]
            case "overflow":
                key, time = arguments
                with pytest.raises(OverflowError):
                    add(one, [("f", time, 1)] + [(key, time, 2**62)] * 5, pl.Int64)
            case "remove":
                bound = arguments[0] * SLICE_MS
                one.remove_below(bound)
                rows = [row for row in rows if row[1] >= bound]
            case "barrier":
                store.barrier(one)
            case "restart":
                store.barrier(one)
                store.settle()
                one = table(store.store, cache=budget.new_share())
            case _:
                _compare(one, rows, *arguments)
        assert one.slices() == sorted({time // SLICE_MS * SLICE_MS for _, time, _ in rows})
    _compare(one, rows, 0, 1, (6, 1), some=False)


def _compare(
    one: WindowTable,
    rows: list[Any],
    first: int,
    count: int,
    shape: tuple[int, int],
    some: bool,
) -> None:
    size, advance = (SLICE_MS * slices for slices in shape)
    windows = range(SLICE_MS * first, SLICE_MS * first + count * advance, advance)
    keys = ["a", "b", "zzz"]
    if some:
        pairs = [(start, key) for start in windows for key in keys]
        starts, asked = [start for start, _ in pairs], pl.Series([key for _, key in pairs])
        found = results_by_window(one, starts, size, asked)
    else:
        found = results_by_window(one, windows, size)
    expected = {
        (start, key): result
        for start in windows
        for key, result in model([r for r in rows if start <= r[1] < start + size]).items()
        if not some or key in keys
    }
    assert found == expected
    assert list(found) == sorted(expected)


def test_an_unreadable_row_in_the_store_leaves_the_table_as_it_was() -> None:
    store = MemoryStore()
    one = table(store)
    add(one, [("a", 25, 1), ("b", 15, 1)])
    delta = drain(one)
    delta.puts = {key: b"?" if key.endswith(b"sa") else row for key, row in delta.puts.items()}
    store.apply(delta, b"")
    one = table(store)
    with pytest.raises(ValueError, match="unknown format"):
        add(one, [("new", 5, 1), ("b", 15, 1), ("a", 25, 1)])
    assert one.slices() == [10, 20]
    assert results(one, 0, 20)["b"]["n"] == 1
    assert not drain(one)


class _AskedStore(MemoryStore):
    """A store that counts the rows it is asked for by name."""

    asked = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked += len(keys)
        return super().get_many(keys)


def test_tables_of_one_budget_share_its_memory() -> None:
    kinds = {"n": "count"}
    rows = [(f"key {i:06}", 5, 1) for i in range(1_000)]
    measured = CacheBudget().new_share()
    one = table(None, kinds, measured)
    add(one, rows, kinds=kinds)
    drain(one)
    budget = CacheBudget(measured.held_bytes * 3 // 2)
    store = _AskedStore()
    one = table(store, kinds, budget.new_share())
    asked: list[int] = []

    def next_epoch(keys: int) -> None:
        store.asked = 0
        add(one, rows[:keys], kinds=kinds)
        store.apply(drain(one), b"")
        asked.append(store.asked)

    next_epoch(1_000)
    next_epoch(1_000)
    other = budget.new_share()
    other.held_bytes = measured.held_bytes
    next_epoch(1)  # the other 999 are dropped at its end
    next_epoch(1_000)
    del other
    next_epoch(1)
    next_epoch(1_000)

    assert asked == [0, 0, 0, 999, 0, 0]
    assert results(one)["key 000000"] == {"n": 6}
