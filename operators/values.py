"""Values in state: MessagePack of a declared type, never pickle."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, cast

import msgspec

from riverrun.engine.errors import TopologyError
from riverrun.engine.models import from_plain, is_model, to_plain

# What MessagePack has no form of, by the code of its extension type; codes are in stored state.
_TAGGED: dict[int, type[Any]] = {
    1: dt.datetime,
    2: dt.date,
    3: dt.time,
    4: dt.timedelta,
    5: Decimal,
}
_CODES = {kind: code for code, kind in _TAGGED.items()}


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
        self._class = _class_of(declared)
        self._encoder = msgspec.msgpack.Encoder(enc_hook=to_plain)
        try:
            form = msgspec.inspect.type_info(declared)
            known = is_model(declared) or not isinstance(form, msgspec.inspect.CustomType)
            self._decoder = msgspec.msgpack.Decoder(
                declared, dec_hook=from_plain, ext_hook=_untagged
            )
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
        return self._encoder.encode(value)

    def check_exact(self, value: Any) -> None:
        """Check that a value is of the declared type.

        Raises:
            TypeError: If it is not.
        """
        self.check(value)
        if self._class is not None and not isinstance(value, self._class):
            raise TypeError(
                f"a value of type {type(value).__name__} is kept as {self._class.__name__}: return "
                "that, or declare another type with type=..."
            )

    def encode_exact(self, value: Any) -> bytes:
        """Return a value as bytes that can be read back, which costs reading them.

        Raises:
            TypeError: If they cannot, or MessagePack cannot hold the value.
            OverflowError: If an integer has more than 64 bits.
        """
        encoded = self.encode(value)
        if self.declared is not Any:
            try:
                self.decode(encoded)
            except Exception as error:
                raise TypeError(f"what is kept would not come back from state: {error}") from error
        return encoded

    def decode(self, data: bytes) -> Any:
        """Return the value that ``encode`` wrote."""
        return self._decoder.decode(data)


def tagged(value: Any) -> Any:
    """Return a value so that it comes back as what it is though its type is not declared."""
    code = _CODES.get(cast("type[Any]", type(value)))
    return value if code is None else msgspec.msgpack.Ext(code, msgspec.msgpack.encode(value))


def _untagged(code: int, data: memoryview) -> Any:
    kind = _TAGGED.get(code)
    return msgspec.msgpack.Ext(code, bytes(data)) if kind is None else _decode_as(kind, data)


def _decode_as(kind: type[Any], data: memoryview) -> Any:
    return msgspec.msgpack.decode(data, type=kind)


def _class_of(declared: Any) -> type[Any] | None:
    """Return the declared type if values can be asked whether they are of it."""
    # An integer does for a float.
    if not isinstance(declared, type) or declared is float:
        return None
    try:
        isinstance(None, declared)
    except TypeError:  # a TypedDict
        return None
    return declared
