"""What a task lets go of, and when."""

from __future__ import annotations

import riverrun as rr
from riverrun.engine.housekeeping import INTERVAL_MS
from riverrun.engine.log import TopicPartition
from riverrun.testing import TopologyTestDriver


def test_repartition_records_and_old_commit_records_go_an_interval_after_their_commit() -> None:
    job = rr.Topology("job")
    orders = job.source(rr.Topic("orders", partitions=1))
    counts = orders.key_by("user", partitions=1).aggregate(n=rr.Count())
    counts.sink(rr.Topic("counts"))
    frames = TopicPartition("job-key_by-1-repartition", 0)
    without_state = TopicPartition("job-0-changelog", 0)
    with_state = TopicPartition("job-1-changelog", 0)

    with TopologyTestDriver(job) as driver:
        driver.pipe("orders", [{"user": "ada"}])
        assert [driver.offsets(each).start for each in (frames, without_state, with_state)] == [
            0
        ] * 3

        for _ in range(3):
            driver.advance_clock(INTERVAL_MS)
            driver.pipe("orders", [{"user": "ada"}])

        assert driver.offsets(frames).start > 0
        assert driver.offsets(without_state).start > 0
        # There is no snapshot: the changelog is all that the state could be rebuilt from.
        assert driver.offsets(with_state).start == 0

        driver.crash(lose_disk=True)
        driver.pipe("orders", [{"user": "ada"}])
        assert driver.read("counts")[-1].value["n"] == 5
