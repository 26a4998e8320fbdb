from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from riverrun.engine.errors import TopologyError
from riverrun.engine.graph import Edge, OperatorNode, RepartitionNode, SinkNode
from riverrun.engine.schema import Record, Schema
from riverrun.operators import (
    Aggregate,
    Count,
    Hopping,
    KeyedStream,
    Max,
    Mean,
    ProcessContext,
    ProcessFunction,
    Retry,
    Session,
    Stream,
    Sum,
    Topic,
    Topology,
    Tumbling,
)
from tests.operators.records import ORDER, Order, new_topology, orders, untyped

if TYPE_CHECKING:
    from collections.abc import Callable


async def wait(order: Order) -> Order:
    return order


def node(stream: Stream[Any]) -> OperatorNode:
    found = stream.steps.graph.nodes[stream.edge.step]
    assert isinstance(found, OperatorNode)
    return found


def names(topology: Topology) -> list[str]:
    return list(topology.graph.nodes)


def repartitions(topology: Topology) -> list[str]:
    return [n.name for n in topology.graph.nodes.values() if isinstance(n, RepartitionNode)]


# --- names ---------------------------------------------------------------------------------------


def test_steps_are_named_by_kind_and_number_within_the_kind() -> None:
    topology = new_topology()
    stream = orders(topology).filter(pl.col("amount") > 0).map(lambda o: o)
    stream.filter(lambda o: True).key_by(lambda o: 1).sink(Topic("out"))
    assert names(topology) == [
        "source-1", "filter-1", "map-1", "filter-2", "key_by-1", "key_by-1-repartition", "sink-1",
    ]  # fmt: skip


def test_a_name_that_a_user_took_is_left_out() -> None:
    stream = orders().filter(lambda o: True, name="filter-1").filter(lambda o: True)
    assert stream.edge.step == "filter-2"


def test_two_steps_of_one_name_are_refused() -> None:
    stream = orders().filter(lambda o: True, name="large")
    with pytest.raises(TopologyError, match="two steps are called 'large'"):
        stream.map(lambda o: o, name="large")


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", "x" * 101])
def test_names_that_cannot_be_part_of_a_topic_name_are_refused(name: str) -> None:
    with pytest.raises(TopologyError, match="letters, digits"):
        orders().filter(lambda o: True, name=name)


def test_a_column_called_name_is_told_apart_from_the_name_of_the_step() -> None:
    with pytest.raises(TopologyError, match=r"expression\.alias\('name'\)"):
        orders().map(pl.col("user"), name=pl.col("user"))  # type: ignore[call-overload]


# --- schemas -------------------------------------------------------------------------------------


class Total(Record):
    user: str
    total: float


def test_filter_and_branch_keep_the_schema() -> None:
    stream = orders().filter(pl.col("amount") > 0)
    assert stream.schema == ORDER
    assert [s.schema for s in stream.branch(pl.col("amount") > 10)] == [ORDER, ORDER]


def test_map_takes_the_schema_from_the_return_annotation() -> None:
    def total(order: Order) -> Total:
        return Total(order.user, order.amount)

    assert orders().map(total).schema == Schema.of(Total)
    assert orders().map(lambda o: o).schema is None


def test_flat_map_takes_the_schema_from_the_elements() -> None:
    def split(order: Order) -> list[Total]:
        return []

    assert orders().flat_map(split).schema == Schema.of(Total)
    assert orders().flat_map(lambda o: [o]).schema is None


def test_expressions_say_what_columns_they_give() -> None:
    stream = orders().map(pl.col("user"), total=pl.col("amount") * pl.col("count"))
    assert stream.schema == Schema(None, {"user": pl.String(), "total": pl.Float64()})


def test_results_of_a_window_have_key_bounds_and_aggregates() -> None:
    windowed = orders().key_by("user").window(Tumbling("1m"))
    results = windowed.aggregate(total=Sum("amount"), pieces=Sum("count"), n=Count(), m=Mean("ts"))
    assert results.schema == Schema(
        None,
        {
            "user": pl.String(),
            "window_start": pl.Int64(),
            "window_end": pl.Int64(),
            "total": pl.Float64(),
            "pieces": pl.Int64(),
            "n": pl.Int64(),
            "m": pl.Float64(),
        },
    )
    assert results.late.schema == ORDER
    assert results.filter(pl.col("total") > 5).late.edge == Edge("window-1", 1)


def test_without_a_schema_nothing_is_checked_and_nothing_known() -> None:
    keyed = untyped().filter(pl.col("x") > 0).key_by("y")
    assert keyed.window(Tumbling("1m")).aggregate(total=Sum("z")).schema is None
    assert keyed.aggregate(total=Sum("z")).schema is None


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_moves_records_through_a_topic() -> None:
    topology = new_topology()
    keyed = orders(topology).key_by("user", partitions=6)
    repartition = topology.graph.nodes["key_by-1-repartition"]
    assert repartition == RepartitionNode("key_by-1-repartition", Edge("key_by-1"), ORDER, 6)
    assert isinstance(keyed, KeyedStream)
    assert keyed.key_names == ("user",)


