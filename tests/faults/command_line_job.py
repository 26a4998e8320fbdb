"""A job for the tests of the command line."""

from __future__ import annotations

from tests.faults.harness import topology as make

topology = make()
