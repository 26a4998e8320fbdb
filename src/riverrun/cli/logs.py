"""Logging of the commands: short lines for people, or JSON for machines, to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_LETTERS = {"DEBUG": "D", "INFO": " ", "WARNING": "W", "ERROR": "E", "CRITICAL": "E"}


def configure_logging(level: str, form: str) -> None:
    """Send what riverrun logs from ``level`` on to stderr; of libraries, warnings only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("riverrun").setLevel(level.upper())
    # asyncio tells at this level what our own messages tell better.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


class TextFormatter(logging.Formatter):
    """``12:30:05 W message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{clock} {_LETTERS.get(record.levelname, '?')} {record.getMessage()}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and maybe an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)
