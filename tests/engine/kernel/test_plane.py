from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from riverrun.engine.kernel.plane import KernelPlane
from riverrun.engine.schema import Record, Schema
from riverrun.state.memory import MemoryStore

if TYPE_CHECKING:
    from riverrun.engine.plane import Plane


class Order(Record):
    user: str


def test_the_kernel_plane_takes_every_seat() -> None:
    plane: Plane = KernelPlane()
    assert plane.name == "kernel"
    assert list(plane.record_batches.encode([], [], [], None, 100)) == []
    schema = Schema.of(Order)
    decoded = plane.json_projector(schema).project([b'{"user":"ada"}'])
    assert decoded.frame is not None
    assert schema.to_rows(decoded.frame) == [Order("ada")]
    assert list(plane.partitioner(4).partitions([b"ada"])) == [1]
    documents = plane.json_writer().write(pl.DataFrame({"n": range(1_000)}))
    assert documents is not None
    assert documents[7] == b'{"n":7}'
    assert list(plane.window_table({"n": "count"}, b"p", MemoryStore()).slices()) == []
