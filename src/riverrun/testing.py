"""Testing a topology in memory, with a clock that you move."""

from __future__ import annotations

from riverrun.engine.testing import OutputRecord as OutputRecord
from riverrun.engine.testing import TopologyTestDriver as TopologyTestDriver
