"""What the window tables of both planes have in common, over histories that change the plane."""

from __future__ import annotations

import datetime as dt
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverrun.engine.batch import KEY, TIME, key_series
from riverrun.engine.cache_budget import CacheBudget
from riverrun.engine.kernel import window_table as subject
from riverrun.engine.kernel.window_table import KernelWindowTable
from riverrun.engine.reference import window_table as reference
from riverrun.engine.reference.window_table import ReferenceWindowTable
from riverrun.state import Delta
from riverrun.state.encoding import decode_delta, encode_delta
from riverrun.state.memory import MemoryStore
from tests.engine.window_cases import KINDS, PREFIX, SLICE_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.plane import WindowTable

KEY_FORMS: dict[str, list[Any]] = {
    "text": ["", "a", "aa", "ab", "b", "é\0", "a long key that no view holds by itself", "7"],
    "int": [7, -1, 2**62, 0, 10, -(2**63), 2**63 - 1],
    "bool": [True, False],
    "bytes": [b"", b"\xff\x00", b"a"],
    "composite": [("ada", 7), ("ada", 8), ("", -1)],
    "longer composite": [("ada", 7, True), ("", 0, False)],
}
# Halves, so that the order in which they are added up makes no difference.
VALUES: dict[str, tuple[Any, list[Any]]] = {
    "int": (pl.Int64, [None, 1, -3, 5, 1000]),
    "float": (pl.Float64, [None, 1.5, -3.0, float("inf"), 2.5]),
    "null": (pl.Null, [None]),
}
OTHERS: dict[str, tuple[Any, list[Any]]] = {
    "date": (pl.Date, [None, dt.date(2026, 1, 2), dt.date(1900, 1, 1)]),
    "datetime": (pl.Datetime("us", "UTC"), [None, dt.datetime(2026, 1, 2, tzinfo=dt.UTC)]),
    "text": (pl.String, [None, "b", "a", "", "é", "longer than any view holds " * 12]),
    "bool": (pl.Boolean, [None, True, False]),
}

add = st.tuples(
    st.just("add"),
    st.sampled_from(list(KEY_FORMS)),
    st.sampled_from(list(VALUES)),
    st.sampled_from(["", "", "", *OTHERS]),
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(-20, 59), st.integers(0, 99)),
        min_size=1,
        max_size=15,
    ),
)
history = st.lists(
    st.one_of(
        add,
        add,
        st.tuples(st.just("overflow"), st.integers(0, 99), st.integers(-20, 59)),
        st.tuples(st.just("remove"), st.integers(-2, 6)),
        st.tuples(st.just("barrier")),
        st.tuples(st.just("reopen"), st.booleans()),
        st.tuples(
            st.just("read"),
            st.integers(-3, 6),  # first window
            st.integers(1, 6),  # number of windows
            st.sampled_from([(1, 1), (2, 1), (3, 2), (6, 1), (1, 2), (9, 9)]),  # size, advance
        ),
        st.tuples(
            st.just("pairs"),
            st.sampled_from(list(KEY_FORMS)),
            st.integers(-3, 6),
            st.sampled_from([1, 2, 6]),
        ),
    ),
    max_size=25,
)


