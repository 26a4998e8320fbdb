"""Text, Bytes and Integer: values that are one plain value each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riverrun.engine.codec import DecodedValues, EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from riverrun.engine.batch import Batch

_DECIMAL = re.compile(rb"-?[0-9]{1,19}")
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Text:
    """Values as UTF-8 text. A value of None is written as a tombstone.

    Example:
        >>> Text().decode(["é".encode()]).rows
        ['é']
    """

    @property
    def record_type(self) -> type[str]:
        """Text is ``str``."""
        return str

    @property
    def schema(self) -> None:
        """Text has no columns."""
        return

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Decode values; what is not UTF-8, and a tombstone, is a failure."""
        return _decode_each(values, bytes.decode)

    def encode(self, batch: Batch) -> list[bytes | None]:
        """Encode the values of a batch, in order.

        Raises:
            EncodeError: Naming the index of the first value that is not text.
        """
        return _encode_each(batch.rows(), str, str.encode)


@dataclass(frozen=True, slots=True)
class Bytes:
    """Values as they are. A value of None is written as a tombstone.

    Example:
        >>> Bytes().decode([b"anything"]).rows
        [b'anything']
    """

    @property
    def record_type(self) -> type[bytes]:
        """Bytes are ``bytes``."""
        return bytes

    @property
    def schema(self) -> None:
        """Bytes have no columns."""
        return

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Return the values; a tombstone is a failure."""
        return _decode_each(values, bytes)

    def encode(self, batch: Batch) -> list[bytes | None]:
        """Return the values of a batch, in order.

        Raises:
            EncodeError: Naming the index of the first value that is not bytes.
        """
        return _encode_each(batch.rows(), bytes, bytes)


@dataclass(frozen=True, slots=True)
class Integer:
    """Values as decimal text, 64 bits, like numbers in keys. None is written as a tombstone.

    Example:
        >>> Integer().decode([b"-7"]).rows
        [-7]
    """

    @property
    def record_type(self) -> type[int]:
        """Integers are ``int``."""
        return int

    @property
    def schema(self) -> None:
        """Integers have no columns."""
        return

    def decode(self, values: Sequence[bytes | None]) -> DecodedValues:
        """Decode values; what is no integer of 64 bits, and a tombstone, is a failure."""
        return _decode_each(values, _decode_integer)

    def encode(self, batch: Batch) -> list[bytes | None]:
        """Encode the values of a batch, in order.

        Raises:
            EncodeError: Naming the index of the first value that is no integer of 64 bits.
        """
        return _encode_each(batch.rows(), int, _encode_integer)


def _decode_integer(value: bytes) -> int:
    # Not all that int() takes: it allows blanks, underscores and digits of other scripts.
    if not _DECIMAL.fullmatch(value):
        raise ValueError(f"{value[:40]!r} is not a decimal number of 64 bits")
    return _check_range(int(value))


def _encode_integer(value: int) -> bytes:
    return b"%d" % _check_range(value)


def _check_range(value: int) -> int:
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise ValueError(f"{value} does not fit in 64 bits")
    return value


def _decode_each(values: Sequence[bytes | None], decode: Callable[[bytes], Any]) -> DecodedValues:
    rows: list[Any] = []
    kept: list[int] = []
    failures: list[tuple[int, Exception]] = []
    for index, value in enumerate(values):
        if value is None:
            failures.append((index, ValueError("a tombstone: the record has no value")))
            continue
        try:
            rows.append(decode(value))
        except ValueError as error:
            failures.append((index, error.with_traceback(None)))
        else:
            kept.append(index)
    return DecodedValues(rows=rows, kept=kept if failures else None, failures=failures)


def _encode_each(
    rows: Sequence[Any], expected: type, encode: Callable[[Any], bytes]
) -> list[bytes | None]:
    documents: list[bytes | None] = []
    for index, row in enumerate(rows):
        if row is None:
            documents.append(None)
            continue
        # True is an int to Python, and hardly meant as the number 1.
        if not isinstance(row, expected) or isinstance(row, bool):
            raise EncodeError(
                index, f"expected {expected.__name__}, got {row!r} of type {type(row).__name__}"
            )
        try:
            documents.append(encode(row))
        except ValueError as error:
            raise EncodeError(index, str(error)) from None
    return documents
