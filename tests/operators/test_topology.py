from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from riverrun.engine.errors import TopologyError
from riverrun.engine.graph import SourceNode, WatermarkPolicy
from riverrun.engine.schema import Record, Schema
from riverrun.operators import Count, Topic, Topology, Tumbling, Watermark
from tests.operators.records import ORDER, FakeCodec, new_topology, orders, untyped


def test_a_source_carries_what_the_topic_and_the_call_say() -> None:
    topology = new_topology()
    topic = Topic[Any]("orders", value=FakeCodec(ORDER), key="int", keyed_by="count", partitions=4)
    watermark = Watermark(out_of_orderness="5s", idle_after="30s", max_future=None)
    stream = topology.source(
        topic, event_time="ts", watermark=watermark, name="in", on_error="skip"
    )
    assert topology.graph.nodes["in"] == SourceNode(
        name="in",
        topic="orders",
        codec=FakeCodec(ORDER),
        schema=ORDER,
        event_time="ts",
        watermark=WatermarkPolicy(5_000, 30_000, None),
        key_format="int",
        keyed_by="count",
        on_error="skip",
        partitions=4,
    )
    assert stream.schema == ORDER


def test_a_topic_without_codec_gets_the_default_one() -> None:
    topology = Topology("job", default_codec=FakeCodec())
    assert topology.source(Topic("in")).schema is None
    with pytest.raises(TopologyError, match="topic 'in' has no codec"):
        Topology("job").source(Topic("in"))


@pytest.mark.parametrize("name", ["", "a b", ".", "..", "x" * 250, "a/b", None])
def test_names_that_the_broker_refuses_are_refused(name: Any) -> None:
    with pytest.raises(TopologyError, match="is not a topic name"):
        Topic(name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"value": Record},
        {"key": "float"},
        {"partitions": 0},
        {"partitions": "2"},
        {"partitions": 1.5},
        {"partitions": True},
        {"retention": "soon"},
        {"retention": 0},
    ],
)
def test_topics_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TopologyError, match="topic 'orders'"):
        Topic("orders", **arguments)


def test_a_topology_name_is_part_of_topic_names() -> None:
    with pytest.raises(TopologyError, match="name of a topology 'my job'"):
        Topology("my job")


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "-rf"])
def test_a_topology_name_begins_with_a_letter_a_digit_or_an_underscore(name: str) -> None:
    with pytest.raises(TopologyError, match="begin with a letter, a digit or '_', not"):
        Topology(name)
    assert Topology("_4.a-b").name == "_4.a-b"


@pytest.mark.parametrize("name", [None, 5, Topic])
def test_a_topology_without_a_name_is_told_so(name: Any) -> None:
    with pytest.raises(TopologyError, match=r"a topology takes a name, like Topology\('revenue'\)"):
        Topology(name)


def test_the_class_of_a_codec_is_told_to_be_called() -> None:
    with pytest.raises(
        TopologyError, match=r"write value=FakeCodec\(\.\.\.\), like riverrun\.Json"
    ):
        Topic("orders", value=FakeCodec)  # type: ignore[arg-type]


# --- event time ----------------------------------------------------------------------------------


def test_an_event_time_field_must_exist() -> None:
    topic = Topic[Any]("orders", value=FakeCodec(ORDER))
    with pytest.raises(TopologyError, match=r"event_time names unknown field 'tss'.*'ts'"):
        new_topology().source(topic, event_time="tss")


def test_an_event_time_field_must_be_a_time() -> None:
    topic = Topic[Any]("orders", value=FakeCodec(ORDER))
    with pytest.raises(TopologyError, match="event_time field 'user' is String; it must be"):
        new_topology().source(topic, event_time="user")


def test_an_event_time_may_be_an_integer_a_datetime_or_a_function() -> None:
    schema = Schema(None, {"at": pl.Datetime("us", "UTC"), "ms": pl.Int64()})
    topic = Topic[Any]("orders", value=FakeCodec(schema))
    for event_time in ("at", "ms", lambda value: 5, None):
        new_topology().source(topic, event_time=event_time)


def test_an_event_time_that_is_none_of_these_is_refused() -> None:
    for event_time in (5, pl.col("ts")):
        with pytest.raises(TopologyError, match="a field name or a function"):
            new_topology().source(Topic[Any]("orders"), event_time=event_time)  # type: ignore[arg-type]


def test_keyed_by_must_name_a_field() -> None:
    with pytest.raises(TopologyError, match="keyed_by of topic 'orders' names unknown field"):
        orders(keyed_by="nobody")


def test_a_watermark_must_be_one() -> None:
    with pytest.raises(TopologyError, match=r"is not a Watermark\("):
        new_topology().source(Topic[Any]("orders"), watermark="5s")  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match="idle_after must be longer than 0 ms"):
        Watermark(idle_after=0)


# --- the whole -----------------------------------------------------------------------------------


def test_a_topic_is_read_once() -> None:
    topology = new_topology()
    untyped(topology, "in")
    with pytest.raises(TopologyError, match="read by step 'source-1' already"):
        untyped(topology, "in")


def test_a_topic_that_feeds_itself_is_a_cycle() -> None:
    stream = untyped(new_topology(), "in").filter(pl.col("x") > 0)
    with pytest.raises(TopologyError, match="step 'sink-1' writes topic 'in', which feeds it"):
        stream.sink(Topic("in"))


def test_a_cycle_over_several_topics_is_found_whichever_end_comes_last() -> None:
    topology = new_topology()
    untyped(topology, "a").sink(Topic("b"))
    with pytest.raises(TopologyError, match="a cycle"):
        untyped(topology, "b").sink(Topic("a"))
    topology = new_topology()
    untyped(topology, "a").sink(Topic("b"))
    untyped(topology, "c").sink(Topic("a"))
    untyped(topology, "b").sink(Topic("d"))
    with pytest.raises(TopologyError, match="a cycle"):
        untyped(topology, "d").sink(Topic("c"))


def test_one_part_of_a_topology_may_read_what_another_writes() -> None:
    topology = new_topology()
    untyped(topology, "a").sink(Topic("b"))
    untyped(topology, "b").sink(Topic("c"))
    topology.validate()


def test_a_whole_topology_is_valid() -> None:
    topology = new_topology()
    results = orders(topology).key_by("user").window(Tumbling("1m")).aggregate(n=Count())
    results.sink(Topic("counts"))
    topology.validate()


def test_a_topology_without_source_is_refused() -> None:
    with pytest.raises(TopologyError, match="has no source"):
        new_topology().validate()


def test_results_that_go_nowhere_are_told() -> None:
    topology = new_topology()
    stream = orders(topology)
    stream.filter(pl.col("amount") > 0)
    stream.sink(Topic("out"))
    with pytest.raises(TopologyError, match="results of step 'filter-1' go nowhere"):
        topology.validate()


def test_a_key_that_nobody_uses_is_told_by_the_name_the_user_knows() -> None:
    topology = new_topology()
    orders(topology).key_by("user")
    with pytest.raises(TopologyError, match="results of step 'key_by-1' go nowhere"):
        topology.validate()


def test_a_step_that_may_be_there_for_what_it_does_may_be_the_end() -> None:
    topology = new_topology()
    orders(topology).map(lambda order: None)
    topology.validate()
