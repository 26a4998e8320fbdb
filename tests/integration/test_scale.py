"""Workers come and go under load, in good order: nothing is done twice, few tasks move."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from . import oracle
from .harness import Settings

if TYPE_CHECKING:
    from .conftest import Say, StartJob
    from .harness import Run

DEADLINE_S = 60
WORK_S = 4
"""How long each number of workers goes on."""

TASKS = 8


@pytest.mark.kafka
@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_scaling_out_and_in_repeats_nothing_and_moves_few_tasks(
    start_job: StartJob, say: Say
) -> None:
    async with start_job(Settings(workers=1, rate=400, seed=4)) as run:
        workers = run.workers
        first = workers.slots[0]
        await asyncio.sleep(WORK_S)
        alone = run.commits.generations()

        workers.start(1)
        workers.start(2)
        await run.wait_until(lambda: _shares(run) == [2, 3, 3], DEADLINE_S, "three shares")
        await asyncio.sleep(WORK_S)
        shared = run.commits.generations()
        kept = first.tasks()
        assert {task: shared[task] for task in kept} == {task: alone[task] for task in kept}

        ends = {topic: await _ends(run, topic) for topic in ("accepted", "running")}
        for number in (1, 2):
            assert workers.stop(number) == 0
            await run.wait_until(
                lambda: sum(_shares(run)) == TASKS, DEADLINE_S, f"what worker {number} left"
            )
            await asyncio.sleep(WORK_S)
        after = run.commits.generations()
        assert {task: after[task] for task in kept} == {task: alone[task] for task in kept}

        await run.settle()
        verdict = await run.verify()
        for topic, end in ends.items():
            assert await _repeated(run, topic, end) == []
        starts = sum(map(len, run.commits.starts().values()))
    say(f"{len(kept)} tasks ran through, {starts - TASKS} restarts of the others; {verdict}")


def _shares(run: Run) -> list[int]:
    return sorted(len(slot.tasks()) for slot in run.workers.slots if slot.running)


async def _ends(run: Run, topic: str) -> dict[int, int]:
    """Return how many records each partition holds, those in open transactions included."""
    rows = await oracle.read_topic(run.broker, run.topic(topic), oracle.UNCOMMITTED)
    return {partition: len(part) for partition, part in rows.items()}


async def _repeated(run: Run, topic: str, since: dict[int, int]) -> list[int]:
    """Return the orders that a reader of everything sees again after ``since``."""
    rows = await oracle.read_topic(run.broker, run.topic(topic), oracle.UNCOMMITTED)
    seen = Counter(row["id"] for part in rows.values() for row in part)
    late = {row["id"] for partition, part in rows.items() for row in part[since[partition] :]}
    return sorted(each for each in late if seen[each] > 1)
