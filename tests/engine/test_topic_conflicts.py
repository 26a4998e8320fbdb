"""Topics that a job must keep its hands off, told when the plan is made."""

from __future__ import annotations

from typing import Any

import pytest

import riverrun as rr
from riverrun.engine.errors import TopologyError
from riverrun.engine.plan import make_plan


@pytest.mark.parametrize(
    "topic", ["t-0-changelog", "t-1-changelog", "t-7-changelog", "t-key_by-1-repartition"]
)
def test_a_job_cannot_write_or_read_its_own_internal_topics(topic: str) -> None:
    for place in ("sink", "source"):
        topology = rr.Topology("t")
        orders = topology.source(rr.Topic[Any]("in"))
        if place == "sink":
            orders.sink(rr.Topic(topic))
        else:
            topology.source(rr.Topic[Any](topic)).sink(rr.Topic("copy"))
        orders.key_by("user").aggregate(n=rr.Count()).sink(rr.Topic("out"))
        for check in (topology.validate, lambda graph=topology.graph: make_plan(graph)):
            with pytest.raises(TopologyError, match=f"topic '{topic}', a name that belongs to job"):
                check()


def test_internal_topics_of_other_jobs_may_be_read() -> None:
    topology = rr.Topology("t")
    topology.source(rr.Topic[Any]("other-key_by-1-repartition")).sink(rr.Topic("t-changelog"))
    topology.validate()


@pytest.mark.parametrize("bad", ["source", "map", "sink", "behind a topic"])
def test_dead_letters_must_not_come_back_to_a_step_that_writes_them(bad: str) -> None:
    topology = rr.Topology("t")

    def policy(step: str) -> Any:
        return "dead_letter" if step == bad else "fail"

    letters = topology.source(rr.Topic[Any]("t-dead-letters"), on_error=policy("source"))
    letters.map(len, on_error=policy("map")).sink(rr.Topic("next"), on_error=policy("sink"))
    behind = topology.source(rr.Topic[Any]("next"), on_error=policy("behind a topic"))
    behind.sink(rr.Topic("out"))
    with pytest.raises(TopologyError, match=r"'t-dead-letters'.*a cycle.*on_error='skip'"):
        topology.validate()


def test_a_job_may_read_the_dead_letters_of_its_other_steps() -> None:
    topology = rr.Topology("t")
    topology.source(rr.Topic[Any]("in"), on_error="dead_letter").sink(rr.Topic("out"))
    topology.source(rr.Topic[Any]("t-dead-letters"), on_error="skip").sink(rr.Topic("seen"))
    topology.validate()


def test_two_sinks_cannot_want_one_topic_in_two_sizes() -> None:
    topology = rr.Topology("t")
    orders = topology.source(rr.Topic[Any]("in"))
    orders.sink(rr.Topic("out", partitions=2))
    orders.sink(rr.Topic("out", partitions=3))
    with pytest.raises(TopologyError, match="'sink-1' and 'sink-2' want topic 'out' with 2 and"):
        topology.validate()
