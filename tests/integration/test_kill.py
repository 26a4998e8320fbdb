"""Workers are killed a hundred times, at random and at every failpoint; no result changes."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from riverrun.engine.failpoints import FAILPOINTS

from .harness import Settings
from .workers import Deadline

if TYPE_CHECKING:
    from .conftest import Say, StartJob
    from .harness import Run
    from .workers import Slot

SEED = 20_240_229
KILLS_MIN = 100
ROUNDS = 3
"""How often each failpoint kills."""

WORKING_S = (0.0, 2.5)
"""How long a worker works before it is killed at random."""

STARTING_S = (0.0, 2.0)
STARTING_SHARE = 0.2
"""How many are killed so soon that they may not have begun to work."""

BARE_EVERY = 12
"""One in so many of those killed at random loses its state directory as well."""

START_DEADLINE_S = 120

# Passed once for each start of a task, or once for each snapshot.
SELDOM = {
    "after_open_writer",
    "after_restore",
    "after_checkpoint",
    "after_snapshot_upload",
    "before_snapshot_collect",
}
AT_CLOSE = "before_close"
PASSES_MAX = 20
FAILPOINT_DEADLINE_S = 120
SAY_EVERY = 10


@dataclass
class Killer:
    """Kills workers of a run in two ways at once, never two ways in one slot."""

    run: Run
    chance: random.Random
    kills: int = 0
    at_failpoints: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAILPOINTS, 0))
    reserved: int = 0
    at_random: int = 0
    bare: int = 0

    async def kill(self) -> None:
        failpoints = asyncio.create_task(self._at_failpoints())
        try:
            while not failpoints.done() or self.kills < KILLS_MIN:
                await self._at_random()
            await failpoints
        finally:
            failpoints.cancel()

    async def _at_random(self) -> None:
        slots = [slot for slot in self.run.workers.slots if slot.number != self.reserved]
        victim = self.chance.choice(slots)
        if self.chance.random() < STARTING_SHARE:
            await asyncio.sleep(self.chance.uniform(*STARTING_S))
        elif await self._works(victim):
            await asyncio.sleep(self.chance.uniform(*WORKING_S))
        if victim.number == self.reserved:
            return
        self.run.workers.check_alive()
        self.run.workers.kill(victim.number)
        self.at_random += 1
        if self.at_random % BARE_EVERY == 0:
            shutil.rmtree(victim.state, ignore_errors=True)
            self.bare += 1
        self.run.workers.start(victim.number)
        await self._count()

    async def _works(self, slot: Slot) -> bool:
        """Wait until a task runs in a worker; return False if the slot is taken meanwhile."""
        deadline = Deadline(START_DEADLINE_S, f"a task in worker {slot.number}")
        life = slot.lives
        while "starts at epoch" not in slot.present_life():
            if slot.lives != life or not slot.running:
                return False
            deadline.check()
            await asyncio.sleep(0.1)
        return True

    async def _at_failpoints(self) -> None:
        cases = [name for name in FAILPOINTS for _ in range(ROUNDS)]
        self.chance.shuffle(cases)
        for number, name in enumerate(cases):
            slot = self.run.workers.slots[number % len(self.run.workers.slots)]
            self.reserved = slot.number
            passes = self.chance.randint(1, 2 if name in SELDOM else PASSES_MAX)
            if name == AT_CLOSE:
                passes = 1
            self.run.workers.kill(slot.number)
            self.run.workers.start(slot.number, failpoints=f"{name}:{passes}")
            await self._count()
            if name == AT_CLOSE:
                await self._works(slot)
                self.run.workers.ask_to_stop(slot.number)
            deadline = Deadline(FAILPOINT_DEADLINE_S, f"worker {slot.number} at {name}:{passes}")
            while slot.running:
                deadline.check()
                await asyncio.sleep(0.05)
            assert slot.process is not None
            assert slot.process.returncode == -signal.SIGKILL, f"{name}: {slot.process.returncode}"
            self.run.workers.start(slot.number)
            self.at_failpoints[name] += 1
            await self._count()

    async def _count(self) -> None:
        self.kills += 1
        if self.kills % SAY_EVERY == 0:
            lag = sum((await self.run.lag()).values())
            done = sum(self.at_failpoints.values())
            self.run.say(
                f"{self.kills} kills, {done} of them at failpoints; {self.run.load.written} orders "
                f"written, {self.run.commits.seen} commits, lag {lag}"
            )


@pytest.mark.kafka
@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_no_kill_changes_a_result(start_job: StartJob, say: Say) -> None:
    async with start_job(Settings(rate=300, seed=SEED)) as run:
        killer = Killer(run, random.Random(SEED))
        await killer.kill()
        await run.settle()
        verdict = await run.verify()

        starts = Counter(
            source
            for slot in run.workers.slots
            for source in re.findall(r"starts at epoch .*state from (\w+)", slot.text())
        )
    say(f"{killer.kills} kills, {killer.bare} with the disk; tasks started: {dict(starts)}")
    say(str(verdict))
    assert killer.kills >= KILLS_MIN
    assert killer.bare > 0
    assert starts["local"] > 0
    assert starts["snapshot"] > 0
    assert all(count == ROUNDS for count in killer.at_failpoints.values())
