"""The commands on a real broker that asks for TLS and credentials."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.cli.commands import run, run_ok, words
from tests.cli.killed_worker import check_counts_after_a_kill
from tests.kafka_broker import KafkaNotAvailableError
from tests.kafka_missing import give_up
from tests.secured_broker import USER, SecuredBroker, secured_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def secured(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """A broker that asks for more than the suite's own."""
    del kafka
    with ExitStack() as stack:
        try:
            folder = tmp_path_factory.mktemp("secured")
            broker = stack.enter_context(secured_broker(folder))
        except KafkaNotAvailableError as error:
            give_up(str(error))
        yield broker


def options(secured: SecuredBroker, protocol: str, mechanism: str = "") -> list[str]:
    given = ["--broker", f"kafka://{secured.addresses[protocol]}"]
    given += ["--kafka-security-protocol", protocol]
    if protocol.endswith("SSL"):
        given += ["--kafka-ca-file", str(secured.ca_file)]
    if mechanism:
        given += ["--kafka-sasl-mechanism", mechanism, "--kafka-username", USER]
        given += ["--kafka-password-file", str(secured.password_file)]
    return given


@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [
        ("SSL", ""),
        ("SASL_SSL", "PLAIN"),
        ("SASL_SSL", "SCRAM-SHA-256"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
    ],
)
def test_produce_worker_kill_worker_consume(
    tmp_path: Path, secured: SecuredBroker, protocol: str, mechanism: str
) -> None:
    broker = options(secured, protocol, mechanism)
    # Enough for answers that do not fit into one record of TLS, or one read.
    check_counts_after_a_kill(tmp_path, broker, first=50_000)


def test_wrong_credentials_are_told(tmp_path: Path, secured: SecuredBroker) -> None:
    broker = options(secured, "SASL_SSL", "PLAIN")[:-2]
    result = run("consume", "t", *broker, cwd=tmp_path, RIVERRUN_KAFKA_PASSWORD="wrong")

    assert result.returncode == 1
    assert "refused our credentials" in result.stderr
    assert "wrong" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_certificate_that_is_not_trusted_is_told(tmp_path: Path, secured: SecuredBroker) -> None:
    broker = options(secured, "SSL")[:-2]
    result = run("consume", "t", *broker, cwd=tmp_path)

    assert result.returncode == 1
    assert "is not trusted: self-signed certificate" in result.stderr
    assert "--kafka-ca-file" in result.stderr
    assert "Traceback" not in result.stderr


def test_one_broker_that_is_not_trusted_does_not_keep_from_the_others(
    tmp_path: Path, secured: SecuredBroker
) -> None:
    broker = options(secured, "SSL")
    trusted = secured.addresses["SSL"]
    other = trusted.replace("127.0.0.1", "localhost")  # the certificate has no such name

    broker[1] = f"kafka://{other}"
    result = run("consume", "t", *broker, cwd=tmp_path)
    assert "not valid for 'localhost'. Is the address" in result.stderr

    broker[1] = f"kafka://{other},{trusted}"
    run_ok("produce", "trusted", "--partitions", "1", *broker, cwd=tmp_path, stdin=words(1))
