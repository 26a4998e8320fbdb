"""What the integration tests share: an S3 server, a way to start a job, a way to be heard."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.s3_server import s3_server

from .harness import Run, running_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "integration"

Say = Callable[[str], None]
StartJob = Callable[..., AbstractAsyncContextManager[Run]]


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """An S3 server: the environment that leads to it."""
    with s3_server(BUCKET) as environment:
        yield environment


@pytest.fixture(autouse=True)
def no_traces_of_slow_tests() -> None:
    """Call off pytest's dump of all stacks after a while: these tests have deadlines inside."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    """Writes a line to the terminal at once, whatever pytest captures."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    began_s = time.monotonic()

    def write(text: str) -> None:
        if reporter is None or capture is None:
            return
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(f"  {time.monotonic() - began_s:5.1f} s  {text}")

    return write


@pytest.fixture
def start_job(
    kafka: str,
    s3: dict[str, str],
    say: Say,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> StartJob:
    """``running_job`` on the broker and the S3 server of the test run."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)  # for the check of the snapshots, in this process
    return partial(running_job, kafka, BUCKET, tmp_path, s3, say)
