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
