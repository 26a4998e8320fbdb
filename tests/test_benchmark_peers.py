"""The parts of the runs beside other engines that decide what a figure means; none is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks.orders import WINDOW_MS, OrderStream
from benchmarks.peers import catalog, command, environments
from benchmarks.peers.drain import PeerResult, expected, final_results, readable_records
from benchmarks.peers.process import ProcessTree, members, parse_stat
from benchmarks.peers.report import PeerReport, engines_markdown, rate
from benchmarks.throughput import Throughput
from riverrun.engine.reference.record_batches import ReferenceRecordBatchCodec

CONTROL_BIT_AT, CONTROL_BIT = 22, 0x20


@pytest.mark.parametrize("peer", catalog.PEERS, ids=lambda peer: peer.name)
def test_every_engine_is_pinned_and_has_its_job(peer: catalog.Peer) -> None:
    assert peer.version()[0].isdigit()
    assert any(path.suffix in (".py", ".java") for path in peer.folder.iterdir())
    for job in catalog.JOBS:
        size, quick = peer.size(job, quick=False), peer.size(job, quick=True)
        assert 0 < quick.short < quick.long < size.long
        assert size.short < size.long


def test_versions_are_read_from_requirements_and_poms() -> None:
    text = "one==1.2\ntwo[extra,more]==3.4.5\n"
    assert catalog.pinned(text, "two") == "3.4.5"
    assert catalog.pinned(text, "wo") is None
    pom = "<artifactId>one</artifactId>\n  <version>7.8</version>"
    assert catalog.pinned(pom, "one") == "7.8"


def test_processes_of_an_engine_are_found_by_parent_and_session() -> None:
    table = {
        1: (0, 1),
        10: (1, 10),  # the root
        11: (10, 11),  # a child in a session of its own
        12: (11, 11),
        13: (1, 10),  # its parent has ended, its session tells
        20: (1, 20),
    }
    assert members(table, 10) == {10, 11, 12, 13}


def test_stat_is_read_behind_a_name_with_spaces() -> None:
    rest = "S 7 8 9 " + " ".join(map(str, range(100, 147)))
    parent, session, ticks, pages = parse_stat(f"42 (a) b (c) {rest}")
    assert (parent, session) == (7, 9)
    assert (ticks, pages) == (107 + 108 + 109 + 110, 117)


def test_the_cpu_of_a_process_that_has_ended_is_still_known() -> None:
    work = "import os; os.environ['BENCH_STATE']; sum(range(3_000_000))"
    with ProcessTree("busy", [sys.executable, "-c", work], {}) as tree:
        while tree.exit_code() is None:
            tree.usage()
        assert tree.exit_code() == 0
        assert tree.usage().cpu_s > 0
        home = tree.home
    assert not home.exists()


def test_children_are_ended_with_their_engine() -> None:
    code = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True);"
    with ProcessTree("parent", [sys.executable, "-c", f"{code} time.sleep(60)"], {}) as tree:
        log = tree.home / "log"
        while not log.read_text().strip():
            assert tree.exit_code() is None
        child = int(log.read_text())
        assert Path(f"/proc/{child}").exists()
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True)
    assert shown.stdout.strip() in ("", "Z")


def test_readable_records_are_counted_without_control_records() -> None:
    codec = ReferenceRecordBatchCodec()
    values = [b"%d" % number for number in range(2_000)]
    batches = codec.encode([None] * 2_000, values, [0] * 2_000, None, 4_000)
    payloads = [batch.payload for batch in batches]
    assert len(payloads) > 2
    assert readable_records(b"".join(payloads)) == 2_000
    control = bytearray(payloads[0])
    control[CONTROL_BIT_AT] |= CONTROL_BIT
    first = batches[0].record_count
    assert readable_records(b"".join([bytes(control), *payloads[1:]])) == 2_000 - first


def test_of_updates_the_last_one_counts_and_the_closing_order_does_not() -> None:
    like = pl.DataFrame(
        {
            "user": ["ada"],
            "window_start": [0],
            "window_end": [WINDOW_MS],
            "total": [2.5],
            "orders": [2],
        }
    )
    row = b'{"user":"%s","window_start":0,"window_end":60000,"total":%s,"orders":%d}'
    values = [row % (b"ada", b"1.0", 1), row % (b"closing", b"0", 1), row % (b"ada", b"2.5", 2)]
    assert final_results("window", values, like, updates=True).equals(like)
    assert final_results("window", values, like, updates=False).height == 2


def test_a_result_that_is_put_out_twice_is_not_expected() -> None:
    stream = OrderStream(count=100, keys=5, rate=20, start_ms=WINDOW_MS)
    like = expected("filter", stream)
    documents = [
        b'{"user":"%s","order":%d,"amount":%f}' % (u.encode(), o, a) for u, o, a in like.rows()
    ]
    assert final_results("filter", documents, like, updates=False).equals(like)
    twice = [*documents, documents[0]]
    assert not final_results("filter", twice, like, updates=True).equals(like)


def _report() -> PeerReport:
    own = Throughput("window", 3_000, 95.0, 1_000_000.0, 900_000.0, 0.5, 120.0, 10)
    return PeerReport(
        {"cpu": "2 x test"},
        {},
        [
            PeerResult.of_riverrun(own),
            PeerResult("flink", "window", 2_000, 250_000.0, 200_000.0, 9.0, 12.0, 900.0, 10),
            PeerResult("faust", "window", reason="cannot be installed: no compiler"),
        ],
    )


def test_engines_stand_beside_riverrun() -> None:
    report = _report()
    own, flink, faust = report.rows()
    assert own[:4] == ("window", "riverrun", "1.00 M", "")
    assert flink[:4] == ("window", "PyFlink SQL", "250 k", "4.0x")
    assert faust[:3] == ("window", "Faust", "no figure")
    assert "Faust, window: cannot be installed: no compiler" in report.table()
    assert "- Faust, window: cannot be installed: no compiler" in report.markdown()


def test_rates_have_three_digits() -> None:
    assert [rate(each) for each in (2_345.0, 34_567.0, 345_678.0, 1_234_567.0)] == [
        "2.3 k",
        "34.6 k",
        "346 k",
        "1.23 M",
    ]


def test_the_page_takes_what_stands_between_its_markers() -> None:
    page = (environments.ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    filled = command.with_results(page, _report())
    assert "| window | PyFlink SQL | 250 k | 4.0x |" in filled
    assert command.with_results(filled, _report()) == filled
    with pytest.raises(ValueError, match="no markers of peers"):
        command.between("no page", "peers", "")


def test_the_page_says_what_the_engines_are() -> None:
    page = (environments.ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert engines_markdown() in page


def test_other_command_lines_are_not_of_the_peers() -> None:
    assert command.asked_for(["--peers"])
    assert command.asked_for(["--engine=flink"])
    assert not command.asked_for(["--job", "filter", "--engine-command", "py-spy"])


def test_an_environment_that_cannot_be_made_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    peer = next(peer for peer in catalog.PEERS if peer.name == "kafka_streams")
    with pytest.raises(environments.PeerNotAvailableError, match="no `mvn` in PATH"):
        environments.install(peer)
