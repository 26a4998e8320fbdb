"""Whole lives of a job, each from one seed: faults at every place, then a comparison.

``SEED=1234 pytest tests/simulation`` runs one seed alone. ``SEEDS=5000`` runs that many of each.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from riverrun.engine.memory_storage import MemoryStorage
from riverrun.engine.task import Task
from riverrun.engine.task_state import TaskState
from riverrun.state import Delta, OverlayStore

from .scenario import Outcome, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from riverrun.engine.config import Guarantee

SEEDS = int(os.environ.get("SEEDS", "50"))
ONE = os.environ.get("SEED")
GROUPS = 5
"""The seeds run in this many tests, so that a failure comes early and each test stays short."""


def seeds_of(group: int) -> list[int]:
    if ONE is not None:
        return [int(ONE)] if group == 0 else []
    return list(range(group, SEEDS, GROUPS))


def run(seed: int, room: Path, guarantee: Guarantee, *, faults: bool = True) -> Outcome:
    print(f"SEED={seed} {guarantee}")  # noqa: T201 - shown with a failure, also if it hangs
    outcome = Scenario(seed, room, guarantee, faults=faults).run()
    if outcome.problems:
        story = "\n".join(outcome.story)
        problems = "\n".join(outcome.problems[:20])
        pytest.fail(
            f"SEED={seed} {guarantee}\n{story}\n{len(outcome.problems)} problem(s):\n{problems}",
            pytrace=False,
        )
    return outcome


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory, in memory where that is possible: snapshots on their way are synced."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(dir=memory))
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Dying workers have a lot to say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_record_counts_exactly_once_whatever_dies(group: int, room: Path) -> None:
    for seed in seeds_of(group):
        run(seed, room, "exactly_once")


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_record_counts_at_least_once_whatever_dies(group: int, room: Path) -> None:
    for seed in seeds_of(group):
        run(seed, room, "at_least_once")


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_nothing_is_repeated_where_nothing_goes_wrong(guarantee: Guarantee, room: Path) -> None:
    for seed in range(3):
        run(seed, room, guarantee, faults=False)


def no_fencing() -> Any:
    return mock.patch.object(MemoryStorage, "check_owner", return_value=None)


def barrier_does_not_wait() -> Any:
    return mock.patch.object(Task, "_finish_async_work", new_callable=mock.AsyncMock)


def state_not_applied() -> Any:
    apply = OverlayStore.apply

    def apply_nothing(store: OverlayStore, delta: Delta, meta: bytes) -> None:
        del delta
        apply(store, Delta(), meta)

    return mock.patch.object(OverlayStore, "apply", apply_nothing)


def timers_not_drained() -> Any:
    drain = TaskState.drain_delta

    def drain_without_timers(state: TaskState) -> Delta:
        delta = drain(state)
        # Theirs are the only rows without a value.
        delta.puts = {name: row for name, row in delta.puts.items() if row}
        return delta

    return mock.patch.object(TaskState, "drain_delta", drain_without_timers)


@pytest.mark.parametrize(
    "bug", [no_fencing, barrier_does_not_wait, state_not_applied, timers_not_drained]
)
def test_the_simulation_finds_a_bug_that_is_put_in(bug: Callable[[], Any], room: Path) -> None:
    with bug():
        found = any(Scenario(seed, room).run().problems for seed in range(100))

    assert found


def test_the_same_seed_tells_the_same_story(room: Path) -> None:
    first, second = (run(14, room, "at_least_once") for _ in range(2))

    assert first == second


def test_the_simulation_reaches_what_it_is_for(room: Path) -> None:
    outcomes = [run(seed, room, "exactly_once") for seed in range(12)]

    places = {place for outcome in outcomes for place in outcome.deaths}
    assert {"kill", "before_commit", "after_commit"} <= places
    assert sum(outcome.pauses for outcome in outcomes) > 5
    assert sum(outcome.sessions for outcome in outcomes) > 50
