"""The codec contract: record values to and from bytes, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from .batch import Batch
    from .byte_columns import ByteColumn
    from .plane import Plane
    from .schema import Schema


@dataclass(slots=True)
class DecodedValues:
    """What decoding a column of bytes gave.

    Either ``rows`` or ``frame`` is set, with one entry per value that could be decoded.

    Attributes:
        rows: Python objects, in order.
        frame: Columns, in order.
        columns: Columns of ``rows`` that decoding has made by the way, by name.
        kept: Index of each decoded value in the input; None if all were decoded.
        failures: Index and reason of each value that could not be.
    """

    rows: list[Any] | None = None
    frame: pl.DataFrame | None = None
    kept: list[int] | None = None
    failures: list[tuple[int, Exception]] = field(default_factory=list[tuple[int, Exception]])
    columns: dict[str, pl.Series] = field(default_factory=dict[str, "pl.Series"])


class Codec(Protocol):
    """How the values of a topic are written. Frozen and comparable."""

    @property
    def schema(self) -> Schema | None:
        """Schema of decoded values, None if the codec declares none."""
        ...

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Decode a column of values; bad ones are told one by one, never raised.

        A None (tombstone) is a failure unless the codec has a meaning for it.
        """
        ...

    def encode(self, batch: Batch) -> ByteColumn:
        """Encode the values of a batch, in order: as a list, or as a Binary column of Polars.

        Raises:
            EncodeError: Naming the index of the first value that cannot be written.
        """
        ...


@runtime_checkable
class PlaneCodec(Protocol):
    """A codec that leaves its work to the data plane, where the plane has a seat for it."""

    def with_plane(self, plane: Plane) -> Codec:
        """Return the same codec on the seats of ``plane``."""
        ...


def on_plane(codec: Codec, plane: Plane) -> Codec:
    """Return a codec as a task uses it."""
    return codec.with_plane(plane) if isinstance(codec, PlaneCodec) else codec


class EncodeError(Exception):
    """A value cannot be written in the topic's format.

    Attributes:
        index: Index of the value in its batch.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
