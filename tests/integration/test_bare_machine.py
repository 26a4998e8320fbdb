"""A worker loses its disk: state comes back from a snapshot and what follows in the changelog."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from riverrun.engine.log import TopicPartition

from .harness import Settings
from .topologies import PARTITIONS

if TYPE_CHECKING:
    from .conftest import Say, StartJob
    from .harness import Run

DEADLINE_S = 90
KEYED = "1"
"""The subtopology that keeps state."""


@pytest.mark.kafka
@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_worker_without_its_disk_goes_on_from_snapshot_and_changelog(
    start_job: StartJob, say: Say
) -> None:
    async with start_job(Settings(workers=1, rate=400, seed=3)) as run:

        async def all_truncated() -> bool:
            return min(await _changelog_starts(run)) > 0

        await run.wait_until(all_truncated, DEADLINE_S, "truncated changelogs")
        slot = run.workers.slots[0]
        run.workers.kill(0)
        shutil.rmtree(slot.state)
        starts = await _changelog_starts(run)
        run.workers.start(0)
        await run.wait_until(
            lambda: slot.present_life().count("starts at epoch") >= 2 * PARTITIONS,
            DEADLINE_S,
            "all tasks restored",
        )
        started = re.compile(rf"task {KEYED}-\d+ starts at epoch .*")
        lines = started.findall(slot.present_life())
        await asyncio.sleep(3)
        await run.settle()
        verdict = await run.verify()

    assert len(lines) == PARTITIONS
    assert all("state from snapshot" in line for line in lines), "\n".join(lines)
    # Nothing begins at offset 0 any more: without the snapshots there was no way back.
    assert min(starts) > 0
    say(f"{len(lines)} tasks from snapshots, changelogs began at offsets {starts}; {verdict}")


async def _changelog_starts(run: Run) -> list[int]:
    changelog = run.plan.changelog(KEYED)
    spans = await run.log.offsets([TopicPartition(changelog, each) for each in range(PARTITIONS)])
    return [span.start for span in spans.values()]
