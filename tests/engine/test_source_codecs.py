"""Codecs of one's own: what a source does with one that loses values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import riverrun as rr
from riverrun.engine.codec import DecodedValues
from riverrun.engine.errors import RecordError
from riverrun.testing import TopologyTestDriver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.batch import Batch


class Forgetful:
    """Decodes the first value of a column alone."""

    schema = None
    record_type = None

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        return DecodedValues(rows=[{"value": value} for value in values[:1]])

    def encode(self, batch: Batch) -> list[bytes | None]:
        return [row["value"] for row in batch.rows()]


def test_a_codec_that_loses_values_stops_the_task_under_every_policy() -> None:
    job = rr.Topology("job")
    lines = job.source(
        rr.Topic("lines", value=Forgetful(), partitions=1), name="lines", on_error="skip"
    )
    lines.sink(rr.Topic("out", value=Forgetful()))
    with TopologyTestDriver(job) as driver:
        driver.pipe("lines", [b"a"])
        assert len(driver.read("out")) == 1
        with pytest.raises(RecordError, match="Forgetful of topic 'lines' decoded 1 of 3 values"):
            driver.pipe("lines", [b"a", b"b", b"c"])