def frame_of(
    form: str, values: str, other: str, records: list[tuple[int, int, int]], kinds: dict[str, Any]
) -> tuple[pl.DataFrame, pl.Series]:
    """Return records as a table takes them; those after ``average`` read the other type."""
    keys, times = KEY_FORMS[form], pl.Series(TIME, [time for _, time, _ in records])
    columns = [key_series([keys[key % len(keys)] for key, _, _ in records]), times]
    for name, kind in kinds.items():
        is_other = bool(other) and kind in ("count_values", "min", "max", "first", "last")
        dtype, known = OTHERS[other] if is_other else VALUES[values]
        picked = [known[value % len(known)] for _, _, value in records]
        column = pl.Series(name, picked, dtype=dtype)
        columns.append(column.cast(pl.Float64) if kind == "mean" else column)
    return pl.DataFrame(columns), times // SLICE_MS * SLICE_MS


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the error that a call raises, or what it gives."""
    try:
        return call(*arguments)
    except (OverflowError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def rows_of(table: WindowTable, *arguments: Any) -> Any:
    """Return what a reading gives: types of columns and rows, without the ends of frames."""
    parts: list[Any] = []
    for frame in table.read(*arguments):
        assert frame.height
        if parts and parts[-1].schema == frame.schema:
            parts[-1] = pl.concat([parts[-1], frame])
        else:
            parts.append(frame)
    return [(part.schema, part.rows()) for part in parts]


def slices_of(table: WindowTable) -> list[int]:
    return list(table.slices())


class Pair:
    """Two tables with a store each, which show a delta one barrier late, as a task may."""

    def __init__(self, kinds: dict[str, Any], cached_bytes: int) -> None:
        self.kinds, self.budget = kinds, CacheBudget(cached_bytes)
        self.stores = [MemoryStore(), MemoryStore()]
        self.pending: list[Delta] = []
        self.tables: list[WindowTable] = []
        self.open(swapped=False)

    def open(self, *, swapped: bool) -> None:
        """Open the tables, of the same store or each of the other's."""
        if swapped:
            self.stores.reverse()
        one, other = self.stores
        self.tables = [
            KernelWindowTable(self.kinds, PREFIX, one, self.budget.new_share()),
            ReferenceWindowTable(self.kinds, PREFIX, other),
        ]

    def both(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Check that a call gives the same for both tables."""
        mine, expected = (outcome(call, table, *arguments) for table in self.tables)
        assert mine == expected

    def barrier(self) -> None:
        self.settle()
        for table in self.tables:
            delta = Delta()
            table.drain_delta(delta)
            self.pending.append(delta)
        mine, expected = (delta.unfolded() for delta in self.pending)
        assert mine.range_deletes == expected.range_deletes
        assert mine.puts == expected.puts

    def settle(self) -> None:
        for store, delta in zip(self.stores, self.pending, strict=False):
            store.apply(delta, b"")
        self.pending = []


@given(
    history,
    st.sets(st.sampled_from(list(KINDS)), min_size=1),
    st.sampled_from([0, 2000, 10**9]),
)
@example(
    # The place of a removed row is used again by one without a value.
    history=[
        ("add", "text", "int", "", [(0, -1, 1), (1, 0, 0)]),
        ("remove", 0),
        ("add", "text", "int", "", [(0, 0, 0)]),
    ],
    names={"opening", "present", "n"},
    cached_bytes=0,
)
@example(
    # A row in the store has another type than the records: it must not be taken for an empty one.
    history=[
        ("add", "composite", "int", "date", [(0, 0, 0)]),
        ("reopen", False),
        ("add", "text", "int", "", [(0, 0, 1)]),
        ("add", "composite", "int", "", [(0, 0, 1)]),
    ],
    names={"low"},
    cached_bytes=0,
)
@example(
    # And of text beside a number in the store, which Python cannot compare either.
    history=[
        ("add", "text", "int", "", [(0, 0, 0)]),
        ("overflow", 1, 0),
        ("reopen", False),
        ("add", "text", "int", "text", [(1, 0, 1)]),
    ],
    names={"low"},
    cached_bytes=0,
)
@example(
    # The type of values that are all null is known as soon as those of a later window are read.
    history=[
        ("add", "text", "int", "", [(0, 20, 0)]),
        ("reopen", False),
        ("add", "text", "null", "", [(0, 0, 0), (0, 10, 0), (1, 10, 0)]),
        ("read", 0, 2, (2, 1)),
    ],
    names={"low", "n", "present", "average", "total"},
    cached_bytes=0,
)
@example(
    # The order of the types of keys is the same, however many windows are read together.
    history=[
        ("add", "text", "int", "", [(0, 0, 0)]),
        ("add", "longer composite", "int", "", [(0, 0, 0), (0, 10, 0)]),
        ("add", "composite", "int", "", [(0, 0, 0), (0, 10, 0), (62, 0, 0)]),
        ("read", 0, 2, (1, 1)),
    ],
    names={"n"},
    cached_bytes=0,
)
@settings(max_examples=400)
def test_any_history_gives_the_same_on_both_planes(
    history: list[Any], names: set[str], cached_bytes: int
) -> None:
    kinds = {name: kind for name, kind in KINDS.items() if name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_LOADED_ROWS_MAX", 3)
        for module in (subject, reference):
            # Windows that are read together have columns of the same types.
            patch.setattr(module, "_FRAME_ROWS_MAX", 5)
        run(Pair(kinds, cached_bytes), history)


def run(pair: Pair, history: list[Any]) -> None:
    """Do the same to both tables, and compare."""
    for name, *arguments in history:
        match name:
            case "add":
                form, values, other, records = arguments
                frame, starts = frame_of(form, values, other, records, pair.kinds)
                pair.both(methodcaller("update", frame, starts))
            case "overflow":
                key, time = arguments
                frame, starts = frame_of("text", "int", "", [(key, time, 1)] * 5, pair.kinds)
                if "total" in pair.kinds:
                    large = pl.Series("total", [2**62] * 5)
                    frame = frame.with_columns(large)
                pair.both(methodcaller("update", frame, starts))
            case "remove":
                pair.both(methodcaller("remove_below", arguments[0] * SLICE_MS))
            case "barrier":
                pair.barrier()
            case "reopen":
                pair.barrier()
                pair.settle()
                pair.open(swapped=arguments[0])
            case "pairs":
                form, window, slices = arguments
                keys = KEY_FORMS[form]
                starts = sorted([window * SLICE_MS, (window + 1) * SLICE_MS] * len(keys))
                pair.both(rows_of, starts, slices * SLICE_MS, key_series(keys * 2))
            case _:
                first, count, (size, advance) = arguments
                windows = [(first + i * advance) * SLICE_MS for i in range(count)]
                pair.both(rows_of, windows, size * SLICE_MS)
        pair.both(slices_of)
    pair.both(rows_of, [-100], 1000)
    pair.barrier()


def texts(keys: int, length: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            KEY: [f"key {number}" for number in range(keys)],
            TIME: list(range(keys)),
            "name": [chr(97 + number % 26) * (length + number % 2) for number in range(keys)],
        },
        schema_overrides={TIME: pl.Int64},
    )


def test_text_is_kept_natively_in_blocks_of_bounded_size_and_read_again() -> None:
    store, frame = MemoryStore(), texts(keys=2_000, length=300)
    table = KernelWindowTable({"name": "last"}, PREFIX, store)
    table.update(frame, pl.Series([0] * len(frame)))
    delta = Delta()
    table.drain_delta(delta)
    assert len(delta.blocks) > 1
    assert max(len(block.data) for block in delta.blocks) <= 256 * 1024
    store.apply(delta, b"")
    for reader in (table, KernelWindowTable({"name": "last"}, PREFIX, store)):
        found = pl.concat(reader.read([0], 1)).sort(KEY)
        assert found.get_column("name").equals(frame.sort(KEY).get_column("name"))
        assert reader._reference is None


def test_text_too_long_for_a_block_goes_to_the_changelog_compressed() -> None:
    store, frame = MemoryStore(), texts(keys=5, length=3_000_000)
    table = KernelWindowTable({"name": "first"}, PREFIX, store)
    table.update(frame, pl.Series([0] * len(frame)))
    delta = Delta()
    table.drain_delta(delta)
    pieces = encode_delta(delta)
    assert len(pieces) >= 1
    assert max(map(len, pieces)) < 1_000_000
    store.apply(decode_delta(pieces), b"")
    found = pl.concat(KernelWindowTable({"name": "first"}, PREFIX, store).read([0], 1))
    assert found.get_column("name").to_list() == frame.get_column("name").to_list()


def test_text_that_went_away_leaves_no_memory_behind() -> None:
    table = KernelWindowTable({"name": "max"}, PREFIX, MemoryStore())
    sizes: list[int] = []
    for start in range(3):
        frame = texts(keys=500, length=1_000)
        table.update(frame, pl.Series([start] * len(frame)))
        sizes.append(table.cached_bytes)
        table.remove_below(start + 1)
        table.drain_delta(Delta())
    assert sizes[0] == sizes[1] == sizes[2] > 500_000
    assert table.cached_bytes < 1_000


def test_keys_that_went_away_leave_no_memory_behind() -> None:
    table = KernelWindowTable({"n": "count"}, PREFIX, MemoryStore())
    for round_number in range(20):
        keys = pl.Series(KEY, [f"key {round_number} {i}" for i in range(5000)])
        times = pl.Series(TIME, [round_number * SLICE_MS] * 5000)
        table.update(pl.DataFrame([keys, times]), times)
        table.remove_below(round_number * SLICE_MS)
        table.drain_delta(Delta())
    (frame,) = table.read([19 * SLICE_MS], SLICE_MS)
    assert frame.height == 5000
    assert table.cached_bytes < 1_000_000
