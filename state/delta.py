"""What one epoch changed in the state of one task."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Delta:
    """The state changes of one epoch: absolute values, so that applying twice is harmless.

    Order of application: range deletes, then deletes, then puts. A key is in ``puts`` or in
    ``deletes``, never in both.

    Attributes:
        puts: New value by state key.
        deletes: State keys that are gone.
        range_deletes: Half-open ranges ``[start, end)`` of state keys that are gone.
    """

    puts: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    deletes: set[bytes] = field(default_factory=set[bytes])
    range_deletes: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.puts or self.deletes or self.range_deletes)

    def put(self, key: bytes, value: bytes) -> None:
        """Set ``key`` to ``value``."""
        self.deletes.discard(key)
        self.puts[key] = value

    def delete(self, key: bytes) -> None:
        """Remove ``key``."""
        self.puts.pop(key, None)
        self.deletes.add(key)
