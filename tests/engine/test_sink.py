"""What a sink makes of codecs that users write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import riverrun as rr
from riverrun.engine.codec import DecodedValues
from riverrun.engine.errors import RecordError
from riverrun.testing import TopologyTestDriver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import OnError


@dataclass(frozen=True)
class OwnCodec:
    """Text, once for all of a value's letters; loses or refuses some values."""

    loses: str = ""
    refuses: str = ""

    @property
    def record_type(self) -> type[str]:
        return str

    @property
    def schema(self) -> None:
        return

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        return DecodedValues(rows=[(value or b"").decode() for value in values])

    def encode(self, batch: Batch) -> list[bytes | None]:
        if self.refuses in batch.rows():
            raise KeyError(self.refuses)
        return [row.encode() for row in batch.rows() if row != self.loses]


def written(codec: OwnCodec, on_error: OnError) -> list[Any]:
    topology = rr.Topology("job")
    source: rr.Topic[Any] = rr.Topic("in", value=rr.Text(), partitions=1)
    out: rr.Topic[Any] = rr.Topic("out", value=codec)
    topology.source(source).sink(out, on_error=on_error)
    with TopologyTestDriver(topology) as driver:
        driver.pipe("in", [b"a", b"b", b"c"])
        return [record.value for record in driver.read("out")]


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_codec_that_loses_values_is_told(on_error: OnError) -> None:
    with pytest.raises(RecordError, match=r"OwnCodec.*'out' gave 2 values for 3 records"):
        written(OwnCodec(loses="b"), on_error)


def test_a_value_for_which_a_codec_raises_fails_alone() -> None:
    assert written(OwnCodec(refuses="b"), "skip") == [b"a", b"c"]


def test_a_codec_that_raises_is_named_with_step_and_topic() -> None:
    with pytest.raises(RecordError, match=r"step 'sink.*offset 1.*OwnCodec.*'out' raised KeyError"):
        written(OwnCodec(refuses="b"), "fail")
