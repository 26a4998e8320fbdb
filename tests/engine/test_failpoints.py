"""Failpoints: only where asked for, and only at places that exist."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from riverrun.engine.errors import ConfigError
from riverrun.engine.failpoints import FAILPOINTS, failpoints_from, no_failpoints

if TYPE_CHECKING:
    from unittest.mock import MagicMock


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    from unittest.mock import MagicMock

    found = MagicMock()
    monkeypatch.setattr(os, "kill", found)
    return found


def test_unasked_no_place_does_anything(kill: MagicMock) -> None:
    hit = failpoints_from({})
    for place in FAILPOINTS:
        hit(place)

    assert hit is no_failpoints
    kill.assert_not_called()


def test_the_process_dies_at_the_pass_that_was_asked_for(kill: MagicMock) -> None:
    hit = failpoints_from({"RIVERRUN_FAILPOINTS": "before_commit:3,after_restore"})

    hit("before_commit")
    hit("before_commit")
    kill.assert_not_called()
    hit("before_commit")

    kill.assert_called_once_with(os.getpid(), signal.SIGKILL)
    hit("after_restore")
    assert kill.call_count == 2


def test_a_place_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match="no place 'elsewhere'"):
        failpoints_from({"RIVERRUN_FAILPOINTS": "elsewhere:1"})
