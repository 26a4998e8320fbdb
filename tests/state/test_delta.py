from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from riverrun.state import Delta, RowBlock
from riverrun.state.delta import merge_ranges, range_covering

keys = st.binary(max_size=3).map(lambda key: bytes(byte % 4 for byte in key))
ranges = st.lists(st.tuples(keys, keys), max_size=5)


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    delta = Delta(range_deletes=draw(ranges))
    for key in draw(st.lists(keys, max_size=4)):
        delta.delete(key)
    for key in draw(st.lists(keys, max_size=6)):
        delta.put(key, draw(st.binary(max_size=2)))
    delta.blocks += draw(st.lists(blocks(), max_size=2))
    return delta


@st.composite
def blocks(draw: st.DrawFn) -> RowBlock:
    start = draw(keys)
    rows = draw(st.dictionaries(keys.map(lambda key: start + key), st.binary(max_size=2)))
    return RowBlock.of_rows(start, start + b"\x7f", list(rows.items()))


def applied(model: dict[bytes, bytes], delta: Delta) -> dict[bytes, bytes]:
    gone = delta.range_deletes
    left = {k: v for k, v in model.items() if not any(start <= k < end for start, end in gone)}
    left = {k: v for k, v in left.items() if k not in delta.deletes} | delta.puts
    for block in delta.blocks:
        left.update(block.items())
    return left


@given(st.dictionaries(keys, st.binary(max_size=2)), st.lists(deltas(), max_size=4))
def test_merged_deltas_do_what_they_do_one_by_one(
    model: dict[bytes, bytes], epochs: list[Delta]
) -> None:
    merged = Delta()
    expected = model
    for delta in epochs:
        merged.merge(delta)
        expected = applied(expected, delta)
    assert applied(model, merged) == expected
    assert merged.deletes.isdisjoint(merged.puts)
    assert merged.range_deletes == merge_ranges(merged.range_deletes)


@given(deltas(), deltas())
def test_merge_leaves_the_later_delta_alone(delta: Delta, later: Delta) -> None:
    before = Delta(
        dict(later.puts), set(later.deletes), list(later.range_deletes), list(later.blocks)
    )
    delta.merge(later)
    delta.put(b"new", b"value")
    delta.unfold()
    assert later == before


@given(st.dictionaries(keys, st.binary(max_size=2)), deltas())
def test_unfolding_changes_the_form_alone(model: dict[bytes, bytes], delta: Delta) -> None:
    plain = delta.unfolded()
    assert applied(model, plain) == applied(model, delta)
    assert not plain.blocks


def test_there_is_a_rest_after_each_block() -> None:
    blocks = [RowBlock.of_rows(b"a", b"b", [(b"a1", b"%d" % n)]) for n in range(3)]
    rests: list[None] = []
    plain = Delta(blocks=blocks).unfolded(lambda: rests.append(None))
    assert (plain.puts, len(rests)) == ({b"a1": b"2"}, 3)


def test_single_changes_after_a_block_win() -> None:
    delta = Delta(blocks=[RowBlock.of_rows(b"a", b"b", [(b"a1", b"old"), (b"a2", b"old")])])
    delta.put(b"a1", b"new")
    delta.delete(b"a2")
    assert delta == Delta({b"a1": b"new"}, {b"a2"})


def test_a_block_of_an_expired_window_is_dropped_as_it_is() -> None:
    delta = Delta(blocks=[RowBlock(b"w1", b"w2", 1, b"damaged: nobody looks at it")])
    delta.merge(Delta(range_deletes=[(b"w0", b"w2")]))
    assert delta == Delta(range_deletes=[(b"w0", b"w2")])


@given(ranges, keys)
def test_merged_ranges_cover_the_same_keys(spans: list[tuple[bytes, bytes]], key: bytes) -> None:
    covered = any(start <= key < end for start, end in spans)
    assert range_covering(merge_ranges(spans), key) == covered


def test_delete_range_hides_what_was_put_before_and_not_after() -> None:
    delta = Delta()
    delta.put(b"a", b"1")
    delta.delete(b"b")
    delta.delete_range(b"a", b"c")
    delta.put(b"b", b"2")
    assert delta == Delta({b"b": b"2"}, set(), [(b"a", b"c")])


def test_sizes_count_keys_values_and_ranges() -> None:
    delta = Delta({b"aa": b"123"}, {b"b"}, [(b"x", b"yy")])
    assert (delta.rows, delta.byte_size()) == (3, 9)
