"""The embedded log: topics in one local directory, so that the first steps need no server."""

from __future__ import annotations

from .address import parse_local_address
from .log import LocalLog

__all__ = ["LocalLog", "parse_local_address"]
