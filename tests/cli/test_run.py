"""``riverrun run``: produce, run, consume on the embedded log, and what ends do not change."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path

import pytest

from riverrun.engine.planes import select_plane
from tests.cli.commands import (
    COUNTS,
    check_counts,
    counted,
    read_topic,
    run,
    run_ok,
    start_line,
    started,
    terminate,
    wait_until,
    words,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(COUNTS)
    return path


def test_word_count_from_produce_to_consume(tmp_path: Path) -> None:
    run_ok("produce", "lines", cwd=tmp_path, stdin='{"text": "To be or not to be"}\n')

    with started("run", EXAMPLES / "wordcount.py", cwd=tmp_path) as worker:
        line = start_line(worker)
        wait_until(lambda: read_topic(tmp_path / ".riverrun", "word-counts"), "counted")
        assert terminate(worker) == 0

    assert line == (
        f"riverrun: job wordcount, broker local:.riverrun, plane {select_plane().name}, tasks 8, "
        "exactly once, state .riverrun/state/wordcount\n"
    )
    lines = run_ok("consume", "word-counts", cwd=tmp_path).splitlines()
    assert {row["word"]: row["count"] for row in map(json.loads, lines)} == {
        "to": 2, "be": 2, "or": 1, "not": 1
    }  # fmt: skip


def test_missing_source_topics_are_created(tmp_path: Path) -> None:
    (tmp_path / "copy.py").write_text(
        "import riverrun as rr\n"
        "topology = rr.Topology('copy')\n"
        "topology.source(rr.Topic('in')).sink(rr.Topic('out'))\n"
    )
    with started("run", "./copy.py", "--partitions", "3", cwd=tmp_path) as worker:
        assert "tasks 3" in start_line(worker)
        assert terminate(worker) == 0

    assert "topic in was missing and is created, 3 partitions" in (tmp_path / "stderr").read_text()


def test_windows_of_a_stream_that_went_quiet_close(tmp_path: Path) -> None:
    (tmp_path / "minutes.py").write_text(
        "import riverrun as rr\n"
        "topology = rr.Topology('minutes')\n"
        "source = topology.source(rr.Topic('in', partitions=2), event_time='ts')\n"
        "source.key_by('k').window(rr.Tumbling('1s')).aggregate(n=rr.Count())"
        ".sink(rr.Topic('out'))\n"
    )
    run_ok("produce", "in", "--partitions", "2", cwd=tmp_path, stdin='{"k": "a", "ts": 1500}\n')

    with started("run", "minutes", "--idle-after", "500ms", cwd=tmp_path) as worker:
        [row] = wait_until(lambda: read_topic(tmp_path / ".riverrun", "out"), "closed")
        assert terminate(worker) == 0

    assert (row["k"], row["window_start"], row["n"]) == ("a", 1_000, 1)


def test_sigterm_commits_and_the_next_run_repeats_nothing(tmp_path: Path, job: Path) -> None:
    log = tmp_path / ".riverrun"
    for seen in (0, 100):
        run_ok("produce", "words", "--key", "word", cwd=tmp_path, stdin=words(100))
        with started("run", job, cwd=tmp_path) as worker:
            wait_until(lambda: counted(log) > seen, "more counted")  # noqa: B023
            assert terminate(worker) == 0

    with started("run", job, cwd=tmp_path) as worker:
        start_line(worker)
        wait_until(lambda: counted(log) == 200, "all counted")
        assert terminate(worker) == 0
    check_counts(tmp_path / ".riverrun", 200)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_changes_no_result(tmp_path: Path, job: Path) -> None:
    log, total = tmp_path / ".riverrun", 0
    for _ in range(3):
        with started("run", job, cwd=tmp_path) as worker:
            for _ in range(2):
                run_ok("produce", "words", cwd=tmp_path, stdin=words(500))
                total += 500
            wait_until(lambda: counted(log) > total - 1_000, "some of it counted")  # noqa: B023
            worker.send_signal(signal.SIGKILL)

    with started("run", job, cwd=tmp_path) as worker:
        start_line(worker)
        wait_until(lambda: counted(log) >= total, "all counted")
        assert terminate(worker) == 0
    check_counts(log, total)


@pytest.mark.parametrize("place", ["before_commit", "after_commit"])
def test_a_kill_at_a_failpoint_changes_no_result(tmp_path: Path, job: Path, place: str) -> None:
    run_ok("produce", "words", cwd=tmp_path, stdin=words(500))

    killed = run("run", job, cwd=tmp_path, RIVERRUN_FAILPOINTS=f"{place}:3")
    with started("run", job, cwd=tmp_path) as worker:
        start_line(worker)
        wait_until(lambda: counted(tmp_path / ".riverrun") >= 500, "all counted")
        assert terminate(worker) == 0

    assert killed.returncode == -signal.SIGKILL
    check_counts(tmp_path / ".riverrun", 500)


def test_metrics_and_health_are_served(tmp_path: Path, job: Path) -> None:
    run_ok("produce", "words", cwd=tmp_path, stdin=words(10))

    def get(url: str) -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    with started("run", job, "--http", "0", cwd=tmp_path) as worker:
        found = re.search(r"http://127\.0\.0\.1:\d+", start_line(worker))
        assert found is not None
        wait_until(lambda: counted(tmp_path / ".riverrun") == 10, "all counted")

        health = json.loads(get(f"{found[0]}/healthz"))
        assert (health["job"], health["healthy"]) == ("counts", True)
        assert json.loads(get(f"{found[0]}/readyz"))["ready"] is True
        metrics = get(f"{found[0]}/metrics")
        assert terminate(worker) == 0

    assert f'riverrun_plane_info{{job="counts",plane="{select_plane().name}"' in metrics
    assert "riverrun_task_commits_total{" in metrics


def test_workers_side_by_side_find_state_directories(tmp_path: Path, job: Path) -> None:
    run_ok("produce", "words", cwd=tmp_path, stdin=words(10))

    with started("run", job, cwd=tmp_path) as first, started("run", job, cwd=tmp_path) as second:
        lines = [start_line(first), start_line(second)]
        wait_until(lambda: counted(tmp_path / ".riverrun") == 10, "all counted")
        assert (terminate(first), terminate(second)) == (0, 0)

    directories = {line.rstrip().rpartition("state ")[2] for line in lines}
    assert directories == {".riverrun/state/counts", ".riverrun/state/counts.2"}


def test_a_second_ctrl_c_does_not_wait_for_the_last_commit(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "import riverrun as rr\n"
        "topology = rr.Topology('slow')\n"
        "source = topology.source(rr.Topic('in', partitions=1))\n"
        "slow = source.map(lambda value: print('in', flush=True) or time.sleep(90))\n"
        "slow.sink(rr.Topic('out'))\n"
    )
    run_ok("produce", "in", "--partitions", "1", cwd=tmp_path, stdin='{"a": 1}\n')
    with started("run", "slow", cwd=tmp_path) as worker:
        start_line(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "in\n"
        worker.send_signal(signal.SIGINT)
        errors = tmp_path / "stderr"
        wait_until(lambda: "committing and leaving" in errors.read_text(), "heard the first")
        assert worker.poll() is None
        worker.send_signal(signal.SIGINT)

        assert worker.wait(30) == 130


def test_a_record_that_cannot_be_processed_ends_it_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(
        "import riverrun as rr\n"
        "class Word(rr.Record):\n"
        "    word: str\n"
        "topology = rr.Topology('typed')\n"
        "topology.source(rr.Topic('words', value=rr.Json(Word))).sink(rr.Topic('out'))\n"
    )
    run_ok("produce", "words", "--partitions", "1", cwd=tmp_path, stdin='{"word": 5}\n')

    result = run("run", "typed", cwd=tmp_path)

    assert result.returncode == 1
    [error] = [line for line in result.stderr.splitlines() if "riverrun: error:" in line]
    assert "topic words, partition 0, offset 0" in error
    assert "Traceback" not in result.stderr
