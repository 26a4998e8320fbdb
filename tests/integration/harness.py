"""One run of the two-step job: workers, load, what is seen from outside, and the verdict."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riverrun.connectors.kafka import KafkaLog
from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec
from riverrun.engine.plan import make_plan
from riverrun.state import open_blob_store, verify_snapshot

from . import oracle
from .commits import CommitWatch
from .load import Load
from .topologies import PARTITIONS, two_step_topology
from .workers import Deadline, Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from riverrun.engine.plan import Plan

CONNECT_TIMEOUT_MS = 30_000
FIRST_COMMIT_DEADLINE_S = 90
SETTLE_DEADLINE_S = 180
POLL_S = 0.25


@dataclass
class Settings:
    """What differs between runs.

    Attributes:
        workers: How many are started.
        rate: Orders per second.
        seed: Of the load.
        options: More options for the workers.
    """

    workers: int = 3
    rate: int = 400
    seed: int = 1
    options: tuple[str, ...] = ()


@dataclass
class Verdict:
    """What a run was compared over, for its closing line."""

    orders: int
    accepted: int
    windows: int
    counts: int
    commits: int
    snapshots: int

    def __str__(self) -> str:
        return (
            f"{self.orders} orders, {self.accepted} accepted, {self.windows} windows and "
            f"{self.counts} running counts exact; {self.commits} commits, "
            f"{self.snapshots} snapshots verified"
        )


@dataclass
class Run:
    """A run under way; made by ``running_job``."""

    broker: str
    plan: Plan
    log: KafkaLog
    workers: Workers
    load: Load
    commits: CommitWatch
    say: Callable[[str], None]
    settings: Settings
    topics: list[str] = field(default_factory=list)

    def topic(self, name: str) -> str:
        """Return the full name of one of the job's topics."""
        return f"{self.plan.job}-{name}"

    async def lag(self) -> dict[TopicPartition, int]:
        """Return how far the commit records are behind each input, as far as they are."""
        inputs = [
            TopicPartition(topic, partition)
            for topic in self.plan.input_topics()
            for partition in range(PARTITIONS)
        ]
        spans = await self.log.offsets(inputs)
        positions = self.commits.positions()
        behind = {each: spans[each].end - positions.get(each, 0) for each in inputs}
        return {each: lag for each, lag in behind.items() if lag > 0}

    async def settle(self) -> None:
        """End the load, and wait until everything is processed and committed."""
        await self.load.stop()
        deadline = Deadline(SETTLE_DEADLINE_S, "processing what is left")
        while lag := await self.lag():
            self.workers.check_alive()
            deadline.check(lag)
            await asyncio.sleep(POLL_S)

    async def wait_until(
        self, holds: Callable[[], bool | Awaitable[bool]], seconds: float, what: str
    ) -> None:
        """Wait until ``holds`` is true; fails when that takes longer, or a worker ends."""
        deadline = Deadline(seconds, what)
        while True:
            answer = holds()
            if not isinstance(answer, bool):
                answer = await answer
            if answer:
                return
            self.workers.check_alive()
            deadline.check()
            await asyncio.sleep(POLL_S)

    async def verify(self) -> Verdict:
        """Stop the workers and compare; fails with all that differs.

        What must hold at least once is another matter: see ``test_guarantees.py``.
        """
        codes = self.workers.stop_all()
        assert set(codes) <= {0}, f"exit codes {codes} after SIGTERM"
        findings = oracle.Findings()
        orders = await oracle.read_topic(self.broker, self.topic("orders"))
        expected = oracle.expect(orders)
        assert expected.windows, "no window has closed: the run says nothing"
        rows = {
            name: await oracle.read_topic(self.broker, self.topic(name))
            for name in ("accepted", "windows", "running", "milestones")
        }
        oracle.compare_accepted(rows["accepted"], expected, findings)
        oracle.compare_windows(rows["windows"], expected, findings)
        oracle.compare_running(rows["running"], expected, findings)
        oracle.compare_milestones(rows["milestones"], rows["running"], findings)
        findings.note("open transactions", await oracle.open_transactions(self.broker, self.topics))
        findings.note("commits out of order", self.commits.out_of_order())
        dead_letters = await self.log.describe_topic(self.plan.dead_letters)
        findings.note("a dead-letter topic", [dead_letters] if dead_letters else [])
        snapshots = await self._verify_snapshots(findings)
        findings.check()
        return Verdict(
            orders=expected.orders,
            accepted=len(expected.accepted),
            windows=len(expected.windows),
            counts=sum(map(len, rows["running"].values())),
            commits=self.commits.seen,
            snapshots=snapshots,
        )

    async def _verify_snapshots(self, findings: oracle.Findings) -> int:
        """What the last commit records name is there and whole."""
        named = [c.snapshot.id for c in self.commits.latest() if c.snapshot is not None]
        blobs = open_blob_store(self.workers.snapshots)
        for snapshot_id in named:
            findings.note(f"snapshot {snapshot_id}", await verify_snapshot(blobs, snapshot_id))
        return len(named)


@asynccontextmanager
async def running_job(
    broker: str,
    bucket: str,
    home: Path,
    s3: Mapping[str, str],
    say: Callable[[str], None],
    settings: Settings | None = None,
) -> AsyncIterator[Run]:
    """Start load and workers; yield when every task has committed. Ends all of it afterwards."""
    settings = settings or Settings()
    job = f"it-{uuid.uuid4().hex[:8]}"
    plan = make_plan(two_step_topology(job).graph)
    log = KafkaLog(broker)
    await log.start(CONNECT_TIMEOUT_MS)
    orders = f"{job}-orders"
    changelogs = [plan.changelog(each.id) for each in plan.subtopologies]
    outputs = [f"{job}-{name}" for name in ("accepted", "windows", "running", "milestones")]
    topics = sorted({*plan.input_topics(), *changelogs, *outputs})
    # All before anybody asks for them; the workers find them, and would make the same.
    await log.create_topics([TopicSpec(each, PARTITIONS, FOREVER_MS) for each in topics])
    workers = Workers(job, broker, home, f"s3://{bucket}/{job}", s3, settings.options)
    try:
        async with (
            CommitWatch(broker, changelogs) as commits,
            Load(broker, orders, rate=settings.rate, seed=settings.seed) as load,
        ):
            with workers:
                run = Run(broker, plan, log, workers, load, commits, say, settings, topics)
                for number in range(settings.workers):
                    workers.start(number)
                await _wait_for_all_tasks(run)
                say(f"{job}: {settings.workers} workers run, {settings.rate} orders/s")
                yield run
    finally:
        await log.close()


async def _wait_for_all_tasks(run: Run) -> None:
    tasks = PARTITIONS * len(run.plan.subtopologies)
    await run.wait_until(
        lambda: len(run.commits.latest()) == tasks,
        FIRST_COMMIT_DEADLINE_S,
        f"the first commit of each of {tasks} tasks",
    )
