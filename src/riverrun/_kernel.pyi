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
    def is_text(self) -> bool:
        """Return whether all bytes are UTF-8, and there is no null."""
    def to_text(self) -> Column:
        """Return bytes as text.

        Raises:
            ValueError: If any of them is no UTF-8.
        """
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

Results = tuple[Column, Column, bool, list[Column]] | int | None
"""Starts of windows, keys, whether these are state keys, and a column per aggregate.

None if there are no rows, the number of an aggregate if its sum does not fit in 64 bits.
"""

class WindowRows:
    """Keyed window aggregates of numbers; ``KernelWindowTable`` makes use of it."""

    def __init__(self, kinds: Sequence[str], prefix: bytes) -> None: ...
    @property
    def tags(self) -> list[str]:
        """Type of each aggregate's values, as far as seen."""
    @property
    def size(self) -> int:
        """Bytes of memory that the rows take, about."""
    def knows(self, tags: Sequence[str]) -> bool:
        """Return whether values of some types can be held here."""
    def widen(self, tags: Sequence[str]) -> None:
        """Make room for values of wider types."""
    def open_slices(self, slices: Sequence[tuple[int, int]]) -> None:
        """Add slices that the store has rows of: start, number of rows."""
    def slices(self) -> list[int]:
        """Return the starts of all slices, in order."""
    def prepare(
        self,
        keys: Any,
        form: str,
        slice_starts: Any,
        times: Any | None,
        inputs: Sequence[Any | None],
    ) -> list[bytes] | int:
        """Take a batch, and return the state keys of rows that the store may have.

        Returns the number of an aggregate whose sum overflows by the batch alone: then nothing is
        taken.
        """
    def apply(self, tags: Sequence[str]) -> int | None:
        """Add the batch, with values of the types ``tags``.

        Returns the number of an aggregate whose sum overflows: then nothing is added.
        """
    def abandon(self) -> None:
        """Forget what was prepared."""
    def take_stored(
        self, names: Sequence[bytes], rows: Sequence[bytes | None], at: int, hold: bool
    ) -> tuple[int, list[str] | None]:
        """Take rows of the store, to be held or read once, from ``at`` on.

        Returns how far it came and, if that row has values of other types, their tags.
        """
    def group(self, windows: Sequence[int], size: int, rows_max: int) -> tuple[list[int], int]:
        """Return the next windows that have rows, and where in ``windows`` to go on."""
    def incomplete_runs(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return first and last of runs of slices that have rows in the store alone."""
    def collect(self, windows: Sequence[int], size: int) -> Results:
        """Return results of windows."""
    def prepare_pairs(self, windows: Sequence[int], size: int, keys: Any, form: str) -> list[bytes]:
        """Begin to read one key of each window; return the keys of rows the store may have."""
    def collect_pairs(self, windows: Sequence[int], size: int) -> Results:
        """Return results of one key of each window."""
    def remove_below(self, start: int) -> int | None:
        """Drop all slices before ``start``, and return where the first of them began."""
    def drain(self, size_max: int) -> list[tuple[bytes, bytes, int, bytes]]:
        """Return what changed as blocks; above ``size_max`` bytes, drop what was clean before."""
    def export(
        self, start: int
    ) -> tuple[bool, int, list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
        """Return a slice: whether it is complete, its rows in all, clean rows and changed ones."""

Sessions = tuple[Column, bool, Column, Column, list[Column]]
"""Keys, whether these are state keys, starts, ends, and a column per aggregate."""

class SessionRows:
    """Keyed sessions with aggregates of numbers; ``KernelSessionTable`` makes use of it."""

    def __init__(
        self,
        aggregates: Sequence[tuple[str, bool]],
        gap: int,
        lateness: int,
        rows_prefix: bytes,
        timers_prefix: bytes,
    ) -> None:
        """Take the kind of each aggregate, and whether its values are floats."""
    @property
    def size(self) -> int:
        """Bytes of memory that all takes, about."""
    def open_stored(self) -> None:
        """Take note that the store has sessions already."""
    def prepare(
        self, keys: Any, form: str, times: Any, inputs: Sequence[Any | None]
    ) -> list[bytes]:
        """Take a batch, and return the state keys of rows that the store may have."""
    def take_rows(self, names: Sequence[bytes], rows: Sequence[bytes | None]) -> bool:
        """Take rows of the store; False if one is not of this table."""
    def apply(
        self, watermark: int, tells_changed: bool
    ) -> tuple[list[int], Sessions | None] | None:
        """Add the batch; return the indices of late records and the sessions that changed.

        None, and nothing is added, if something may not fit in 64 bits.
        """
    def missing_timers(self, watermark: int) -> tuple[bytes, bytes] | None:
        """Return the range of state keys of timers to be read before ``prepare_end``."""
    def take_timers(self, names: Sequence[bytes]) -> bool:
        """Take timers of the store; False if one is not of this table."""
    def timers_taken(self, watermark: int) -> None:
        """Take note that all of that range were taken."""
    def prepare_end(self, watermark: int) -> list[bytes]:
        """Take out the keys that are due; return the state keys of rows the store may have."""
    def end(self, watermark: int) -> Sessions | None:
        """Return the sessions that have ended, of keys that are due."""
    def drain(self, size_max: int) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Return what changed: rows, and state keys that are gone.

        Above ``size_max`` bytes of memory, drops what the store has too.
        """
    def export(
        self,
    ) -> tuple[list[tuple[bytes, bytes | None]], list[tuple[int, bytes, bool]]]:
        """Return key and row, None for none, and time, key and state of timers, as changed."""
