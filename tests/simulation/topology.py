"""The job under simulation: a repartition; windows, running counts and sessions behind it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from riverrun.engine.batch import Batch
from riverrun.engine.codec import DecodedValues
from riverrun.engine.graph import (
    Edge,
    Graph,
    OperatorNode,
    RepartitionNode,
    SinkNode,
    SourceNode,
    WatermarkPolicy,
)
from riverrun.engine.operator import OperatorLogic

from . import sessions as session_step

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from riverrun.engine.operator import Collector, OperatorContext
    from riverrun.engine.task_state import KeyedTable

    from .sessions import Sessions

WINDOW_MS = 1_000
DISORDER_MS = 700
PARTITIONS = 2
_START = struct.Struct(">Q")


@dataclass(frozen=True)
class JsonRows:
    """JSON values as dicts, without a schema."""

    schema: None = None

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        return DecodedValues(rows=[msgspec.json.decode(value or b"null") for value in values])

    def encode(self, batch: Batch) -> list[bytes | None]:
        return [msgspec.json.encode(row) for row in batch.rows()]


@dataclass(frozen=True)
class Rekey:
    """Puts records under their field ``key``."""

    def build(self, context: OperatorContext) -> OperatorLogic:
        return _Rekey()


class _Rekey(OperatorLogic):
    def on_batch(self, batch: Batch, out: Collector) -> None:
        out.emit(batch.with_keys([row["key"] for row in batch.rows()]))


@dataclass(frozen=True)
class SlowCall:
    """An async step: returns the value as it is, some time later."""

    rng: random.Random
    ordered: Literal["key", "stream"]

    def build(self, context: OperatorContext) -> _SlowCall:
        return _SlowCall(self.rng, self.ordered)


class _SlowCall:
    in_flight_max = 3

    def __init__(self, rng: random.Random, ordered: Literal["key", "stream"]) -> None:
        self._rng = rng
        self.ordered = ordered

    async def call(self, value: Any) -> Any:
        import asyncio

        await asyncio.sleep(self._rng.choice([0, 0.001, 0.02]))
        return value


@dataclass(frozen=True)
class Tumbling:
    """Counts and sums per key and window, emitted once; late records go to port 1."""

    state_signature = "tumbling"

    def build(self, context: OperatorContext) -> OperatorLogic:
        return _Tumbling(context.state.keyed_table(f"{context.step}.windows"))


class _Tumbling(OperatorLogic):
    def __init__(self, table: KeyedTable) -> None:
        self._table = table
        self._closed_ms = 0  # windows that start before this are closed

    def on_batch(self, batch: Batch, out: Collector) -> None:
        late: list[int] = []
        for index, (row, time, key) in enumerate(
            zip(batch.rows(), batch.times(), batch.keys(), strict=True)
        ):
            start_ms = time - time % WINDOW_MS
            if start_ms < self._closed_ms:
                late.append(index)
                continue
            at = _START.pack(start_ms) + key.encode()
            before = self._table.get(at)
            count, total = msgspec.msgpack.decode(before) if before else (0, 0)
            self._table.put(at, msgspec.msgpack.encode((count + 1, total + row["amount"])))
        if late:
            out.emit(batch.take(late), port=1)

    def on_watermark(self, watermark_ms: int, out: Collector) -> None:
        self._closed_ms = max(watermark_ms - watermark_ms % WINDOW_MS, 0)
        due = list(self._table.scan(b"", _START.pack(self._closed_ms)))
        rows, times, keys = [], [], []
        for at, value in due:
            (start_ms,) = _START.unpack_from(at)
            count, total = msgspec.msgpack.decode(value)
            rows.append({"start": start_ms, "count": count, "sum": total})
            times.append(start_ms + WINDOW_MS - 1)
            keys.append(at[_START.size :].decode())
            self._table.delete(at)
        out.emit(Batch.of_rows(rows, times, keys=keys))


@dataclass(frozen=True)
class RunningCount:
    """Emits for each record how many its key has had."""

    state_signature = "running"

    def build(self, context: OperatorContext) -> OperatorLogic:
        return _RunningCount(context.state.keyed_table(f"{context.step}.counts"))


class _RunningCount(OperatorLogic):
    def __init__(self, table: KeyedTable) -> None:
        self._table = table

    def on_batch(self, batch: Batch, out: Collector) -> None:
        rows = []
        for row, key in zip(batch.rows(), batch.keys(), strict=True):
            count = int(self._table.get(key.encode()) or b"0") + 1
            self._table.put(key.encode(), str(count).encode())
            rows.append({"n": count, "id": row["id"]})
        out.emit(batch.with_values(rows))


def source(name: str) -> SourceNode:
    """Return the source that reads the topic of that name."""
    return SourceNode(
        name,
        name,
        JsonRows(),
        None,
        "ts",
        WatermarkPolicy(out_of_orderness_ms=DISORDER_MS),
        "text",
        None,
        "fail",
        partitions=PARTITIONS,
    )


def operator(name: str, what: Any, *inputs: str, keyed: bool = False) -> OperatorNode:
    """Return a step behind port 0 of others."""
    return OperatorNode(name, what, tuple(map(Edge, inputs)), None, "fail", name, keyed)


def sink(name: str, step: str, port: int = 0) -> SinkNode:
    """Return the sink that writes the topic of that name."""
    return SinkNode(name, Edge(step, port), name, JsonRows(), "fail", PARTITIONS)


def job(
    rng: random.Random, *, sources: int, asynchronous: str | None, sessions: Sessions | None
) -> Graph:
    """Return the graph: sources, key_by, windows and running counts, and what else is wanted."""
    graph = Graph("sim")
    names = [f"in{number}" for number in range(sources)]
    for name in names:
        graph.add(source(name))
    before = names
    if asynchronous is not None:
        graph.add(operator("slow", SlowCall(rng, asynchronous), *before))  # type: ignore[arg-type]
        before = ["slow"]
    graph.add(operator("rekey", Rekey(), *before))
    graph.add(RepartitionNode("by-key", Edge("rekey"), None, PARTITIONS))
    graph.add(operator("windows", Tumbling(), "by-key", keyed=True))
    graph.add(sink("window-results", "windows"))
    graph.add(sink("late", "windows", 1))
    graph.add(operator("running", RunningCount(), "by-key", keyed=True))
    graph.add(sink("counts", "running"))
    if sessions is not None:
        graph.add(operator(session_step.STEP, sessions.operator(), "by-key", keyed=True))
        graph.add(sink(session_step.RESULTS, session_step.STEP))
        graph.add(sink(session_step.LATE, session_step.STEP, 1))
    return graph
