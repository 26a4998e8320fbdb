"""The broker goes away under the workers and comes back: they go on without being restarted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests import kafka_broker
from tests.kafka_missing import give_up

from .conftest import BUCKET
from .harness import Settings, running_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Say

AWAY_S = 4
WORK_S = 4
ALL_TASKS_DEADLINE_S = 120


@pytest.fixture
def own_broker(kafka: str) -> Iterator[kafka_broker.KafkaBroker]:
    """A broker that the test may stop. Where the suite has one, there is one more."""
    del kafka
    broker = kafka_broker.KafkaBroker()
    try:
        broker.start()
    except kafka_broker.KafkaNotAvailableError as error:
        give_up(str(error))
    try:
        yield broker
    finally:
        broker.remove()


@pytest.mark.kafka
@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_workers_go_on_when_the_broker_is_back(
    own_broker: kafka_broker.KafkaBroker,
    s3: dict[str, str],
    say: Say,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    settings = Settings(workers=2, rate=300, seed=6)
    async with running_job(own_broker.address, BUCKET, tmp_path, s3, say, settings) as run:
        for end in (own_broker.stop, own_broker.kill):
            await asyncio.sleep(WORK_S)
            await asyncio.to_thread(end)
            await asyncio.sleep(AWAY_S)
            await asyncio.to_thread(own_broker.start)
            before = {task: len(commits) for task, commits in run.commits.history.items()}
            await run.wait_until(
                lambda before=before: all(
                    len(run.commits.history[task]) > count + 2 for task, count in before.items()
                ),
                ALL_TASKS_DEADLINE_S,
                "commits of every task",
            )
            say(f"broker ended by {end.__name__}, away for {AWAY_S} s, all tasks commit again")
        await run.settle()
        assert [slot.lives for slot in run.workers.slots] == [1, 1], "nobody restarted them"
        say(str(await run.verify()))
