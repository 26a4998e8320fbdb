"""riverrun: stream processing in Python, Kafka to Kafka, exactly once.

``import riverrun as rr`` and begin with ``rr.Topology``. A name is loaded when it is first used, so
that ``riverrun --help`` need not wait for Polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riverrun.connectors.codecs import Bytes as Bytes
    from riverrun.connectors.codecs import Integer as Integer
    from riverrun.connectors.codecs import Json as Json
    from riverrun.connectors.codecs import Text as Text
    from riverrun.engine.errors import BatchTooLargeError as BatchTooLargeError
    from riverrun.engine.errors import ConfigError as ConfigError
    from riverrun.engine.errors import CorruptBatchError as CorruptBatchError
    from riverrun.engine.errors import FencedError as FencedError
    from riverrun.engine.errors import LogAuthorizationError as LogAuthorizationError
    from riverrun.engine.errors import LogError as LogError
    from riverrun.engine.errors import LogUnavailableError as LogUnavailableError
    from riverrun.engine.errors import OffsetOutOfRangeError as OffsetOutOfRangeError
    from riverrun.engine.errors import OutcomeUnknownError as OutcomeUnknownError
    from riverrun.engine.errors import PartitionCountError as PartitionCountError
    from riverrun.engine.errors import PositionLostError as PositionLostError
    from riverrun.engine.errors import RecordError as RecordError
    from riverrun.engine.errors import RiverrunError as RiverrunError
    from riverrun.engine.errors import StartRefusedError as StartRefusedError
    from riverrun.engine.errors import StateMismatchError as StateMismatchError
    from riverrun.engine.errors import TopicMissingError as TopicMissingError
    from riverrun.engine.errors import TopologyError as TopologyError
    from riverrun.engine.errors import WriteError as WriteError
    from riverrun.engine.schema import Record as Record
    from riverrun.engine.schema import TimestampMs as TimestampMs
    from riverrun.operators import Aggregate as Aggregate
    from riverrun.operators import Count as Count
    from riverrun.operators import First as First
    from riverrun.operators import Hopping as Hopping
    from riverrun.operators import KeyedStream as KeyedStream
    from riverrun.operators import Last as Last
    from riverrun.operators import ListState as ListState
    from riverrun.operators import MapState as MapState
    from riverrun.operators import Max as Max
    from riverrun.operators import Mean as Mean
    from riverrun.operators import Min as Min
    from riverrun.operators import ProcessContext as ProcessContext
    from riverrun.operators import ProcessFunction as ProcessFunction
    from riverrun.operators import Retry as Retry
    from riverrun.operators import Session as Session
    from riverrun.operators import Stream as Stream
    from riverrun.operators import Sum as Sum
    from riverrun.operators import Topic as Topic
    from riverrun.operators import Tumbling as Tumbling
    from riverrun.operators import ValueState as ValueState
    from riverrun.operators import Watermark as Watermark
    from riverrun.operators import WindowedStream as WindowedStream
    from riverrun.operators import WindowResults as WindowResults
    from riverrun.state import StateError as StateError
    from riverrun.topology import Topology as Topology

_HOMES = {
    "riverrun.connectors.codecs": (
        "Bytes",
        "Integer",
        "Json",
        "Text",
    ),
    "riverrun.engine.errors": (
        "BatchTooLargeError",
        "ConfigError",
        "CorruptBatchError",
        "FencedError",
        "LogAuthorizationError",
        "LogError",
        "LogUnavailableError",
        "OffsetOutOfRangeError",
        "OutcomeUnknownError",
        "PartitionCountError",
        "PositionLostError",
        "RecordError",
        "RiverrunError",
        "StartRefusedError",
        "StateMismatchError",
        "TopicMissingError",
        "TopologyError",
        "WriteError",
    ),
    "riverrun.engine.schema": (
        "Record",
        "TimestampMs",
    ),
    "riverrun.operators": (
        "Aggregate",
        "Count",
        "First",
        "Hopping",
        "KeyedStream",
        "Last",
        "ListState",
        "MapState",
        "Max",
        "Mean",
        "Min",
        "ProcessContext",
        "ProcessFunction",
        "Retry",
        "Session",
        "Stream",
        "Sum",
        "Topic",
        "Tumbling",
        "ValueState",
        "Watermark",
        "WindowedStream",
        "WindowResults",
    ),
    "riverrun.state": ("StateError",),
    "riverrun.topology": ("Topology",),
}
"""Public names by the module that they are from: the same ones as type checkers see above."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name."""
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'riverrun' has no attribute {name!r}")
        value = getattr(import_module(home), name)
        # From now on it is found without coming here.
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Return the public names, loaded or not."""
        return sorted({*globals(), *_HOME_OF})
