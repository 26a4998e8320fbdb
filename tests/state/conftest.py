from __future__ import annotations

import sys
from pathlib import Path

TESTS = str(Path(__file__).parents[1])
if TESTS not in sys.path:
    # The suite runs with import-mode=importlib, which adds no paths.
    sys.path.append(TESTS)
