"""The changelog: what is read back of it, whoever wrote in between."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.batch import RawRecords
from riverrun.engine.changelog import (
    COMMIT_KEY,
    DELTA_KEY,
    ChangelogReplay,
    CommitRecord,
    History,
    decode_commit,
    encode_commit,
    encode_epoch,
    next_generation,
)
from riverrun.engine.errors import CorruptBatchError, StateMismatchError
from riverrun.state import Delta, encode_delta

Written = tuple[bytes, bytes]


def commit(
    epoch: int, generation: int = 1, previous: int | None = None, *, lineage: str = "l", **more: int
) -> CommitRecord:
    return CommitRecord(
        job="job",
        lineage=lineage,
        subtopology="0",
        partition=0,
        generation=generation,
        epoch=epoch,
        pieces=more.get("pieces", 0),
        positions=(),
        upstream=(),
        layout={"t": "s"},
        input_partitions={},
        snapshot=None,
        created_ms=0,
        previous_generation=generation if previous is None else previous,
        version=more.get("version", 1),
    )


def delta(**rows: str) -> Delta:
    return Delta(puts={key.encode(): value.encode() for key, value in rows.items()})


def epoch(
    number: int, change: Delta, generation: int = 1, previous: int | None = None
) -> list[Written]:
    """An epoch as it is written: pieces, then the commit record."""
    pieces = encode_epoch(change, generation, number)
    last = commit(number, generation, previous, pieces=len(pieces))
    return [*((DELTA_KEY, piece) for piece in pieces), (COMMIT_KEY, encode_commit(last))]


def records(written: list[Written], first: int = 0) -> RawRecords:
    return RawRecords(
        "changelog",
        0,
        list(range(first, first + len(written))),
        [0] * len(written),
        [key for key, _ in written],
        [value for _, value in written],
    )


def replay(
    written: list[Written], base: CommitRecord | None = None
) -> list[tuple[int, dict[bytes, bytes]]]:
    done = ChangelogReplay(base).feed(records(written))
    return [(each.commit.epoch, each.delta.puts) for each in done]


# --- commit records --------------------------------------------------------------------------


def test_a_commit_record_comes_back_as_it_was() -> None:
    assert decode_commit(encode_commit(commit(7))) == commit(7)


def test_a_damaged_commit_record_is_told() -> None:
    with pytest.raises(CorruptBatchError, match="damaged"):
        decode_commit(encode_commit(commit(7))[:-3])


def test_a_commit_record_of_a_newer_riverrun_is_refused() -> None:
    with pytest.raises(StateMismatchError, match="upgrade this worker"):
        decode_commit(encode_commit(commit(7, version=2)))


@given(st.integers(0, 2**40), st.integers(0, 2**128), st.integers(0, 2**128))
def test_a_generation_is_above_all_before_and_differs_by_chance(seen: int, a: int, b: int) -> None:
    assert next_generation(seen, a) > seen
    assert (next_generation(seen, a) == next_generation(seen, b)) == ((a - b) % (1 << 16) == 0)


# --- which commits count ---------------------------------------------------------------------


def test_epochs_in_a_row_count() -> None:
    history = History()

    assert [history.take(commit(n)) for n in (1, 2, 3)] == [True, True, True]
    assert history.newest == commit(3)


def test_a_new_owner_goes_on_from_the_former() -> None:
    history = History(commit(4, generation=1))

    assert history.take(commit(5, generation=2, previous=1))


def test_what_a_former_owner_writes_after_the_new_one_is_void() -> None:
    history = History(commit(4, generation=1))
    history.take(commit(5, generation=2, previous=1))

    assert not history.take(commit(5, generation=1))
    assert not history.take(commit(6, generation=1))
    assert history.newest == commit(5, generation=2, previous=1)


def test_an_owner_who_missed_an_epoch_does_not_count_but_ends_the_former() -> None:
    history = History(commit(4, generation=1))
    history.take(commit(5, generation=1))

    # It had read epoch 4 before 5 was written.
    assert not history.take(commit(5, generation=2, previous=1))
    assert not history.take(commit(6, generation=1))
    assert history.newest == commit(5, generation=1)
    assert history.generation == 2


def test_two_owners_who_start_at_once_do_not_both_count() -> None:
    history = History(commit(4, generation=1))

    assert history.take(commit(5, generation=3, previous=1))
    assert not history.take(commit(5, generation=2, previous=1))


def test_a_history_that_begins_with_a_wrong_commit_is_set_right_by_the_next() -> None:
    history = History()
    history.take(commit(5, generation=2, previous=1))  # void: epoch 5 was generation 1's
    assert not history.is_certain

    assert history.take(commit(6, generation=3, previous=1))
    assert history.newest is not None
    assert history.newest.epoch == 6


def test_a_history_that_begins_with_the_right_commit_leaves_the_wrong_one_out() -> None:
    history = History()
    history.take(commit(5, generation=1))

    assert not history.take(commit(5, generation=2, previous=1))
    assert history.newest == commit(5, generation=1)


def test_a_history_of_another_lineage_is_not_gone_on_from() -> None:
    assert not History(commit(4)).take(commit(5, lineage="other"))


# --- replay ----------------------------------------------------------------------------------


def test_epochs_come_back_with_their_deltas_and_offsets() -> None:
    written = [*epoch(1, delta(a="1")), *epoch(2, delta()), *epoch(3, delta(b="2", c="3"))]

    done = ChangelogReplay().feed(records(written, first=10))

    assert [each.commit.epoch for each in done] == [1, 2, 3]
    assert [each.delta.puts for each in done] == [{b"a": b"1"}, {}, {b"b": b"2", b"c": b"3"}]
    assert [each.next_offset for each in done] == [12, 13, 15]


def test_pieces_without_their_commit_record_are_left_out() -> None:
    lost = epoch(2, delta(a="lost"))[:-1]

    assert replay([*epoch(1, delta(a="1")), *lost, *epoch(2, delta(b="2"), 2, 1)]) == [
        (1, {b"a": b"1"}),
        (2, {b"b": b"2"}),
    ]


def test_pieces_of_two_owners_may_lie_in_between() -> None:
    first, second = epoch(2, delta(a="a")), epoch(2, delta(b="b"), 2, 1)
    written = [*epoch(1, delta()), first[0], second[0], first[1], second[1]]

    assert replay(written) == [(1, {}), (2, {b"a": b"a"})]


def test_a_base_that_the_changelog_does_not_go_on_from_is_not_mended() -> None:
    # The base was left by an owner whose epochs 5 and 6 were void.
    written = [*epoch(6, delta(a="1"), 2), *epoch(7, delta(b="2"), 2)]

    assert replay(written, base=commit(6, generation=1)) == []
    assert replay(written, base=commit(5, generation=1)) == []


def test_an_epoch_with_a_missing_piece_is_told() -> None:
    written = epoch(1, delta(a="1"))

    with pytest.raises(CorruptBatchError, match=r"0 of 1 delta records"):
        replay(written[1:])


@pytest.mark.parametrize(
    ("key", "value"), [(b"x", b""), (None, b""), (DELTA_KEY, None), (DELTA_KEY, b"short")]
)
def test_what_the_engine_did_not_write_is_told(key: bytes | None, value: bytes | None) -> None:
    raw = RawRecords("changelog", 0, [3], [0], [key], [value])

    with pytest.raises(CorruptBatchError):
        ChangelogReplay().feed(raw)


@given(st.data())
def test_a_replay_is_what_an_owner_who_is_alone_wrote(data: st.DataObject) -> None:
    """Owners come and go; each writes whole epochs, those of void owners in between."""
    written: list[Written] = []
    state: dict[bytes, bytes] = {}
    newest, seen = commit(0, generation=0), 0
    expected: list[tuple[int, dict[bytes, bytes]]] = []
    for turn in range(data.draw(st.integers(1, 8))):
        generation = next_generation(seen, data.draw(st.integers(0, 3)))
        seen = generation
        if data.draw(st.booleans()) and turn:
            # Has read one epoch too few, and so notices at its first commit that it is not alone.
            before = commit(newest.epoch - 1, generation=0)
            written += epoch(before.epoch + 1, delta(void="void"), generation, 999)
            continue
        for _ in range(data.draw(st.integers(0, 3))):
            change = {data.draw(st.sampled_from("abc")): str(len(written))}
            number = newest.epoch + 1
            written += epoch(number, delta(**change), generation, newest.generation)
            newest = commit(number, generation)
            state.update(delta(**change).puts)
            expected.append((number, delta(**change).puts))
            if data.draw(st.booleans()) and generation > 1:
                written += epoch(number + 1, delta(void="old"), 1, 1)  # a sleeper, long fenced

    assert replay(written, base=commit(0, generation=0)) == expected


@given(st.dictionaries(st.binary(max_size=6), st.binary(max_size=6), max_size=5))
def test_any_delta_comes_back(rows: dict[bytes, bytes]) -> None:
    change = Delta(puts=dict(rows))
    if not encode_delta(change):
        return

    assert replay(epoch(1, change)) == [(1, rows)]


def test_generations_of_one_task_grow() -> None:
    generations = [0]
    for chance in range(5):
        generations.append(next_generation(generations[-1], chance * 977))

    assert all(a < b for a, b in pairwise(generations))
    assert len(set(zip(generations, count(), strict=False))) == 6
