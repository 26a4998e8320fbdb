"""Sessions in the job under simulation, and what must come out of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import polars as pl

from riverrun.operators.aggregates import Count, Sum
from riverrun.operators.aggregation import Aggregation
from riverrun.operators.results import WINDOW_END, WINDOW_START, ResultShape
from riverrun.operators.session import SessionAggregate

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence

STEP = "sessions"
RESULTS = "session-results"
LATE = "session-late"

Found = tuple[str, dict[str, Any]]
"""Key and value of a record that came out."""


@dataclass(frozen=True)
class Sessions:
    """A step of sessions.

    Attributes:
        gap_ms: The silence that ends a session.
        lateness_ms: How long it can be extended after that.
    """

    gap_ms: int
    lateness_ms: int

    @staticmethod
    def by_chance(rng: random.Random) -> Sessions | None:
        """Return what a job has, None if it has no such step."""
        found = Sessions(rng.choice([200, 1_000, 4_000]), rng.choice([0, 0, 500, 5_000]))
        return found if rng.random() < 0.7 else None

    def operator(self) -> SessionAggregate:
        """Return the step; its types are declared, so that the kernel keeps it natively."""
        aggregates = {"count": Count(), "sum": Sum("amount")}
        types = {"sum": pl.Int64()}
        aggregation = Aggregation(ResultShape(("key",)), aggregates, input_types=types)
        return SessionAggregate(self.gap_ms, aggregation, self.lateness_ms)

    def expected(self, sent: Iterable[dict[str, Any]]) -> dict[tuple[str, int, int], list[int]]:
        """Return count and sum by key, start and end: what one pass over all records gives."""

        def key_of(record: dict[str, Any]) -> str:
            return record["key"]

        sessions: dict[tuple[str, int, int], list[int]] = {}
        for key, alike in groupby(sorted(sent, key=key_of), key_of):
            together: list[dict[str, Any]] = []
            for record in sorted(alike, key=lambda record: record["ts"]):
                if together and record["ts"] >= together[-1]["ts"] + self.gap_ms:
                    self._close(sessions, key, together)
                    together = []
                together.append(record)
            self._close(sessions, key, together)
        return sessions

    def _close(
        self,
        sessions: dict[tuple[str, int, int], list[int]],
        key: str,
        together: Sequence[dict[str, Any]],
    ) -> None:
        span = key, together[0]["ts"], together[-1]["ts"] + self.gap_ms
        sessions[span] = [len(together), sum(record["amount"] for record in together)]

    def problems(
        self,
        sent: Iterable[dict[str, Any]],
        results: Iterable[Found],
        late: Sequence[Found],
        *,
        exactly: bool,
    ) -> list[str]:
        """Return what is wrong with results, given all records that they should tell of.

        Args:
            sent: The records whose sessions have ended.
            results: What came out.
            late: Records that were told as late; none is.
            exactly: Whether each is to be told once; otherwise records may count twice.
        """
        expected = self.expected(sent)
        found: dict[tuple[str, int, int], list[list[int]]] = {}
        for key, row in results:
            span = key, row[WINDOW_START], row[WINDOW_END]
            found.setdefault(span, []).append([row["count"], row["sum"]])
        problems = [f"session {span} is not expected" for span in found.keys() - expected.keys()]
        if exactly and late:
            problems.append(f"{len(late)} records came late to sessions, such as {late[0]}")
        for span, value in expected.items():
            values = found.get(span, [])
            is_right = values == [value] if exactly else bool(values) and min(values) >= value
            if not is_right:
                problems.append(f"{self}, session {span}: {value} expected, got {values}")
        return problems
