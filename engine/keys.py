"""Keys as bytes: on the wire, for partitioning, and in state."""

from __future__ import annotations

from typing import Any, cast

import orjson

Key = str | int | bytes | bool | tuple[Any, ...]
"""What a record may be keyed by."""


def key_to_wire(key: Any) -> bytes | None:
    """Return a key as the bytes that topics carry and partitions are chosen by.

    Text is UTF-8, bytes are themselves, numbers are decimal text, composite keys are JSON arrays.
    The same as other Kafka producers do for text keys, so streams keyed by them are co-partitioned.

    Raises:
        TypeError: If a key is of a type that has no stable bytes.

    Example:
        >>> key_to_wire("ada"), key_to_wire(7), key_to_wire(("ada", 7)), key_to_wire(None)
        (b'ada', b'7', b'["ada",7]', None)
    """
    if key is None:
        return None
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes):
        return key
    if isinstance(key, (bool, int, tuple, list)):
        return orjson.dumps(key)
    raise TypeError(
        f"cannot use {key!r} of type {type(key).__name__} as a key: use str, int, bytes or a tuple "
        "of them"
    )


def key_to_state(key: Any) -> bytes:
    """Return a key as the bytes that state is kept under; types never collide.

    Raises:
        TypeError: If ``key`` is None or of a type that has no stable bytes.

    Example:
        >>> key_to_state("7"), key_to_state(7)
        (b's7', b'j7')
    """
    if isinstance(key, str):
        return b"s" + key.encode()
    if isinstance(key, bytes):
        return b"b" + key
    wire = key_to_wire(key)
    if wire is None:
        raise TypeError("a keyed operator got a record without a key")
    return (b"t" if isinstance(key, (tuple, list)) else b"j") + wire


def key_from_state(data: bytes) -> Any:
    """Return the key that ``key_to_state`` wrote.

    Example:
        >>> key_from_state(key_to_state(("ada", 7)))
        ('ada', 7)
    """
    tag, body = data[:1], data[1:]
    if tag == b"s":
        return body.decode()
    if tag == b"b":
        return body
    if tag == b"t":
        return _tuples(orjson.loads(body))
    return orjson.loads(body)


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(each) for each in cast("list[Any]", value))
    return value
