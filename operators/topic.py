"""What a topology says about a topic, and how watermarks follow the records of a source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, get_args

from riverrun.engine.errors import TopologyError
from riverrun.engine.graph import KeyFormat, WatermarkPolicy

from .checks import check_partitions
from .durations import Duration, duration_ms, positive_duration_ms

if TYPE_CHECKING:
    from riverrun.engine.codec import Codec

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# What Kafka takes as a topic name, less its two special names.
_TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


class TypedCodec(Protocol[T_co]):
    """A codec that knows the class of its values, so that type checkers do too."""

    @property
    def record_type(self) -> type[T_co] | None:
        """Class of decoded values, None for plain dicts."""
        ...


@dataclass(frozen=True)
class Topic(Generic[T]):
    """A topic by name; where its broker is, is a matter of the runtime.

    Args:
        name: Name of the topic.
        value: How values are written; None for the default of the topology, JSON without schema.
        key: How keys are read: ``text``, ``int``, ``bytes`` or ``json``.
        keyed_by: Field that every record is keyed (and so partitioned) by. Saves a repartition
            topic for ``key_by`` of that field. A promise: wrong, keys end up in several tasks.
        partitions: Number of partitions to create it with if it is missing; None: a source must
            exist, a sink gets as many as its task has.
        retention: How long the broker keeps records if it is created; None: for ever, so that
            records with old event times are not deleted at once.

    Raises:
        TopologyError: If the name, key format or a number is not valid.

    Example:
        >>> Topic("orders", keyed_by="user", partitions=4).name
        'orders'
    """

    name: str
    value: TypedCodec[T] | Codec | None = None
    key: KeyFormat = "text"
    keyed_by: str | None = None
    partitions: int | None = None
    retention: Duration | None = None

    def __post_init__(self) -> None:
        """Reject what a broker would reject, here where the mistake is."""
        if not isinstance(self.name, str) or not _TOPIC_NAME.fullmatch(self.name):
            raise TopologyError(
                f"{self.name!r} is not a topic name: use 1 to 249 letters, digits, '.', '_' and '-'"
            )
        if isinstance(self.value, type) and hasattr(self.value, "encode"):
            codec = self.value.__name__
            raise TopologyError(
                f"topic {self.name!r}: value={codec} is a class, not a codec; write "
                f"value={codec}(...), like riverrun.Json(YourRecord), or riverrun.Json() for JSON "
                "without schema"
            )
        if self.value is not None and not hasattr(self.value, "encode"):
            raise TopologyError(
                f"topic {self.name!r}: value={self.value!r} is not a codec; write "
                "value=riverrun.Json(YourRecord), or leave it out for JSON without schema"
            )
        if self.key not in get_args(KeyFormat):
            raise TopologyError(
                f"topic {self.name!r}: key={self.key!r} is not one of text, int, bytes, json"
            )
        check_partitions(self.partitions, f"topic {self.name!r}")
        if self.retention is not None:
            positive_duration_ms(self.retention, f"retention of topic {self.name!r}")

    @property
    def retention_ms(self) -> int | None:
        """Retention in milliseconds, None for ever."""
        return None if self.retention is None else duration_ms(self.retention)

    def codec(self, default: Codec | None) -> Codec:
        """Return how values are written.

        Raises:
            TopologyError: If neither the topic nor the topology says.
        """
        codec: Any = default if self.value is None else self.value
        if codec is None:
            raise TopologyError(
                f"topic {self.name!r} has no codec; write Topic({self.name!r}, value=...)"
            )
        return codec


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far event time has come, by the records of a source partition.

    Args:
        out_of_orderness: How much earlier than the latest record so far a record may be.
        idle_after: A partition without records for this long no longer holds the others back;
            and when all are idle, time goes on by the wall clock. None: never.
        max_future: Records further ahead of the wall clock go to the source's ``on_error``, so
            that one wrong time does not close all windows. None: no bound.

    Raises:
        TopologyError: If one is not a duration.

    Example:
        >>> Watermark(out_of_orderness="5s", idle_after="30s").policy().idle_after_ms
        30000
    """

    out_of_orderness: Duration = "0s"
    idle_after: Duration | None = None
    max_future: Duration | None = "1h"

    def __post_init__(self) -> None:
        """Reject what is not a duration."""
        self.policy()

    def policy(self) -> WatermarkPolicy:
        """Return what the engine goes by."""
        idle, future = self.idle_after, self.max_future
        return WatermarkPolicy(
            out_of_orderness_ms=duration_ms(self.out_of_orderness, "out_of_orderness"),
            idle_after_ms=None if idle is None else positive_duration_ms(idle, "idle_after"),
            max_future_ms=None if future is None else duration_ms(future, "max_future"),
        )
