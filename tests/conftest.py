"""Fixtures that every folder of tests may ask for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

from riverrun.engine.planes import PLANE_VARIABLE, why_reference
from tests import kafka_broker
from tests.kafka_missing import give_up

if TYPE_CHECKING:
    from collections.abc import Iterator

# Without a compiler there is no kernel to test. Forced, a missing one is an error, not a gap.
no_kernel = why_reference() if os.environ.get(PLANE_VARIABLE) != "kernel" else None
collect_ignore = ["engine/kernel"] if no_kernel else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what was left out, where a quiet run too shows it."""
    if no_kernel:
        terminalreporter.write_line(
            f"NO KERNEL, tests/engine/kernel WAS LEFT OUT: {no_kernel}", yellow=True
        )


# Machines are busy and the first call of anything is slow: a run that takes long has no bug.
# In CI the examples are the same each time, so that what a change is judged by can be repeated;
# everywhere else they are new ones each time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The address of a real Kafka broker that lives as long as the test run.

    Tests that use it carry the mark ``kafka``. Where no broker is to be had they are skipped,
    unless ``RIVERRUN_REQUIRE_KAFKA=1`` says that this is a failure.
    """
    address = kafka_broker.from_environment()
    if address is not None:
        yield address
        return
    try:
        broker = kafka_broker.KafkaBroker()
        broker.start()
    except kafka_broker.KafkaNotAvailableError as error:
        give_up(f"NO KAFKA BROKER, NOTHING ABOUT KAFKA WAS TESTED: {error}")
    try:
        yield broker.address
    finally:
        broker.remove()
