from __future__ import annotations

from typing import TYPE_CHECKING

from riverrun.engine.reference import ReferencePlane
from riverrun.engine.schema import Record, Schema
from riverrun.state.memory import MemoryStore

if TYPE_CHECKING:
    from riverrun.engine.plane import Plane


class Order(Record):
    user: str


def test_the_reference_plane_takes_every_seat() -> None:
    plane: Plane = ReferencePlane()
    assert plane.name == "reference"
    assert plane.record_batches.encode([], [], [], None, 100) == []
    projected = plane.json_projector(Schema.of(Order)).project([b'{"user":"ada"}'])
    assert projected.rows == [Order("ada")]
    assert plane.window_table({"n": "count"}, b"p", MemoryStore()).slices() == []
