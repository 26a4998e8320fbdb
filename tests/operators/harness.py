"""Runs one operator of one task without an engine: batches and watermarks in, results out."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

from riverrun.engine.batch import Batch
from riverrun.engine.errors import RecordError
from riverrun.engine.operator import OperatorContext, OperatorLogic
from riverrun.engine.planes import select_plane
from riverrun.engine.task_state import TaskState
from riverrun.state.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.operator import OnError, Operator
    from riverrun.engine.plane import Plane
    from riverrun.engine.schema import Schema

STEP = "step"


@dataclass(frozen=True)
class Rec:
    """A record, in or out. Results of late records come out of another port."""

    value: Any
    time: int = 0
    key: Any = None


@dataclass(frozen=True)
class Watermark:
    """Event time goes on."""

    ms: int


@dataclass(frozen=True)
class WallClock:
    """The wall clock goes on."""

    ms: int


RESTART = "restart"
"""A barrier, then a new instance on what the first one left behind."""
BARRIER = "barrier"
"""A barrier, and the same instance goes on."""


class Collected:
    """What came out, by port, record by record."""

    def __init__(self) -> None:
        self.by_port: dict[int, list[Rec]] = {}
        self.batches: list[Batch] = []
        self.had_rows: list[bool] = []  # whether each batch had rows before they were looked at

    def emit(self, batch: Batch, port: int = 0) -> None:
        assert len(batch) > 0, "empty batches are not emitted"
        self.batches.append(batch)
        self.had_rows.append(batch.has_rows)
        found = zip(batch.rows(), batch.times(), batch.keys(), strict=True)
        self.by_port.setdefault(port, []).extend(Rec(*record) for record in found)

    def __getitem__(self, port: int) -> list[Rec]:
        return self.by_port.get(port, [])


class Failed:
    """The error policy of a step: what failed, and why."""

    def __init__(self, policy: OnError) -> None:
        self._policy = policy
        self.records: list[tuple[Any, str]] = []  # (value, reason)
        self.late = 0

    def record_failed(self, batch: Batch, index: int, error: Exception) -> None:
        if self._policy == "fail":
            raise RecordError(f"{type(error).__name__}: {error}") from error
        self.records.append((batch.rows()[index], f"{type(error).__name__}: {error}"))

    def count_late(self, count: int) -> None:
        self.late += count


@dataclass
class Run:
    """What became of a script."""

    out: Collected = field(default_factory=Collected)
    failed: Failed = field(default_factory=lambda: Failed("fail"))
    store: MemoryStore = field(default_factory=MemoryStore)
    logic: Any = None
    tables: list[str] = field(default_factory=list[str])

    @property
    def results(self) -> list[Rec]:
        """What came out of the first port."""
        return self.out[0]

    @property
    def values(self) -> list[Any]:
        """The values that came out of the first port."""
        return [record.value for record in self.results]


def batch_of(records: list[Rec], schema: Schema | None = None, *, columnar: bool = False) -> Batch:
    """Return records as a batch, in either form."""
    has_keys = any(record.key is not None for record in records)
    rows = Batch.of_rows(
        [record.value for record in records],
        [record.time for record in records],
        keys=[record.key for record in records] if has_keys else None,
        schema=schema,
    )
    if not columnar:
        return rows
    return Batch.of_frame(rows.frame(), schema=rows.schema)


class Task:
    """One operator in one task, on a store."""

    def __init__(self, operator: Operator, run: Run, planes: Sequence[Plane] = ()) -> None:
        self._operator = operator
        self._run = run
        self._planes = cycle(planes or [select_plane()])
        self._watermark_ms: int | None = None
        self._start()

    def _start(self) -> None:
        self._state = TaskState(self._run.store)
        context = OperatorContext(
            job="job",
            step=STEP,
            partition=0,
            plane=next(self._planes),
            state=self._state,
            failures=self._run.failed,
        )
        logic = self._operator.build(context)
        assert isinstance(logic, OperatorLogic)
        self._run.logic = self._logic = logic
        self._run.tables = self._state.names

    def batch(self, batch: Batch) -> None:
        self._logic.on_batch(batch, self._run.out)

    def watermark(self, ms: int) -> None:
        self._watermark_ms = ms
        self._logic.on_watermark(ms, self._run.out)

    def wall_clock(self, ms: int) -> None:
        wanted = self._logic.next_processing_time_ms()
        if wanted is not None and wanted <= ms:
            self._logic.on_processing_time(ms, self._run.out)

    def barrier(self) -> None:
        self._run.store.apply(self._state.drain_delta(), b"")

    def restart(self) -> None:
        self.barrier()
        self._start()
        if self._watermark_ms is not None:
            self._logic.on_watermark(self._watermark_ms, self._run.out)


def run(
    operator: Operator,
    *script: Rec | list[Rec] | Batch | Watermark | WallClock | str,
    policy: OnError = "fail",
    schema: Schema | None = None,
    columnar: bool = False,
    planes: Sequence[Plane] = (),
) -> Run:
    """Run an operator over a script.

    Args:
        operator: The operator.
        script: Batches, as lists of records, and what happens between them.
        policy: What becomes of records that cannot be processed.
        schema: Schema of the records.
        columnar: Whether batches come as columns.
        planes: The first instance is on the first plane, after a restart on the next one, in turn;
            the plane that the tests are for unless given.
    """
    result = Run(failed=Failed(policy))
    task = Task(operator, result, planes)
    for item in script:
        match item:
            case Rec():
                task.batch(batch_of([item], schema, columnar=columnar))
            case list():
                task.batch(batch_of(item, schema, columnar=columnar))
            case Batch():
                task.batch(item)
            case Watermark(ms):
                task.watermark(ms)
            case WallClock(ms):
                task.wall_clock(ms)
            case "restart":
                task.restart()
            case "barrier":
                task.barrier()
            case _:
                raise AssertionError(item)
    return result
