"""Batches: forms are converted on demand, and parts of a batch are taken when they are needed."""

from __future__ import annotations

import polars as pl
import pytest

from riverrun.engine.batch import KEY, POSITION, TIME, Batch
from riverrun.engine.labels import KeyLabel, Label
from riverrun.engine.schema import Record, Schema


class Order(Record):
    user: str
    amount: float


SCHEMA = Schema.of(Order)
ROWS = [Order("ada", 1.0), Order("bob", 2.0), Order("cy", 3.0)]


def rows_batch() -> Batch:
    return Batch.of_rows(
        list(ROWS), [10, 20, 30], keys=["a", "b", "c"], positions=[5, 6, 7], schema=SCHEMA
    )


def frame_batch() -> Batch:
    return Batch.of_frame(rows_batch().frame(), schema=SCHEMA)


@pytest.fixture(params=[rows_batch, frame_batch], ids=["rows", "columns"])
def batch(request: pytest.FixtureRequest) -> Batch:
    return request.param()


def test_a_column_is_made_of_rows_without_the_others() -> None:
    made = Batch.of_rows([Order("ada", 1.0), Order("bob", "no number")], [1, 2], schema=SCHEMA)
    column = made.column("user")
    assert column is not None
    assert column.to_list() == ["ada", "bob"]
    assert not made.is_columnar
    with pytest.raises(TypeError, match="amount"):
        made.frame()


def test_an_unknown_column_is_none(batch: Batch) -> None:
    assert batch.column("nothing") is None
    assert batch.columns(["amount", "nothing"]).columns == ["amount"]


def test_the_frame_has_values_and_labels(batch: Batch) -> None:
    assert batch.frame().to_dict(as_series=False) == {
        "user": ["ada", "bob", "cy"],
        "amount": [1.0, 2.0, 3.0],
        TIME: [10, 20, 30],
        KEY: ["a", "b", "c"],
        POSITION: [5, 6, 7],
    }
    assert batch.is_columnar


def test_rows_of_unknown_form_stay_rows() -> None:
    made = Batch.of_rows([{"a": 1}, {"a": None, "b": "x"}], [1, 2])
    column = made.column("b")
    assert column is not None
    assert column.to_list() == [None, "x"]
    assert made.schema is None
    assert not made.is_columnar
    with pytest.raises(TypeError, match="different fields"):
        made.frame()


def test_where_keeps_every_form(batch: Batch) -> None:
    kept = batch.where(pl.Series([True, False, True]))
    assert len(kept) == 2
    assert kept.is_columnar == batch.is_columnar
    assert kept.has_rows == batch.has_rows
    assert kept.rows() == [ROWS[0], ROWS[2]]
    assert kept.times() == [10, 30]
    assert kept.keys() == ["a", "c"]
    assert list(kept.wire_keys()) == [b"a", b"c"]
    assert kept.positions() == [5, 7]
    assert kept.frame()["amount"].to_list() == [1.0, 3.0]


def test_where_of_a_part_of_a_part(batch: Batch) -> None:
    part = batch.where(pl.Series([True, True, False])).where(pl.Series([False, True]))
    assert part.rows() == [ROWS[1]]
    assert part.values_frame().to_dicts() == [{"user": "bob", "amount": 2.0}]
    taken = part.take([0, 0])
    assert taken.rows() == [ROWS[1], ROWS[1]]
    assert taken.times() == [20, 20]
    assert taken.frame().height == 2


def test_where_does_not_convert_what_it_drops() -> None:
    made = Batch.of_rows([Order("ada", "no number"), Order("bob", 2.0)], [1, 2], schema=SCHEMA)
    column = made.where(pl.Series([False, True])).column("amount")
    assert column is not None
    assert column.to_list() == [2.0]


def test_other_keys_leave_all_else(batch: Batch) -> None:
    part = batch.where(pl.Series([True, False, True]))
    for keys in ([1, 2], pl.Series([1, 2])):
        keyed = part.with_keys(keys)
        assert keyed.keys() == [1, 2]
        assert keyed.key_column().name == KEY
        assert list(keyed.wire_keys()) == [b"1", b"2"]
        assert keyed.rows() == [ROWS[0], ROWS[2]]
        assert keyed.frame().columns == ["user", "amount", TIME, KEY, POSITION]
        assert part.keys() == ["a", "c"]


def test_other_columns_keep_the_labels(batch: Batch) -> None:
    mapped = batch.with_columns(pl.DataFrame({"double": [2, 4, 6]}))
    assert mapped.rows() == [{"double": 2}, {"double": 4}, {"double": 6}]
    assert mapped.times() == [10, 20, 30]
    assert mapped.keys() == ["a", "b", "c"]
    assert mapped.positions() == [5, 6, 7]


def test_a_stream_without_keys() -> None:
    made = Batch.of_rows([1, 2], [1, 2])
    assert not made.has_keys
    assert made.keys() == [None, None]
    assert list(made.wire_keys()) == [None, None]
    assert made.key_column().to_list() == [None, None]


def test_composite_keys_are_structs_in_columns() -> None:
    label = KeyLabel([("a", 1), None])
    assert label.column().to_list() == [{"f0": "a", "f1": 1}, None]
    again = KeyLabel(column=label.column())
    assert again.values()[0] == ("a", 1)
    assert again.wire()[0] == b'["a",1]'


@pytest.mark.parametrize(
    "label",
    [
        KeyLabel(["a", None, "c"]),
        KeyLabel(column=pl.Series(KEY, ["a", None, "c"])),
        KeyLabel(wire=[b"a", None, b"c"]),
    ],
    ids=["list", "column", "wire"],
)
def test_keys_are_the_same_in_every_form(label: KeyLabel) -> None:
    for part in (label.where(pl.Series([True, True, False])), label.take([0, 1])):
        assert len(part) == 2
        assert list(part.wire()) == [b"a", None]
        assert part.values() == ["a", None]
        assert part.column().to_list() == ["a", None]


def test_a_label_in_either_form() -> None:
    for label in (Label(TIME, [3, 1, 2]), Label(TIME, column=pl.Series(TIME, [3, 1, 2]))):
        assert label.take([2, 0]).values() == [2, 3]
        assert label.where(pl.Series([False, True, True])).values() == [1, 2]
        assert label.column().dtype == pl.Int64


def test_first_and_last_time(batch: Batch) -> None:
    assert (batch.min_time(), batch.max_time()) == (10, 30)
