"""From ``--broker`` to an opened log."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .arguments import read_password
from .command import UsageError

if TYPE_CHECKING:
    import argparse
    import ssl
    from collections.abc import AsyncGenerator

    from riverrun.connectors.kafka import Security
    from riverrun.engine.log import Log

KAFKA = "kafka://"
LOCAL = "local:"

CONNECT_TIMEOUT_MS = 30_000
"""How long a broker may take to answer first: brokers and workers are often started together."""


@contextlib.asynccontextmanager
async def opened_log(arguments: argparse.Namespace) -> AsyncGenerator[Log, None]:
    """Open the log that the options name, and close it afterwards.

    Raises:
        UsageError: If the address or a security option makes no sense.
        LogUnavailableError: If nobody answers there.
        LogAuthorizationError: If the credentials are refused.
    """
    log = make_log(arguments)
    try:
        await log.start(CONNECT_TIMEOUT_MS)
        yield log
    finally:
        await log.close()


def make_log(arguments: argparse.Namespace) -> Log:
    """Return the log that the options name, not connected yet.

    Raises:
        UsageError: If the address or a security option makes no sense.
    """
    address: str = arguments.broker
    if address.startswith(LOCAL):
        from riverrun.connectors.local import LocalLog, parse_local_address

        return LocalLog(parse_local_address(address))
    if address.startswith(KAFKA):
        from riverrun.connectors.kafka import KafkaLog

        bootstrap = _bootstrap(address)
        return KafkaLog(bootstrap, _security(arguments))
    raise UsageError(
        f"--broker {address!r}: write kafka://HOST:PORT, or local:PATH for the embedded log"
    )


def is_local(address: str) -> bool:
    """Return whether an address names an embedded log."""
    return address.startswith(LOCAL)


def _bootstrap(address: str) -> str:
    hosts = address.removeprefix(KAFKA).rstrip("/").split(",")
    for host in hosts:
        name, _, port = host.rpartition(":")
        if not name or not port.isdecimal() or "/" in name or "@" in name:
            raise UsageError(
                f"--broker {address!r}: {host!r} is not HOST:PORT, as in kafka://localhost:9092"
            )
    return ",".join(hosts)


def _security(arguments: argparse.Namespace) -> Security | None:
    protocol: str | None = arguments.kafka_security_protocol
    if protocol is None:
        if arguments.kafka_username is not None:
            raise UsageError(
                "--kafka-username is given without --kafka-security-protocol; "
                "SASL_SSL is the usual one"
            )
        return None
    from riverrun.connectors.kafka import Secret, Security

    protocol = protocol.upper()
    password = read_password(arguments.kafka_password_file) if "SASL" in protocol else None
    if "SASL" in protocol and password is None:
        raise UsageError(
            f"{protocol} needs a password: set RIVERRUN_KAFKA_PASSWORD or --kafka-password-file"
        )
    return Security(
        protocol=protocol,
        mechanism=(arguments.kafka_sasl_mechanism or "PLAIN").upper(),
        username=arguments.kafka_username,
        password=None if password is None else Secret(password),
        ssl_context=_ssl_context(arguments) if protocol.endswith("SSL") else None,
    )


def _ssl_context(arguments: argparse.Namespace) -> ssl.SSLContext:
    import ssl

    certificate, key = arguments.kafka_cert_file, arguments.kafka_key_file
    try:
        context = ssl.create_default_context(cafile=arguments.kafka_ca_file)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        files = [f for f in (arguments.kafka_ca_file, certificate, key) if f is not None]
        raise UsageError(f"cannot use the TLS files {files}: {error}") from error
    return context
