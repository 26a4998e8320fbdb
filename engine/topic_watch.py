"""Watches the topics that a job reads: growing and vanishing ones tell nobody."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from .errors import LogError, StateMismatchError

if TYPE_CHECKING:
    from .log import Log
    from .plan import ResolvedPlan

_log = logging.getLogger(__name__)


async def watch_topics(log: Log, resolved: ResolvedPlan, interval_ms: int) -> None:
    """Look at the input topics again and again; returns only by raising.

    A partition that is added belongs to no task. To go on without it would be worse than to stop:
    producers send some keys there from now on, and windows would be closed without their records.

    Raises:
        StateMismatchError: If a topic has another number of partitions than at the start.
    """
    while True:
        await asyncio.sleep(interval_ms / 1000)
        for topic in resolved.plan.input_topics():
            try:
                info = await log.describe_topic(topic)
            except LogError as error:
                _log.info("could not look at topic %s: %s", topic, error)
                continue
            if info is None:
                _log.error(
                    "topic %s is gone, which job %s reads: its tasks wait until it is back, and "
                    "refuse to start if it then has lost records",
                    topic,
                    resolved.plan.job,
                )
                continue
            expected = resolved.partitions[topic]
            if info.partitions != expected:
                raise StateMismatchError(
                    f"topic {topic!r} had {expected} partitions when job {resolved.plan.job!r} "
                    f"started and now has {info.partitions}: records of some keys go where no task "
                    "reads them. Partitions cannot be added to the inputs of a running job; start "
                    "a job of another name"
                )
