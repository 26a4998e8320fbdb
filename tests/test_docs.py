"""The documentation is executed: what the README tells a newcomer to do is done here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

import riverrun as rr

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DEADLINE_S = 60


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> dict[str, str]:
    """Return environment in which `riverrun` is found first where this test runs."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """A folder with the README's first topology in it."""
    (tmp_path / "views.py").write_text(blocks("python")[0])
    return tmp_path


@pytest.fixture
def worker(newcomer: Path) -> Iterator[subprocess.Popen[str]]:
    """`riverrun run views.py`, as the README says it."""
    (command,) = (b for b in blocks("bash") if b.startswith("riverrun run"))
    with subprocess.Popen(
        ["bash", "-c", f"exec {command.strip()}"],
        cwd=newcomer,
        env=commands(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_the_first_topology_gives_the_results_that_the_readme_promises(
    newcomer: Path, worker: subprocess.Popen[str]
) -> None:
    assert worker.stdout is not None
    assert "job views" in worker.stdout.readline()
    (feed,) = (b for b in blocks("bash") if "riverrun produce" in b)

    done = subprocess.run(
        ["bash", "-c", feed],
        cwd=newcomer,
        env=commands(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )

    results = {line["user"]: line for line in map(json.loads, done.stdout.splitlines())}
    promised = json.loads(re.findall(r"`(\{.user.*?\})`", README)[0])
    assert results["ada"] == promised
    assert results["bob"] == {**promised, "user": "bob", "views": 1}


def test_the_test_of_the_first_topology_passes(newcomer: Path) -> None:
    (code,) = (b for b in blocks("python") if "TopologyTestDriver" in b)
    (newcomer / "test_views.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_views.py", "-p", "no:cacheprovider"],
        cwd=newcomer,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_the_two_ways_to_filter_are_both_accepted() -> None:
    class Order(rr.Record):
        amount: float

    (code,) = (b for b in blocks("python") if b.startswith("orders.filter"))
    orders = rr.Topology("t").source(rr.Topic("orders", value=rr.Json(Order)))
    for line in code.splitlines():
        eval(line, {"orders": orders, "pl": pl})


def test_every_link_in_the_documents_leads_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    text += (ROOT / "docs/guarantees.md").read_text()
    named = re.findall(r"`([a-z_/]+\.py)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
