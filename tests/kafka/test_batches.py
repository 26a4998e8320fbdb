"""Record batch headers: where batches end, and how they are signed."""

from __future__ import annotations

import pytest
from aiokafka.record.memory_records import MemoryRecords

from riverrun.connectors.kafka.batches import Cut, cut_whole_batches, sign
from riverrun.engine.errors import CorruptBatchError
from tests.batches import encode


def at_offset(payload: bytes, base_offset: int) -> bytes:
    return base_offset.to_bytes(8, "big") + payload[8:]


ONE = at_offset(encode([b"a", b"b"]).payload, 10)
TWO = at_offset(encode([b"c"]).payload, 12)


def test_whole_batches_are_kept_and_the_offset_follows_the_last() -> None:
    assert cut_whole_batches(ONE + TWO) == Cut(len(ONE) + len(TWO), 13, 0)


@pytest.mark.parametrize("kept", [0, 5, 11])
def test_less_than_a_length_is_cut_off(kept: int) -> None:
    assert cut_whole_batches(ONE + TWO[:kept]) == Cut(len(ONE), 12, 0)


@pytest.mark.parametrize("kept", [12, 16, 30, 62])
def test_a_partial_batch_is_cut_off_and_its_size_known(kept: int) -> None:
    assert cut_whole_batches(ONE + TWO[:kept]) == Cut(len(ONE), 12, len(TWO))


def test_nothing_whole_has_no_next_offset() -> None:
    assert cut_whole_batches(ONE[:40]) == Cut(0, None, len(ONE))


def test_old_formats_and_nonsense_are_refused() -> None:
    old = ONE[:16] + b"\x01" + ONE[17:]
    with pytest.raises(CorruptBatchError, match="format 1"):
        cut_whole_batches(old)
    with pytest.raises(CorruptBatchError, match="length -1"):
        cut_whole_batches(ONE[:8] + b"\xff\xff\xff\xff" + ONE[12:])


def test_what_is_whole_before_nonsense_is_kept() -> None:
    old = TWO[:16] + b"\x01" + TWO[17:]
    assert cut_whole_batches(ONE + old) == Cut(len(ONE), 12, 0)


@pytest.mark.parametrize("transactional", [True, False])
def test_a_signed_batch_is_what_another_client_expects(transactional: bool) -> None:
    plain = encode([b"a", b"b"]).payload

    signed = sign(plain, producer_id=7, producer_epoch=3, sequence=40, transactional=transactional)

    batch = MemoryRecords(signed).next_batch()
    assert batch is not None
    assert batch.validate_crc()
    assert (batch.producer_id, batch.is_transactional) == (7, transactional)
    assert (signed[51:53], signed[53:57]) == (b"\x00\x03", b"\x00\x00\x00\x28")
    assert [record.value for record in batch] == [b"a", b"b"]
    assert plain == encode([b"a", b"b"]).payload
