"""Addresses of embedded logs: ``local:PATH``."""

from __future__ import annotations

from pathlib import Path

from riverrun.engine.errors import ConfigError

SCHEME = "local:"


def parse_local_address(address: str) -> Path:
    """Return the directory that ``local:PATH`` names; ``~`` is the user's home.

    Example:
        >>> parse_local_address("local:data/log").as_posix()
        'data/log'

    Raises:
        ConfigError: It is another kind of address, or the path is missing.
    """
    path = address.removeprefix(SCHEME)
    if path == address or not path.strip():
        raise ConfigError(f"address {address!r} is not of the form local:PATH")
    if path.startswith("//") and not path.startswith("///"):
        # A path may begin with two slashes, but whoever writes this means local:x or local:/x.
        raise ConfigError(
            f"address {address!r} is not of the form local:PATH: write local:{path[2:]} for a"
            f" relative path, local:/{path[2:]} for an absolute one"
        )
    return Path(path).expanduser()
