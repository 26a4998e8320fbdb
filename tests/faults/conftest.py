"""Fixtures of the fault tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import local_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .harness import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world on the embedded log, without snapshots."""
    async with local_world(tmp_path) as world:
        yield world


@pytest.fixture
async def world_with_snapshots(tmp_path: Path) -> AsyncIterator[World]:
    """A world on the embedded log, with snapshots in a directory."""
    async with local_world(tmp_path, snapshots=True) as world:
        yield world
