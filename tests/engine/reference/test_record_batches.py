from __future__ import annotations

import sys

import pytest

from riverrun.engine.errors import CorruptBatchError
from riverrun.engine.reference.record_batches import ReferenceRecordBatchCodec
from tests.contracts.record_batches import ROWS, SNAPPY, ZSTD, RecordBatchContract, batch, chunk


class TestReference(RecordBatchContract):
    codec = ReferenceRecordBatchCodec()


def test_a_missing_library_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [batch(ROWS, codec=SNAPPY), batch(ROWS, codec=ZSTD)]
    monkeypatch.setitem(sys.modules, "cramjam", None)
    for payload in payloads:
        with pytest.raises(CorruptBatchError, match=r"pip install 'riverrun\[codecs\]'"):
            ReferenceRecordBatchCodec().decode(chunk(payload))
