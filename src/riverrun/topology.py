"""The topology of the façade: JSON unless a topic says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from riverrun import operators
from riverrun.connectors.codecs import Json

if TYPE_CHECKING:
    from riverrun.engine.codec import Codec


_JSON: Json[Any] = Json()


class Topology(operators.Topology):
    """A job: sources, what is done with their records, and sinks.

    Args:
        name: Name of the job: the beginning of its internal topics, its consumer group, and its
            state. Another name is another job.
        default_codec: How topics are written that do not say; JSON unless given.

    Raises:
        TopologyError: If the name cannot be part of a topic name.

    Example:
        >>> from riverrun import Topic
        >>> topology = Topology("copy")
        >>> topology.source(Topic("orders")).sink(Topic("orders-copy"))
    """

    def __init__(self, name: str, *, default_codec: Codec | None = None) -> None:
        super().__init__(name, default_codec=default_codec or _JSON)
