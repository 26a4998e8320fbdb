"""How commands fail: messages that say what, where and how to mend it, and exit codes."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from riverrun.cli import COMMANDS, main
from riverrun.cli.arguments import (
    duration_ms,
    http_address,
    positive_duration_ms,
    positive_int,
    size_bytes,
)
from tests.cli.commands import RIVERRUN, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOPOLOGY = (
    "import riverrun as rr\n"
    "topology = rr.Topology('job')\n"
    "topology.source(rr.Topic('in')).sink(rr.Topic('out'))\n"
)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands that run in this process set up logging for all of it."""
    root, ours = logging.getLogger(), logging.getLogger("riverrun")
    before = list(root.handlers), root.level, ours.level, logging.getLogger("asyncio").level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.getLogger("asyncio").setLevel(before[3])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of its own, and a search path that is as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    before = set(sys.modules)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def failing(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its error."""
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().err


def test_help_of_every_command_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as end:
            main([command.name, "--help"])
        assert end.value.code == 0
        printed = capsys.readouterr().out
        assert "examples:" in printed
        assert f"riverrun {command.name}" in printed


def test_help_waits_for_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    result = run("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "demo" in result.stdout

    code = (
        "import sys, contextlib, riverrun.cli\n"
        "with contextlib.suppress(SystemExit): riverrun.cli.main(['--help'])\n"
        "print(sorted({'polars', 'numpy', 'rocksdict', 'aiokafka'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])

    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("riverrun 0.")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (("run",), "required: MODULE"),
        (("worker", "job", "--commit-interval", "soon"), "cannot read 'soon' as a duration"),
        (("worker", "job", "--commit-interval", "0s"), "must be longer than 0 ms"),
        (("worker", "job", "--processes", "0"), "must be a number of at least 1"),
        (("worker", "job", "--state-memory", "lots"), "cannot read 'lots' as a size"),
        (("run", "job", "--http", "localhost"), "as HOST:PORT"),
        (("consume", "t", "--max", "-1"), "at least 1"),
        (("checkpoints", "list", "job"), "--snapshots"),
    ],
)
def test_a_wrong_command_line_is_2(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    code, error = failing(capsys, *argv)

    assert code == 2
    assert error.startswith("riverrun: error: ")
    assert message in error
    assert "--help`" in error


@pytest.mark.parametrize("command", ["run", "describe"])
@pytest.mark.parametrize(
    ("module", "content", "target", "code", "messages"),
    [
        (None, "", "nothing", 2, ["there is no module 'nothing'", "PYTHONPATH"]),
        (None, "", "nothing.py", 2, ["there is no file 'nothing.py'"]),
        (None, "", "a-b", 2, ["'a-b' is no module name"]),
        ("other", "x = 1\n", "other", 2, ["'topology' in module 'other' is no Topology"]),
        ("other", "topology = 1\n", "other", 2, ["but a int", "rr.Topology(...)"]),
        ("late", TOPOLOGY.replace("topology", "jobs"), "late", 2, ["write late:jobs"]),
        ("late", TOPOLOGY, "late:", 2, ["'late:' is not MODULE or MODULE:NAME"]),
        ("bad", "import riverrun as rr\nrr.Topic('a b')\n", "bad", 1, ["'a b'", "bad.py, line 2"]),
        ("bad", "def f(:\n", "bad", 1, ["cannot import bad", "bad.py, line 1"]),
        ("bad", "import nothing_here\n", "bad", 1, ["No module named 'nothing_here'"]),
        ("bad", "x = 1 / 0\n", "./bad.py", 1, ["ZeroDivisionError", "bad.py", "line 1"]),
        ("empty", "import riverrun as rr\ntopology = rr.Topology('a')\n", "empty", 1,
         ["has no source"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_module_is_told(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    module: str | None,
    content: str,
    target: str,
    code: int,
    messages: list[str],
) -> None:
    if module is not None:
        (here / f"{module}.py").write_text(content)

    found, error = failing(capsys, command, target)

    assert found == code, error
    assert "riverrun: error: " in error
    assert [text for text in messages if text not in error] == []
    assert "importlib" not in error


@pytest.mark.parametrize(
    ("broker", "message"),
    [
        ("localhost:9092", "write kafka://HOST:PORT"),
        ("kafka://localhost", "'localhost' is not HOST:PORT"),
        ("kafka://user:secret@h:1", "is not HOST:PORT"),
        ("kafka://a:1,b", "'b' is not HOST:PORT"),
        ("local:", "local:PATH"),
        ("local://x", "local:x"),
    ],
)
def test_a_wrong_broker_address_is_2(
    capsys: pytest.CaptureFixture[str], broker: str, message: str
) -> None:
    code, error = failing(capsys, "consume", "t", "--broker", broker)

    assert (code, message in error) == (2, True), error


def test_the_broker_may_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIVERRUN_BROKER", "nonsense")

    assert "--broker 'nonsense'" in failing(capsys, "consume", "t")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kafka-username", "u"), "--kafka-security-protocol"),
        (("--kafka-security-protocol", "SASL_SSL", "--kafka-username", "u"), "needs a password"),
        (("--kafka-security-protocol", "TLS"), "'TLS' is not one of"),
        (("--kafka-security-protocol", "SSL", "--kafka-ca-file", "none.pem"), "none.pem"),
        (("--kafka-security-protocol", "SASL_PLAINTEXT", "--kafka-password-file", "none"), "none"),
    ],
)
def test_wrong_security_options_are_2(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    code, error = failing(capsys, "consume", "t", "--broker", "kafka://h:1", *options)

    assert (code, message in error) == (2, True), error


def test_a_password_is_never_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIVERRUN_KAFKA_PASSWORD", "hunter2")

    code, error = failing(
        capsys, "consume", "t", "--broker", "kafka://h:1",
        "--kafka-security-protocol", "SASL_PLAINTEXT", "--kafka-sasl-mechanism", "NONE",
        "--kafka-username", "u",
    )  # fmt: skip

    assert code == 2
    assert "hunter2" not in error


def test_a_mistyped_failpoint_is_2(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(TOPOLOGY)

    result = run("run", "job", cwd=tmp_path, RIVERRUN_FAILPOINTS="before_comit")

    assert result.returncode == 2
    assert "no place 'before_comit'" in result.stderr


def test_a_source_topic_that_is_missing_in_production_is_1(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(TOPOLOGY)

    result = run("worker", "job", cwd=tmp_path)

    assert result.returncode == 1
    assert "reads topic 'in', which does not exist" in result.stderr
    assert "Traceback" not in result.stderr


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    run("produce", "in", cwd=tmp_path, stdin="1\n" * 20_000)

    shell = f"{' '.join(RIVERRUN)} consume in | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )

    assert result.stdout == "1\n0\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("text", "expected"), [("100ms", 100), ("1m30s", 90_000), ("2 h", 7_200_000)]
)
def test_durations(text: str, expected: int) -> None:
    assert duration_ms(text) == expected


@pytest.mark.parametrize("text", ["", "5", "-5s", "1.5s", "s", "5 apples"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        positive_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("24MiB", 24 << 20), ("1 GiB", 1 << 30), ("512KiB", 512 << 10)]
)
def test_sizes(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "5", "5MB", "-5MiB", "1.5GiB", "MiB", "1" * 5_000 + "GiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        size_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9100", ("127.0.0.1", 9100)),
        (":9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_http_addresses(text: str, expected: tuple[str, int]) -> None:
    assert http_address(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "host:70000", "host:-1"])
def test_what_is_no_http_address(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        http_address(text)


def test_positive_numbers() -> None:
    assert positive_int("7") == 7
    for text in ("0", "-1", "x", "1.0", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            positive_int(text)
