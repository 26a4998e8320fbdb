"""At least once: kills repeat results, and lose none."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from . import oracle
from .harness import Settings

if TYPE_CHECKING:
    from .conftest import Say, StartJob
    from .harness import Run

KILLS = 12
PAUSE_S = (1.0, 4.0)
SEED = 5


@pytest.mark.kafka
@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_at_least_once_loses_nothing_through_kills(start_job: StartJob, say: Say) -> None:
    chance = random.Random(SEED)
    settings = Settings(rate=300, seed=SEED, options=("--guarantee", "at_least_once"))
    async with start_job(settings) as run:
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            victim = chance.randrange(len(run.workers.slots))
            run.workers.check_alive()
            run.workers.kill(victim)
            run.workers.start(victim)
        await run.settle()
        assert set(run.workers.stop_all()) == {0}
        say(f"{KILLS} kills; {await _verify(run)}")


async def _verify(run: Run) -> str:
    expected = oracle.expect(await oracle.read_topic(run.broker, run.topic("orders")))
    findings = oracle.Findings()
    accepted = await _rows(run, "accepted")
    oracle.note_missing(
        "accepted", {row["id"] for row in accepted}, expected.accepted.keys(), findings
    )
    running = await _rows(run, "running")
    oracle.note_missing(
        "running counts", {row["id"] for row in running}, expected.accepted.keys(), findings
    )
    largest: dict[str, int] = defaultdict(int)
    for row in running:
        largest[row["user"]] = max(largest[row["user"]], row["n"])
    low = [user for user, ids in expected.ids.items() if largest[user] < len(ids)]
    findings.note("users counted too low", low)

    windows: dict[tuple[str, int], int] = defaultdict(int)
    for row in await _rows(run, "windows"):
        key = (row["user"], row["window_start"])
        windows[key] = max(windows[key], row["orders"])
    oracle.note_missing("windows", windows.keys(), expected.windows.keys(), findings)
    low_windows = [key for key, (_, count) in expected.windows.items() if windows[key] < count]
    findings.note("windows counted too low", low_windows)
    findings.check()
    twice = len(accepted) - len(expected.accepted)
    return (
        f"{len(expected.accepted)} accepted orders and {len(expected.windows)} windows all there, "
        f"{twice} orders accepted again"
    )


async def _rows(run: Run, name: str) -> oracle.Rows:
    rows = await oracle.read_topic(run.broker, run.topic(name))
    return [row for part in rows.values() for row in part]