def test_a_source_that_is_keyed_by_the_field_needs_no_topic() -> None:
    topology = new_topology()
    keyed = orders(topology, keyed_by="user").filter(pl.col("amount") > 0).key_by("user")
    assert names(topology) == ["source-1", "filter-1", "key_by-1"]
    assert keyed.key_names == ("user",)


@pytest.mark.parametrize(
    "between",
    [
        lambda s: s,
        lambda s: s.filter(pl.col("amount") > 0),
        lambda s: s.branch(pl.col("amount") > 0)[0],
        lambda s: s.branch(pl.col("amount") > 0)[1],
        lambda s: s.filter(pl.col("amount") > 0).union(s.filter(pl.col("amount") < 0)),
        lambda s: s.map(pl.col("user"), double=pl.col("amount") * 2),
        lambda s: s.map(pl.all(), double=pl.col("amount") * 2),
        lambda s: s.window(Tumbling("1m")).aggregate(total=Sum("amount")),
        lambda s: s.aggregate(total=Sum("amount")),
        lambda s: s.window(Tumbling("1m")).aggregate(total=Sum("amount")).late,
    ],
)
def test_the_same_key_again_costs_nothing(between: Callable[[Any], Any]) -> None:
    topology = new_topology()
    stream = between(orders(topology).key_by("user"))
    before = names(topology)
    assert stream.key_by("user") is stream
    assert names(topology) == before


@pytest.mark.parametrize(
    "between",
    [
        lambda s: s.map(lambda o: o),
        lambda s: s.flat_map(lambda o: [o]),
        lambda s: s.map_async(wait),
        lambda s: s.map((pl.col("user") + "!").alias("user")),
        lambda s: s.map(pl.col("amount").alias("user").cast(pl.String)),
        lambda s: s.reduce(lambda a, b: a),
    ],
)
def test_values_that_changed_may_have_another_key(between: Callable[[Any], Any]) -> None:
    topology = new_topology()
    stream = between(orders(topology).key_by("user"))
    assert isinstance(stream, KeyedStream)
    stream.key_by("user")
    assert repartitions(topology) == ["key_by-1-repartition", "key_by-2-repartition"]


def test_the_key_stays_through_a_map_and_a_keyed_step_may_follow() -> None:
    topology = new_topology()
    mapped = orders(topology).key_by("user").map(lambda o: {"total": o.amount})
    mapped.aggregate(total=Sum("total"))
    assert repartitions(topology) == ["key_by-1-repartition"]
    assert node(mapped.aggregate(total=Sum("total"))).keyed


@pytest.mark.parametrize(
    "key", [("count", "user"), (pl.col("user").str.to_uppercase(),), (lambda o: o.user,)]
)
def test_another_key_moves_records_again(key: tuple[Any, ...]) -> None:
    topology = new_topology()
    orders(topology).key_by("user").key_by(*key)
    assert len(repartitions(topology)) == 2


def test_an_expression_that_is_a_field_is_that_field() -> None:
    topology = new_topology()
    keyed = orders(topology).key_by("user")
    assert keyed.key_by(pl.col("user")) is keyed


def test_a_number_of_partitions_moves_records_whatever_their_key() -> None:
    topology = new_topology()
    orders(topology).key_by("user").key_by("user", partitions=3)
    assert len(repartitions(topology)) == 2


def test_keys_without_names_are_called_key() -> None:
    results = untyped().key_by(lambda o: o["x"]).window(Tumbling("1m")).aggregate(n=Count())
    assert results.key_names == ("key",)
    with pytest.raises(TopologyError, match="results have a column 'key' of their own"):
        untyped().key_by(lambda o: o["x"]).window(Tumbling("1m")).aggregate(key=Count())


def test_a_keys_field_must_exist_and_have_exact_bytes() -> None:
    with pytest.raises(TopologyError, match=r"unknown field 'usr'.*did you mean 'user'"):
        orders().key_by("usr")
    with pytest.raises(TopologyError, match="field 'amount' is Float64"):
        orders().key_by("user", "amount")
    with pytest.raises(TopologyError, match="the key expression is Float64"):
        orders().key_by(pl.col("amount") * 2)
    with pytest.raises(TopologyError, match="names a field twice"):
        orders().key_by("user", "user")
    with pytest.raises(TopologyError, match="one function that returns a tuple"):
        orders().key_by(lambda o: o.user, "count")


def test_a_stream_without_a_key_has_no_keyed_verbs() -> None:
    for verb in ("window", "aggregate", "reduce", "process"):
        assert not hasattr(Stream, verb)


