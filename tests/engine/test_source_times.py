"""Event times of a source: columns stay columns, and one by one they are the same."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest

import riverrun as rr
from riverrun.engine.batch import RawRecords
from riverrun.engine.codec import DecodedValues
from riverrun.engine.graph import SourceNode
from riverrun.engine.schema import Schema
from riverrun.engine.source import SourceHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from riverrun.engine.batch import Batch

NOW_MS = 1_800_000_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Visit(rr.Record):
    name: str
    at: dt.datetime


def time_of(visit: Visit) -> dt.datetime:
    return visit.at


class VisitCodec:
    """Decodes values that are microseconds since the epoch, to columns or to rows."""

    record_type = Visit
    schema = Schema.of(Visit)

    def __init__(self, *, columnar: bool) -> None:
        self.columnar = columnar

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        times = [EPOCH + dt.timedelta(microseconds=int(value or b"")) for value in values]
        rows = [Visit("ada", time) for time in times]
        if self.columnar:
            return DecodedValues(frame=self.schema.to_frame(rows))
        return DecodedValues(rows=rows)

    def encode(self, batch: Batch) -> list[bytes | None]:
        return [None] * len(batch)


class Failures:
    """Counts records that cannot be read."""

    def __init__(self) -> None:
        self.count = 0

    def raw_failed(self, records: RawRecords, index: int, error: Exception) -> None:
        del records, index, error
        self.count += 1


def read(
    times_us: list[int], event_time: str | Callable[[Any], Any], *, columnar: bool
) -> tuple[Batch | None, int]:
    """Return the batch of some times, and how many of them were refused."""
    topology = rr.Topology("job")
    topic = rr.Topic("in", value=VisitCodec(columnar=columnar))
    topology.source(topic, event_time=event_time, watermark=rr.Watermark(max_future=None))
    (node,) = topology.graph.nodes.values()
    assert isinstance(node, SourceNode)
    values = [str(time).encode() for time in times_us]
    count = len(values)
    records = RawRecords("in", 0, range(count), [0] * count, [None] * count, values)
    failures = Failures()
    return SourceHead(node, cast("Any", failures)).to_batch(records, NOW_MS), failures.count


@pytest.mark.parametrize("event_time", ["at", time_of])
def test_columns_stay_columns_whatever_event_times_are_made_of(event_time: Any) -> None:
    times_us = [1_700_000_000_123_456, 0, 999]
    batch, refused = read(times_us, event_time, columnar=True)
    assert batch is not None
    assert refused == 0
    assert batch.times() == [1_700_000_000_123, 0, 0]
    column = batch.column("at")
    assert column is not None
    assert column.to_physical().to_list() == times_us
    assert [row.at for row in batch.rows()] == column.to_list()
    assert batch.values_frame().schema == pl.Schema(VisitCodec.schema.columns)


@pytest.mark.parametrize("columnar", [True, False])
@pytest.mark.parametrize("event_time", ["at", time_of])
def test_times_are_the_same_beside_one_that_is_refused(event_time: Any, *, columnar: bool) -> None:
    # One that is refused has all others looked at one by one. Far times are no exact floats.
    times_us = [1_700_000_000_000_999, 33_000_000_000_001_000, 1_799_999_999_999_999]
    for before in (-1, -500_000):
        batch, refused = read([*times_us, before], event_time, columnar=columnar)
        assert batch is not None
        assert refused == 1
        assert batch.times() == [time // 1000 for time in times_us]
