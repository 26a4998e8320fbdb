"""Values in state: MessagePack of a declared type, never pickle."""

from __future__ import annotations

from typing import Any

import msgspec

from riverrun.engine.errors import TopologyError


class ValueFormat:
    """Writes and reads values of one type.

    Args:
        declared: Their type: what msgspec knows, or a pydantic model. ``Any`` allows numbers, text,
            bytes, booleans, None, and lists and dicts of them.

    Raises:
        TopologyError: If values of the type cannot be kept.
    """

    def __init__(self, declared: Any) -> None:
        self.declared = declared
        self._is_model = hasattr(declared, "model_validate")
        self._encoder = msgspec.msgpack.Encoder()
        stored_as = Any if self._is_model else declared
        try:
            known = not isinstance(msgspec.inspect.type_info(stored_as), msgspec.inspect.CustomType)
            self._decoder = msgspec.msgpack.Decoder(stored_as)
        except TypeError as error:
            raise TopologyError(f"values of type {declared!r} cannot be kept: {error}") from error
        if not known:
            raise TopologyError(
                f"values of type {declared!r} cannot be kept: use numbers, text, lists, dicts, a "
                "Record, dataclass, TypedDict or pydantic model"
            )

    def check(self, value: Any) -> None:
        """Check that a value would come back as what it is.

        Raises:
            TypeError: If it would not.
        """
        if self.declared is Any and not isinstance(
            value, (dict, list, str, int, float, bytes, bool, type(None))
        ):
            raise TypeError(
                f"a value of type {type(value).__name__} would come back from state as another "
                "type; declare it with type=..., or annotate what the function returns"
            )

    def encode(self, value: Any) -> bytes:
        """Return a value as bytes.

        Raises:
            TypeError: If MessagePack cannot hold it.
        """
        if self._is_model:
            value = value.model_dump()
        return self._encoder.encode(value)

    def decode(self, data: bytes) -> Any:
        """Return the value that ``encode`` wrote."""
        value = self._decoder.decode(data)
        return self.declared.model_validate(value) if self._is_model else value