# --- keyed verbs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [Tumbling("1m"), Hopping("1m", "10s"), Session("30s")])
@pytest.mark.parametrize("aggregate", [Sum, Mean])
def test_only_numbers_are_summed(window: Any, aggregate: Any) -> None:
    windowed = orders().key_by("user").window(window)
    with pytest.raises(TopologyError, match=r"step 'window-1': x=.* needs a number.*String"):
        windowed.aggregate(x=aggregate("coupon"))
    windowed.aggregate(x=Max("coupon"))


def test_an_aggregate_of_an_unknown_field_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"step 'aggregate-1'.*unknown field 'amuont'"):
        orders().key_by("user").aggregate(x=Sum("amuont"))


@pytest.mark.parametrize("name", ["user", "window_start", "window_end", "__time"])
def test_an_aggregate_may_not_take_the_name_of_another_column(name: str) -> None:
    with pytest.raises(TopologyError, match="call the aggregate something else"):
        orders().key_by("user").window(Tumbling("1m")).aggregate(**{name: Count()})


def test_an_aggregate_of_an_expression_must_not_aggregate_itself() -> None:
    with pytest.raises(TopologyError, match="mixes records"):
        orders().key_by("user").aggregate(x=Sum(pl.col("amount").sum()))


def test_reduce_of_values_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(TopologyError, match="cannot be kept"):
        orders().key_by("user").reduce(lambda a, b: a, type=Topology)


class Alert(ProcessFunction[Order, Total]):
    def on_record(self, value: Order, ctx: ProcessContext[Total]) -> None:
        pass


def test_process_knows_what_it_emits_and_keeps_the_key() -> None:
    alerts = orders().key_by("user").process(Alert())
    assert alerts.schema == Schema.of(Total)
    assert alerts.key_names == ("user",)
    assert node(alerts).keyed


def test_own_aggregates_make_the_schema_unknown() -> None:
    class Own(Aggregate[Order, int, int]):
        def initial(self) -> int:
            return 0

        def add(self, accumulator: int, row: Order) -> int:
            return accumulator + row.count

        def result(self, accumulator: int) -> int:
            return accumulator

    assert orders().key_by("user").aggregate(x=Own(), n=Count()).schema is None


# --- union, branch, async, sink ------------------------------------------------------------------


def test_a_union_of_streams_with_one_key_has_that_key() -> None:
    topology = new_topology()
    a = orders(topology, "a").key_by("user")
    b = orders(topology, "b").key_by("user")
    merged = a.union(b)
    assert isinstance(merged, KeyedStream)
    assert merged.key_by("user") is merged
    assert merged.schema == ORDER
    assert node(merged).inputs == (a.edge, b.edge)


def test_a_union_with_a_stream_without_key_has_none() -> None:
    topology = new_topology()
    keyed = orders(topology, "a").key_by("user")
    assert not isinstance(keyed.union(orders(topology, "b")), KeyedStream)


def test_a_union_of_different_key_fields_is_keyed_but_has_no_field() -> None:
    topology = new_topology()
    merged = orders(topology, "a").key_by("user").union(orders(topology, "b").key_by("coupon"))
    assert isinstance(merged, KeyedStream)
    assert merged.key_names == ("key",)
    merged.key_by("user")
    assert len(repartitions(topology)) == 3


def test_a_union_of_keys_of_different_form_is_refused() -> None:
    topology = new_topology()
    one = orders(topology, "a").key_by("user")
    with pytest.raises(TopologyError, match="keys of different form"):
        one.union(orders(topology, "b").key_by("user", "count"))


def test_a_union_with_itself_is_refused() -> None:
    stream = orders()
    with pytest.raises(TopologyError, match="records would be doubled"):
        stream.union(stream)


def test_streams_of_two_topologies_do_not_mix() -> None:
    with pytest.raises(TopologyError, match="belongs to another topology"):
        orders(new_topology("a")).union(orders(new_topology("b")))


def test_branches_are_the_ports_of_one_step_and_the_last_is_the_rest() -> None:
    large, small, rest = orders().branch(pl.col("amount") > 100, lambda o: o.amount > 0)
    assert [large.edge, small.edge, rest.edge] == [Edge("branch-1", port) for port in range(3)]
    with pytest.raises(TopologyError, match="not Boolean"):
        orders().branch(pl.col("amount") > 0, pl.col("amount"))


def test_map_async_takes_the_schema_of_what_is_awaited() -> None:
    stream = orders().map_async(wait, in_flight=3, retry=Retry(attempts=2), timeout="1s")
    assert stream.schema == ORDER


def test_a_sink_says_how_and_where_to_write() -> None:
    topology = new_topology()
    topic = Topic[Any]("out", partitions=3, retention="1d")
    orders(topology).sink(topic, name="out", on_error="dead_letter")
    found = topology.graph.nodes["out"]
    assert isinstance(found, SinkNode)
    assert (found.topic, found.partitions, found.retention_ms) == ("out", 3, 86_400_000)
    assert found.on_error == "dead_letter"
