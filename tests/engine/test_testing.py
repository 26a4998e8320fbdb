"""The test driver itself: when it rests."""

from __future__ import annotations

from typing import Any

import riverrun as rr
from riverrun.testing import TopologyTestDriver


def test_what_a_commit_makes_visible_is_processed_before_the_driver_rests() -> None:
    topology = rr.Topology("t")
    orders = topology.source(rr.Topic[Any]("in", partitions=1))
    orders.key_by("user").aggregate(n=rr.Count()).sink(rr.Topic("out"))
    with TopologyTestDriver(topology) as driver:
        driver.pipe("in", [{"user": "ada"}], commit=False)
        driver.advance_clock(1)

        assert [record.value for record in driver.read("out")] == [{"user": "ada", "n": 1}]
