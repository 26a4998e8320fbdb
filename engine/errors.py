"""The errors a user or operator may meet. Each says what, where and how to mend it."""

from __future__ import annotations


class RiverrunError(Exception):
    """Base of everything that riverrun raises on purpose."""


class TopologyError(RiverrunError):
    """The topology is wrong: found while it is built, before anything runs."""


class ConfigError(RiverrunError):
    """A setting is missing or makes no sense."""


# --- the log ---------------------------------------------------------------------------------


class LogError(RiverrunError):
    """Base of what the log raises."""


class LogUnavailableError(LogError):
    """The log does not answer."""


class LogAuthorizationError(LogError):
    """The log refused access."""


class TopicMissingError(LogError):
    """A topic or partition does not exist."""


class PartitionCountError(LogError):
    """A topic has another number of partitions than it should."""


class OffsetOutOfRangeError(LogError):
    """A position is no longer (or not yet) in the partition."""


class CorruptBatchError(LogError):
    """A record batch is damaged: bad CRC, truncated, or not decodable."""


class FencedError(LogError):
    """Another owner has taken over; this one must stop and leave its work alone."""


class WriteError(LogError):
    """The log did not take a batch; the transaction cannot be committed."""


class BatchTooLargeError(WriteError):
    """The log refused a batch for its size."""


class OutcomeUnknownError(LogError):
    """A commit was sent and no answer came. Only reading back tells what became of it."""


# --- running ---------------------------------------------------------------------------------


class RecordError(RiverrunError):
    """A record could not be processed and the policy is ``fail``.

    The message names the step and the record's topic, partition and offset.
    """


class StartRefusedError(RiverrunError):
    """A task refuses to start, since starting could lose or repeat data."""


class StateMismatchError(StartRefusedError):
    """The topology or its topics changed so that the committed state no longer fits."""


class PositionLostError(StartRefusedError):
    """Committed work exists but the pointer to it does not, or points to deleted records."""
