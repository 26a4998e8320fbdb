"""``riverrun describe``: golden texts for a small topology with one of everything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import polars as pl
import pytest

import riverrun as rr
from riverrun.cli import main
from riverrun.cli.plan_formats import duration_text, json_of, mermaid_of, text_of
from riverrun.engine.plan import Plan, make_plan

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def plan() -> Plan:
    topology = rr.Topology("shop")
    orders = topology.source(
        rr.Topic("orders", partitions=4),
        event_time="ts",
        watermark=rr.Watermark(out_of_orderness="5s", idle_after="1m30s"),
        on_error="dead_letter",
    )
    results = (
        orders.filter(pl.col("amount") > 0)
        .key_by("user")
        .window(rr.Tumbling("1m"))
        .aggregate(total=rr.Sum("amount"))
    )
    results.sink(rr.Topic("revenue", partitions=2))
    results.late.sink(rr.Topic("late"))
    return make_plan(topology.graph)


def test_text(plan: Plan) -> None:
    assert f"{text_of(plan)}\n" == (GOLDEN / "shop.txt").read_text()


def test_mermaid(plan: Plan) -> None:
    assert f"{mermaid_of(plan)}\n" == (GOLDEN / "shop.mmd").read_text()


def test_json(plan: Plan) -> None:
    described = json.loads(json_of(plan))

    assert described["job"] == "shop"
    assert [sub["id"] for sub in described["subtopologies"]] == ["0", "1"]
    assert described["subtopologies"][1]["writes"] == ["revenue", "late"]
    [window] = [s for s in described["subtopologies"][1]["steps"] if s["kind"] == "window"]
    assert window["state"] == "windows(60000,60000,0):total=sum(amount)"
    roles = {topic["name"]: topic["role"] for topic in described["topics"]}
    assert roles["orders"] == "source"
    assert roles["shop-dead-letters"] == "dead letters"
    assert roles["shop-1-changelog"] == "changelog"


@pytest.mark.parametrize("example", ["revenue.py", "wordcount.py", "flights/topology.py"])
@pytest.mark.parametrize("form", ["text", "mermaid", "json"])
def test_every_example_can_be_described(
    example: str, form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))

    assert main(["describe", str(EXAMPLES / example), "--format", form]) == 0
    assert capsys.readouterr().out.count("\n") > 10


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(0, "0ms"), (250, "250ms"), (60_000, "1m"), (5_405_001, "1h30m5s1ms"), (86_400_000, "1d")],
)
def test_durations_are_told_as_users_write_them(duration_ms: int, text: str) -> None:
    assert duration_text(duration_ms) == text
