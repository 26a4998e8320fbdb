"""A worker stands still past its session, others take over, and it wakes up: one owner commits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from .harness import Settings
from .workers import SESSION_TIMEOUT_S

if TYPE_CHECKING:
    from .conftest import Say, StartJob

STILL_S = SESSION_TIMEOUT_S + 5
ROUNDS = 3
DEADLINE_S = 60
FENCED = "was taken over by another worker"


@pytest.mark.kafka
@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_worker_that_wakes_up_after_its_session_commits_nothing(
    start_job: StartJob, say: Say
) -> None:
    async with start_job(Settings(rate=300, seed=2)) as run:
        workers = run.workers
        fenced_in_all = 0
        for number in range(ROUNDS):
            slot = workers.slots[number]
            await run.wait_until(
                lambda slot=slot: bool(slot.tasks()), DEADLINE_S, f"tasks in worker {number}"
            )
            tasks, before, read = slot.tasks(), run.commits.generations(), len(slot.text())
            workers.pause(number)
            await asyncio.sleep(STILL_S)
            await run.wait_until(
                lambda tasks=tasks, before=before: all(
                    run.commits.generations()[task] > before[task] for task in tasks
                ),
                DEADLINE_S,
                f"others taking over {tasks}",
            )
            workers.resume(number)
            await run.wait_until(
                lambda slot=slot, read=read: "starts at epoch" in slot.text()[read:],
                DEADLINE_S,
                "a task in the worker that woke up",
            )
            # None is where it had nothing to commit when it woke up, and the group told it first.
            fenced = slot.text()[read:].count(FENCED)
            fenced_in_all += fenced
            say(f"worker {number} stood still for {STILL_S:.0f} s, {fenced} of {tasks} fenced")
        await run.settle()
        assert fenced_in_all > 0
        assert [slot.lives for slot in workers.slots] == [1, 1, 1], "nobody restarted them"
        say(str(await run.verify()))
