"""Rules for topics."""

from __future__ import annotations

import pytest

from riverrun.engine.errors import ConfigError
from riverrun.engine.log import FOREVER_MS, TopicInfo, TopicSpec
from riverrun.engine.topic_rules import DEFAULT_MAX_BATCH_BYTES, resolve_topic


def test_what_is_left_open_gets_a_default() -> None:
    assert resolve_topic(TopicSpec("orders.v1_x-y", 3)) == TopicInfo(
        "orders.v1_x-y", 3, FOREVER_MS, DEFAULT_MAX_BATCH_BYTES
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "ä", "a" * 250])
def test_an_illegal_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="topic name"):
        resolve_topic(TopicSpec(name, 1))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (TopicSpec("t", 0), "at least 1 partition"),
        (TopicSpec("t", 1, retention_ms=-2), "retention_ms"),
        (TopicSpec("t", 1, configs={"max.message.bytes": "1MB"}), "max.message.bytes"),
        (TopicSpec("t", 1, configs={"max.message.bytes": "0"}), "max.message.bytes"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(spec: TopicSpec, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        resolve_topic(spec)
