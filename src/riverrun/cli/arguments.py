"""Options that several commands share, and the forms of their values."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from .command import UsageError

if TYPE_CHECKING:
    import argparse

DEFAULT_BROKER = "local:.riverrun"

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+)(ms|s|m|h|d)")

_UNITS_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"(\d{1,7})(KiB|MiB|GiB)")

MODULE_HELP = (
    "Python module with a Topology, as `package.module` or `package.module:name`, or the path of "
    "a .py file, also with `:name`; the name is `topology` unless given"
)


class HttpAddress(NamedTuple):
    """Where to serve HTTP; port 0 lets the system choose."""

    host: str
    port: int


def add_module_argument(parser: argparse.ArgumentParser) -> None:
    """Add the positional MODULE."""
    parser.add_argument("module", metavar="MODULE[:NAME]", help=MODULE_HELP)


def add_broker_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--broker`` and the options of how to convince a Kafka cluster."""
    parser.add_argument(
        "--broker",
        default=os.environ.get("RIVERRUN_BROKER") or DEFAULT_BROKER,
        metavar="ADDRESS",
        help="kafka://HOST:PORT[,HOST:PORT] or local:PATH, the embedded log in a directory "
        "(default: $RIVERRUN_BROKER, or local:.riverrun)",
    )
    group = parser.add_argument_group(
        "Kafka security",
        "Each option may be given as an environment variable in its place. A password is taken "
        "from RIVERRUN_KAFKA_PASSWORD or from a file, never from the command line, which other "
        "users of the machine can see.",
    )
    for name, metavar, text in (
        ("security-protocol", "NAME", "PLAINTEXT (default), SSL, SASL_PLAINTEXT or SASL_SSL"),
        ("sasl-mechanism", "NAME", "PLAIN (default), SCRAM-SHA-256 or SCRAM-SHA-512"),
        ("username", "NAME", "SASL user name"),
        ("password-file", "FILE", "file that holds the SASL password"),
        ("ca-file", "FILE", "certificates to trust instead of the system's"),
        ("cert-file", "FILE", "certificate to show to the brokers"),
        ("key-file", "FILE", "private key of that certificate"),
    ):
        variable = f"RIVERRUN_KAFKA_{name.replace('-', '_').upper()}"
        group.add_argument(
            f"--kafka-{name}",
            default=os.environ.get(variable),
            metavar=metavar,
            help=f"{text} (${variable})",
        )


def add_plane_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--plane``."""
    parser.add_argument(
        "--plane",
        choices=("kernel", "reference"),
        help="what processes records: the native kernel, or the slower reference in Python "
        "(default: $RIVERRUN_PLANE, or the kernel where it was built; `riverrun doctor` tells)",
    )


def add_logging_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--log-level`` and ``--log-format``."""
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=os.environ.get("RIVERRUN_LOG_LEVEL", "info"),
        help="what is logged, to stderr (default: $RIVERRUN_LOG_LEVEL, or info)",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default=os.environ.get("RIVERRUN_LOG_FORMAT", "text"),
        help="lines for people, or one JSON object per line (default: $RIVERRUN_LOG_FORMAT, "
        "or text)",
    )


def _mistake(message: str) -> Exception:
    # Loaded where there is one only: commands begin sooner without.
    from argparse import ArgumentTypeError

    return ArgumentTypeError(message)


def duration_ms(text: str) -> int:
    """Return a duration such as ``100ms`` or ``1m30s`` in milliseconds; for ``type=``.

    Example:
        >>> duration_ms("1m30s")
        90000

    Raises:
        ArgumentTypeError: If it is not a duration.
    """
    compact = text.replace(" ", "")
    if not _DURATION.fullmatch(compact):
        raise _mistake(
            f"cannot read {text!r} as a duration; write a number and a unit, like 100ms, 5s, 1m"
        )
    return sum(int(number) * _UNITS_MS[unit] for number, unit in _DURATION_PART.findall(compact))


def positive_duration_ms(text: str) -> int:
    """Return a duration that is not zero in milliseconds; for ``type=``.

    Raises:
        ArgumentTypeError: If it is not one.
    """
    result = duration_ms(text)
    if result == 0:
        raise _mistake("must be longer than 0 ms")
    return result


def size_bytes(text: str) -> int:
    """Return a size such as ``256MiB`` in bytes; for ``type=``.

    Example:
        >>> size_bytes("1GiB")
        1073741824

    Raises:
        ArgumentTypeError: If it is not a size.
    """
    found = _SIZE.fullmatch(text.replace(" ", ""))
    if found is None:
        raise _mistake(
            f"cannot read {text!r} as a size; write a number and a unit, like 512MiB or 2GiB"
        )
    return int(found[1]) * _UNITS_BYTES[found[2]]


def positive_int(text: str) -> int:
    """Return a number of at least 1; for ``type=``.

    Raises:
        ArgumentTypeError: If it is not one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise _mistake(f"must be a number of at least 1, not {text!r}")
    return int(text)


def http_address(text: str) -> HttpAddress:
    """Return ``HOST:PORT``, ``:PORT`` or ``PORT``, the latter two on 127.0.0.1; for ``type=``.

    Example:
        >>> http_address("9100")
        HttpAddress(host='127.0.0.1', port=9100)
        >>> http_address("[::1]:0")
        HttpAddress(host='::1', port=0)

    Raises:
        ArgumentTypeError: If it is no address.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise _mistake(f"cannot read {text!r} as HOST:PORT, as in 127.0.0.1:9100")
    return HttpAddress(host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port))


def read_password(password_file: str | None) -> str | None:
    """Return the Kafka password from its file or from the environment, None if there is none.

    Raises:
        UsageError: If the file cannot be read.
    """
    if password_file is None:
        return os.environ.get("RIVERRUN_KAFKA_PASSWORD")
    try:
        with open(password_file, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--kafka-password-file: {error}") from error
