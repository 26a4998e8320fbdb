"""Addresses of embedded logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from riverrun.connectors.local import parse_local_address
from riverrun.engine.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("local:data", Path("data")),
        ("local:./data/log", Path("data/log")),
        ("local:/var/log/rr", Path("/var/log/rr")),
        ("local:///var/log/rr", Path("/var/log/rr")),
        ("local:~/rr", Path.home() / "rr"),
    ],
)
def test_a_path_is_taken_from_the_address(address: str, path: Path) -> None:
    assert parse_local_address(address) == path


@pytest.mark.parametrize("address", ["", "data", "local:", "local: ", "kafka://host:9092"])
def test_another_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="local:PATH"):
        parse_local_address(address)


def test_two_slashes_are_told_how_to_be_mended() -> None:
    with pytest.raises(ConfigError, match="local:data/log for a relative"):
        parse_local_address("local://data/log")
