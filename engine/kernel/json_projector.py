"""JSON documents to columns of a declared type, by the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from riverrun._kernel import JsonProjector
from riverrun.engine.codec import DecodedValues
from riverrun.engine.reference.json_projector import ReferenceJsonProjector

from .json_fields import fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.schema import Schema


def projects(schema: Schema) -> bool:
    """Return whether the kernel may read the documents of a schema."""
    return fields_of(schema) is not None


RESTS_MAX = 64
"""Most batches in a row that are left to the reference without a look at them."""


class KernelJsonProjector:
    """Documents to columns; what the kernel is not certain of, the reference judges.

    Where whole batches turn out to be the reference's (times in other zones, say), it is asked
    at once for the next one, then for two, and so on.

    Args:
        schema: One that ``projects`` says yes to.

    Raises:
        ValueError: If it is another.
    """

    def __init__(self, schema: Schema) -> None:
        fields = fields_of(schema)
        if fields is None:
            raise ValueError(f"the kernel does not read {schema.record_type!r}")
        self._schema = schema
        self._names = list(schema.fields)
        self._native = JsonProjector(fields)
        self._reference = ReferenceJsonProjector(schema)
        self._rests = 0
        self._rests_next = 1

    def project(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Decode documents to columns; bad ones are isolated with position and reason."""
        if self._rests > 0:
            self._rests -= 1
            return self._reference.project(values)
        rows, uncertain = self._native.project(values)
        if uncertain and len(uncertain) == len(values):
            return self._whole(values)
        frame = pl.Series("", rows).struct.unnest()
        frame.columns = self._names
        if not uncertain:
            self._rests_next = 1
            return DecodedValues(frame=frame)
        judged = self._reference.project([values[index] for index in uncertain])
        failures = [(uncertain[index], error) for index, error in judged.failures]
        accepted = uncertain if judged.kept is None else [uncertain[i] for i in judged.kept]
        kept = None
        if failures:
            failed = {index for index, _ in failures}
            kept = [index for index in range(len(values)) if index not in failed]
        if accepted:
            more = self._columns(judged.rows or [])
            if more is None:
                # Columns would not say all that these rows do.
                return self._whole(values)
            frame = _merged(frame, more, accepted, kept or range(len(values)))
        self._rests_next = 1
        return DecodedValues(frame=frame, kept=kept, failures=failures)

    def _whole(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Let the reference decode all documents, and the next batches too."""
        self._rests = self._rests_next
        self._rests_next = min(2 * self._rests_next, RESTS_MAX)
        return self._reference.project(values)

    def _columns(self, rows: list[Any]) -> pl.DataFrame | None:
        """Return rows as columns, None if they cannot be had back as they were."""
        try:
            frame = self._schema.to_frame(rows)
            again = self._schema.to_rows(frame)
        except (TypeError, ValueError):
            return None
        # Equal ones may be written differently: a default that msgspec did not set.
        is_same = again == rows and msgspec.to_builtins(again) == msgspec.to_builtins(rows)
        return frame if is_same else None


def _merged(
    certain: pl.DataFrame, more: pl.DataFrame, accepted: list[int], kept: Sequence[int]
) -> pl.DataFrame:
    """Return the rows of two frames in the order of their documents; those of ``more`` are named.

    Args:
        certain: Rows of the other documents of ``kept``, in order.
        more: Rows of ``accepted``.
        accepted: Documents of ``more``, in order.
        kept: All documents that have a row, in order.
    """
    later = set(accepted)
    others = (index for index in kept if index not in later)
    document = pl.Series("", [*others, *accepted], dtype=pl.Int64)
    return pl.concat([certain, more])[document.arg_sort()]
