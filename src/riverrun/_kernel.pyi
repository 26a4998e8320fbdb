"""The native kernel; see ``kernel/src/python``. It is not there where no compiler was."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

VERSION: str
"""Version of the package it was built for."""

class Column:
    """A column of bytes or integers in Arrow's form, shared with Polars without a copy."""

    @staticmethod
    def of(data: Any) -> Column:
        """Return whatever gives Arrow data as a column; text as bytes."""
    @staticmethod
    def concat(columns: Sequence[Column]) -> Column:
        """Return columns of one type behind each other."""
    def to_text(self) -> Column | None:
        """Return bytes as text, None if any of them is no UTF-8."""
    def take(self, indices: Sequence[int]) -> Column:
        """Return the values at ``indices``, in that order."""
    def to_list(self) -> list[Any]:
        """Return the values as a list."""
    def count(self, value: None) -> int:
        """Return the number of nulls."""
    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> Column: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]: ...

class JsonProjector:
    """Reads JSON documents of one schema to columns."""

    def __init__(self, fields: Sequence[tuple[str, tuple[str, bool, Any], bool]]) -> None:
        """Take the name of each field, its kind, and whether it is null where it is missing.

        A kind is ``(shape, nullable, inner)``: the shape ``int``, ``float``, ``text`` or ``bool``
        without inner, ``list`` with the kind of its items, or ``object`` with its fields.
        """
    def project(self, values: Sequence[bytes | None] | Column) -> tuple[JsonRows, list[int]]:
        """Return the rows that could be read, and the indices of the documents without one."""

class JsonRows:
    """Rows as a struct column."""

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]: ...

def write_documents(
    names: Sequence[str], columns: Sequence[Any]
) -> tuple[Column | None, int | None]:
    """Return one JSON object per row; columns are whatever gives Arrow data.

    None if a type or a value is not known. The index is that of the first row with a float that
    has no JSON form, and there are no documents then.
    """

def decode_record_batches(
    payload: bytes, offset: int, aborted: Sequence[tuple[int, int]], body_bytes_max: int
) -> tuple[Column, Column, Column, Column, list[list[tuple[str, bytes | None]]] | None] | None:
    """Return offsets, timestamps, keys, values and headers of the records of a chunk.

    None if anything in it is damaged or not certain.
    """

def encode_record_batches(
    keys: Column | Sequence[bytes | None],
    values: Column | Sequence[bytes | None],
    timestamps: Column | Sequence[int],
    max_batch_bytes: int,
) -> list[tuple[bytes, int, int]] | None:
    """Return payload, number of records and largest timestamp of each batch.

    None for what is not certain: a record that is too large, or other types than these.
    """

def key_partitions(
    keys: Column | Sequence[bytes | None], count: int, without_key: int
) -> tuple[Column, bool] | None:
    """Return the partition of each key, and whether any is None: they are in ``without_key``.

    None if the keys are of another type.
    """
