"""What the kernel's steps spare whoever else runs: the interpreter, and objects per record."""

from __future__ import annotations

import gc
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from riverrun.engine.batch import KEY, TIME
from riverrun.engine.kernel.plane import KernelPlane
from riverrun.engine.log import Chunk, TopicPartition
from riverrun.engine.schema import Record, Schema
from riverrun.state import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLANE = KernelPlane()
DEADLINE_S = 60
SWITCH_INTERVAL_S = 1_000.0
BLOCKS_PER_BATCH_MAX = 300
"""Objects that a batch of any size may make."""


class Order(Record):
    user: str
    amount: float


def orders(count: int) -> pl.DataFrame:
    number = pl.int_range(count, dtype=pl.Int64, eager=True)
    users = pl.select(pl.format("user-{}", number % 1_000)).to_series()
    return pl.DataFrame({"user": users, "amount": number.cast(pl.Float64), "ts": number})


def steps_of(count: int) -> dict[str, Callable[[], Any]]:
    """Return each step, with what it takes ready."""
    frame = orders(count)
    keys, stamps = frame["user"].cast(pl.Binary), frame["ts"]
    documents = PLANE.json_writer().write(frame.select("user", "amount"))
    assert documents is not None
    (batch,) = PLANE.record_batches.encode(keys, documents, stamps, None, 1 << 26)
    chunk = Chunk(TopicPartition("orders", 0), 0, count, batch.payload, ())
    projector = PLANE.json_projector(Schema.of(Order))
    values = PLANE.record_batches.decode(chunk).values
    table = PLANE.window_table({"total": "sum"}, b"t", MemoryStore())
    inputs = pl.DataFrame({KEY: frame["user"], TIME: stamps, "total": frame["amount"]})
    slices = stamps // 60_000 * 60_000
    return {
        "decode": lambda: PLANE.record_batches.decode(chunk),
        "project": lambda: projector.project(values),
        "update": lambda: table.update(inputs, slices),
        "write": lambda: PLANE.json_writer().write(frame.select("user", "amount")),
        "partition": lambda: PLANE.partitioner(64).partitions(keys),
        "encode": lambda: PLANE.record_batches.encode(keys, documents, stamps, None, 1 << 20),
    }


STEPS = ["decode", "project", "update", "write", "partition", "encode"]


@pytest.fixture
def ticks() -> Iterator[list[int]]:
    """Counted up by a thread that never gets the interpreter unless somebody lets go of it."""
    counted, stop = [0], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0.0001)

    thread = threading.Thread(target=tick, daemon=True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        sys.setswitchinterval(before)
        thread.join(DEADLINE_S)


def runs_meanwhile(step: Callable[[], Any], ticks: list[int]) -> bool:
    """Return whether the other thread runs during a step; it may need some to be so lucky."""
    deadline_s = time.monotonic() + DEADLINE_S / 2
    while time.monotonic() < deadline_s:
        time.sleep(0)
        before = ticks[0]
        step()
        if ticks[0] != before:
            return True
    return False


@pytest.mark.parametrize("name", STEPS)
def test_another_thread_runs_during_a_step(name: str, ticks: list[int]) -> None:
    assert runs_meanwhile(steps_of(50_000)[name], ticks)


def test_without_letting_go_no_other_thread_runs(
    ticks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "DEADLINE_S", 2)
    assert not runs_meanwhile(lambda: sum(range(50_000)), ticks)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_makes_no_objects_per_record(name: str) -> None:
    step = steps_of(50_000)[name]
    step()
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        result = step()
        made = sys.getallocatedblocks() - before
    finally:
        gc.enable()
    del result
    assert made < BLOCKS_PER_BATCH_MAX
