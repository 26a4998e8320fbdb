"""What the tests of window tables share."""

from __future__ import annotations

from typing import Any

PREFIX = b"win:"
SLICE_MS = 10
KINDS: dict[str, Any] = {
    "n": "count",
    "present": "count_values",
    "total": "sum",
    "average": "mean",
    "low": "min",
    "high": "max",
    "opening": "first",
    "closing": "last",
}
