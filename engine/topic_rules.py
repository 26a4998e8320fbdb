"""What makes a topic: rules that the logs which we store ourselves hold in common with Kafka."""

from __future__ import annotations

import re

from .errors import ConfigError, PartitionCountError
from .log import FOREVER_MS, TopicInfo, TopicSpec

DEFAULT_MAX_BATCH_BYTES = 1_048_588
"""Kafka's default of ``max.message.bytes``: 1 MiB and the batch's log overhead."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_MAX_BATCH_BYTES_KEY = "max.message.bytes"


def resolve_topic(spec: TopicSpec) -> TopicInfo:
    """Return the topic that ``spec`` asks for, with defaults filled in.

    Retention that is left to the log is forever here: a log of our own does not delete what
    nobody asked it to. Topic settings other than ``max.message.bytes`` have no meaning here.

    Raises:
        ConfigError: The name, the partition count, the retention or the batch size is no good.
    """
    if not _NAME.fullmatch(spec.name) or spec.name in (".", ".."):
        raise ConfigError(
            f"topic name {spec.name!r} is not legal: use 1 to 249 of the letters, digits,"
            " '.', '_' and '-'"
        )
    if spec.partitions < 1:
        raise ConfigError(f"topic {spec.name!r} needs at least 1 partition, got {spec.partitions}")
    retention_ms = FOREVER_MS if spec.retention_ms is None else spec.retention_ms
    if retention_ms < FOREVER_MS:
        raise ConfigError(
            f"retention_ms of topic {spec.name!r} must be FOREVER_MS (-1) or an age, got"
            f" {retention_ms}"
        )
    text = spec.configs.get(_MAX_BATCH_BYTES_KEY, str(DEFAULT_MAX_BATCH_BYTES))
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(
            f"{_MAX_BATCH_BYTES_KEY} of topic {spec.name!r} must be a number of bytes, got {text!r}"
        )
    return TopicInfo(spec.name, spec.partitions, retention_ms, int(text))


def check_same_partitions(existing: TopicInfo, wanted: TopicInfo) -> None:
    """Make sure that a topic that exists is the one that is wanted.

    Raises:
        PartitionCountError: It has another number of partitions.
    """
    if existing.partitions != wanted.partitions:
        raise PartitionCountError(
            f"topic {wanted.name!r} exists with {existing.partitions} partitions, expected"
            f" {wanted.partitions}; use that number or another topic name"
        )
