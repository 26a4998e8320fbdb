"""A real broker that asks for TLS and for a name and password, with a certificate of its own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kafka_broker import KafkaBroker, free_port, require_libs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, PASSWORD = "alice", "alice-secret"
SCRAM_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class SecuredBroker:
    """Where to reach it, and whom to trust.

    Attributes:
        addresses: ``host:port`` by security protocol.
        ca_file: Its certificate, PEM.
        password_file: The password of ``USER``.
    """

    addresses: dict[str, str]
    ca_file: Path
    password_file: Path


@contextmanager
def secured_broker(folder: Path) -> Iterator[SecuredBroker]:
    """Run it; ``USER`` is known to PLAIN and to SCRAM-SHA-256.

    Raises:
        KafkaNotAvailableError: If no broker is to be had here.
    """
    ca_file, password_file = folder / "ca.pem", folder / "password"
    key_store = folder / "key-store.pem"
    key, certificate = _self_signed()
    ca_file.write_bytes(certificate)
    key_store.write_bytes(key + certificate)
    password_file.write_text(f"{PASSWORD}\n")
    ports = {name: free_port() for name in ("SSL", "SASL_SSL", "SASL_PLAINTEXT")}
    own = free_port()
    named = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings = {
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{own},{named}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
        + ",".join(f"{name}:{name}" for name in ports),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(key_store),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
    }
    for name in ("sasl_ssl", "sasl_plaintext"):
        prefix = f"listener.name.{name}"
        settings[f"{prefix}.plain.sasl.jaas.config"] = f'{plain} user_{USER}="{PASSWORD}";'
        settings[f"{prefix}.scram-sha-256.sasl.jaas.config"] = scram
    broker = KafkaBroker(own, settings, listeners=named)
    try:
        broker.start()
        _let_in_by_scram(broker.address)
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        yield SecuredBroker(addresses, ca_file, password_file)
    finally:
        broker.remove()


def _let_in_by_scram(address: str) -> None:
    java = ("java", "-XX:TieredStopAtLevel=1", "-cp", f"{require_libs()}/*")
    what = f"SCRAM-SHA-256=[password={PASSWORD}]"
    subprocess.run(
        [
            *java, "kafka.admin.ConfigCommand", "--bootstrap-server", address, "--alter",
            "--add-config", what, "--entity-type", "users", "--entity-name", USER,
        ],
        check=True,
        capture_output=True,
        timeout=SCRAM_TIMEOUT_S,
    )  # fmt: skip


def _self_signed() -> tuple[bytes, bytes]:
    """Return a key and its certificate for the loopback, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "riverrun tests")])
    now = dt.datetime.now(dt.UTC)
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(hosts, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pkcs8, open_text = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(pem, pkcs8, open_text), certificate.public_bytes(pem)
