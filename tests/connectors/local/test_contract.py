"""The contract of the log port over the embedded log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun.connectors.local import LocalLog
from tests.contracts.log import LogContract, OpenTestLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from riverrun.engine.log import Log


class TestLocalLogContract(LogContract):
    @pytest.fixture
    async def open_log(self, tmp_path: Path) -> AsyncIterator[OpenTestLog]:
        logs = list[LocalLog]()

        async def open_one() -> Log:
            log = LocalLog(tmp_path / "log")
            await log.start(timeout_ms=5_000)
            logs.append(log)
            return log

        yield open_one
        for log in logs:
            await log.close()
