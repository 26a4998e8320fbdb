from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun.state import Delta, RowBlock, StateError, decode_delta, encode_delta
from riverrun.state.encoding import _compress

rows = st.binary(max_size=40)


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    puts = draw(st.dictionaries(rows, rows, max_size=30))
    deletes = draw(st.sets(rows, max_size=10)) - puts.keys()
    blocks = [
        RowBlock.of_rows(b"", b"\xff" * 41, list(each.items()))
        for each in draw(st.lists(st.dictionaries(rows, rows, max_size=5), max_size=2))
    ]
    return Delta(puts, deletes, draw(st.lists(st.tuples(rows, rows), max_size=5)), blocks)


@given(deltas(), st.sampled_from([64, 300, 512 * 1024]))
def test_decoding_brings_the_delta_back(delta: Delta, piece_bytes: int) -> None:
    assert decode_delta(encode_delta(delta, piece_bytes=piece_bytes)) == delta


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_block_that_is_cut_off_is_refused(cut: int) -> None:
    block = RowBlock.of_rows(b"a", b"b", [(b"a1", b"value")])
    (piece,) = encode_delta(Delta(blocks=[block]))
    refused(piece[:-cut])


def test_a_block_with_keys_beyond_its_range_is_refused() -> None:
    (piece,) = encode_delta(Delta(blocks=[RowBlock.of_rows(b"a", b"b", [(b"c", b"value")])]))
    refused(piece)


def test_empty_delta_has_no_pieces() -> None:
    assert encode_delta(Delta()) == []
    assert decode_delta([]) == Delta()


@pytest.mark.parametrize("compressible", [True, False])
def test_pieces_keep_to_the_limit_and_fill_it(compressible: bool) -> None:
    chance = random.Random(1)
    value = (lambda: b"x" * 200) if compressible else (lambda: chance.randbytes(200))
    delta = Delta({chance.randbytes(16): value() for _ in range(20_000)})
    pieces = encode_delta(delta, piece_bytes=100_000)
    assert max(map(len, pieces)) <= 100_000
    # The first piece is made without knowing how well the rows compress.
    assert min(map(len, pieces[1:-1])) > 60_000
    assert decode_delta(pieces) == delta


def test_compressible_deltas_become_small() -> None:
    delta = Delta({b"window|user%06d" % number: b"\0" * 32 for number in range(10_000)})
    assert sum(map(len, encode_delta(delta))) < delta.byte_size() // 8


def test_row_above_the_limit_travels_alone() -> None:
    chance = random.Random(1)
    delta = Delta({b"small": b"1", b"large": chance.randbytes(5000), b"other": b"2"})
    pieces = encode_delta(delta, piece_bytes=1000)
    assert len([piece for piece in pieces if len(piece) > 1000]) == 1
    assert decode_delta(pieces) == delta


def test_range_deletes_are_in_the_first_pieces() -> None:
    delta = Delta({b"%d" % n: b"" for n in range(100)}, set(), [(b"a", b"b"), (b"c", b"d")])
    [first, *_] = encode_delta(delta, piece_bytes=90)
    assert decode_delta([first]).range_deletes == [(b"a", b"b"), (b"c", b"d")]


def refused(piece: bytes) -> None:
    with pytest.raises(StateError, match="cannot be decoded"):
        decode_delta([piece])


PIECE = encode_delta(Delta({b"key": b"value" * 30, b"k": b""}, {b"gone"}, [(b"a", b"b")]))[0]


@pytest.mark.parametrize("piece", [b"", b"\x01", b"\x02" + PIECE[1:], PIECE + b"\0", PIECE + PIECE])
def test_what_is_no_piece_is_refused(piece: bytes) -> None:
    refused(piece)


def test_every_truncation_and_every_flipped_bit_is_noticed() -> None:
    for end in range(len(PIECE)):
        refused(PIECE[:end])
    for at in range(len(PIECE)):
        for bit in range(8):
            flipped = bytearray(PIECE)
            flipped[at] ^= 1 << bit
            # Some header bits are reserved or say how it was compressed, not what.
            try:
                delta = decode_delta([bytes(flipped)])
            except StateError:
                continue
            assert delta == decode_delta([PIECE])


def framed(body: bytes) -> bytes:
    return b"\x01" + _compress(body)


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack("<III", 1, 0, 0),
        struct.pack("<IIIII", 1, 0, 0, 1, 0xFFFFFFFF) + b"k",
        struct.pack("<IIIII", 1, 0, 0, 1, 1) + b"kv+",
        struct.pack("<IIIIII", 1, 1, 0, 1, 0, 1) + b"kk",
    ],
    ids=[
        "counts too large",
        "no lengths",
        "length too large",
        "bytes left over",
        "put and deleted",
    ],
)
def test_lengths_that_do_not_add_up_are_refused(body: bytes) -> None:
    refused(framed(body))


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_arbitrary_bodies_never_crash_the_decoder(body: bytes) -> None:
    for piece in (framed(body), framed(struct.pack("<III", 2, 1, 1) + body), b"\x01" + body, body):
        try:
            decode_delta([piece])
        except StateError:
            continue


def test_a_small_piece_cannot_claim_a_large_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riverrun.state.encoding.BODY_BYTES_MAX", 2_000_000)
    refused(framed(b"\0" * 2_000_001))
    # Nor lie about it: the size in the header is what is decompressed at most.
    honest = framed(b"\0" * 1_000_000)
    refused(honest[:7] + struct.pack("<Q", 1000) + honest[15:])


def test_row_that_no_piece_may_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riverrun.state.encoding.BODY_BYTES_MAX", 1000)
    with pytest.raises(StateError, match="keep less under one key"):
        encode_delta(Delta({b"key": b"x" * 1001}))
