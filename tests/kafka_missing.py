"""What becomes of a test where no Kafka broker is to be had."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.kafka_broker import REQUIRED_VARIABLE


def give_up(reason: str) -> NoReturn:
    """Skip the test, or fail it where ``RIVERRUN_REQUIRE_KAFKA=1`` says that there is one."""
    if os.environ.get(REQUIRED_VARIABLE) == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
