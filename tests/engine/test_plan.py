"""Plans: where a graph is cut, and how large everything is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.engine.errors import StateMismatchError, TopicMissingError, TopologyError
from riverrun.engine.graph import Edge, Graph, OperatorNode, RepartitionNode, SourceNode, inputs_of
from riverrun.engine.log import TopicPartition
from riverrun.engine.plan import TaskId, make_plan, resolve
from tests.simulation.topology import Rekey, operator, sink, source


def chain_of(*parts: str) -> Graph:
    """A graph of sources ``s…``, operators ``o…``, repartitions ``r…``, each behind the last."""
    graph = Graph("job")
    before = ""
    for name in parts:
        if name[0] == "s":
            graph.add(source(name))
        elif name[0] == "r":
            graph.add(RepartitionNode(name, Edge(before), None))
        else:
            graph.add(operator(name, Rekey(), before))
        before = name
    return graph


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph("job")
    for number in range(draw(st.integers(1, 3))):
        graph.add(source(f"s{number}"))
    for number in range(draw(st.integers(0, 10))):
        names = st.sampled_from(list(graph.nodes))
        match draw(st.sampled_from(["operator", "union", "repartition", "sink"])):
            case "operator":
                graph.add(operator(f"o{number}", Rekey(), draw(names)))
            case "union":
                inputs = draw(st.lists(names, min_size=1, max_size=3, unique=True))
                graph.add(operator(f"u{number}", Rekey(), *inputs))
            case "repartition":
                graph.add(RepartitionNode(f"r{number}", Edge(draw(names)), None, 2))
            case _:
                graph.nodes[f"k{number}"] = sink(f"k{number}", draw(names))
    # Nothing reads from a sink.
    sinks = {name for name in graph.nodes if name[0] == "k"}
    broken = any(edge.step in sinks for n in graph.nodes.values() for edge in inputs_of(n))
    return Graph("job") if broken else graph


@given(graphs())
def test_every_step_is_in_one_subtopology_and_cut_at_its_repartitions(graph: Graph) -> None:
    if not graph.nodes:
        return
    plan = make_plan(graph)

    written = [step.name for sub in plan.subtopologies for step in sub.steps]
    read = [node.name for sub in plan.subtopologies for node in sub.inputs]
    sources = [n.name for n in graph.nodes.values() if isinstance(n, SourceNode)]
    repartitions = [n.name for n in graph.nodes.values() if isinstance(n, RepartitionNode)]
    assert sorted(written) == sorted(graph.nodes.keys() - sources)
    assert sorted(read) == sorted([*sources, *repartitions])
    for sub in plan.subtopologies:
        inputs = {node.name for node in sub.inputs}
        steps = {step.name for step in sub.steps}
        for step in sub.steps:
            for edge in inputs_of(step):
                # Whatever is read is either an input of the same subtopology or a step in it.
                is_repartition = isinstance(graph.nodes[edge.step], RepartitionNode)
                assert edge.step in inputs if is_repartition else edge.step in inputs | steps


@given(graphs())
def test_the_same_graph_gives_the_same_numbers(graph: Graph) -> None:
    if graph.nodes:
        again = Graph("job", dict(graph.nodes))

        assert make_plan(again).subtopologies == make_plan(graph).subtopologies


def test_a_graph_is_cut_where_records_change_tasks() -> None:
    plan = make_plan(chain_of("s", "o1", "r1", "o2", "r2", "o3"))

    assert [[step.name for step in sub.steps] for sub in plan.subtopologies] == [
        ["o1", "r1"],
        ["o2", "r2"],
        ["o3"],
    ]
    assert [[node.name for node in sub.inputs] for sub in plan.subtopologies] == [
        ["s"],
        ["r1"],
        ["r2"],
    ]


def test_streams_that_meet_are_one_subtopology() -> None:
    graph = Graph("job")
    graph.add(source("a"))
    graph.add(source("b"))
    graph.add(operator("both", Rekey(), "a", "b"))

    assert len(make_plan(graph).subtopologies) == 1


def test_streams_that_never_meet_are_two() -> None:
    graph = Graph("job")
    graph.add(source("a"))
    graph.add(source("b"))
    graph.add(operator("x", Rekey(), "a"))
    graph.add(operator("y", Rekey(), "b"))

    assert [sub.id for sub in make_plan(graph).subtopologies] == ["0", "1"]


def test_without_a_source_there_is_nothing_to_run() -> None:
    with pytest.raises(TopologyError, match="has no source"):
        make_plan(Graph("job"))


def test_a_topic_is_read_once_in_a_subtopology() -> None:
    graph = Graph("job")
    graph.add(source("a"))
    graph.add(replace(source("a"), name="again"))
    graph.add(operator("both", Rekey(), "a", "again"))

    with pytest.raises(TopologyError, match="both read topic 'a'"):
        make_plan(graph)


# --- sizes -----------------------------------------------------------------------------------


def test_sizes_follow_from_the_sources_down() -> None:
    resolved = resolve(make_plan(chain_of("s", "o1", "r1", "o2")), {"s": 3})

    assert resolved.tasks == {"0": 3, "1": 3}
    assert resolved.task_ids() == [TaskId(sub, n) for sub in ("0", "1") for n in range(3)]
    assert resolved.upstream_tasks("r1") == 3
    topic = resolved.plan.topic_of(resolved.plan.subtopologies[1].inputs[0])
    assert resolved.inputs_of(TaskId("1", 2)) == [TopicPartition(topic, 2)]


def test_a_source_that_is_not_there_and_not_to_be_made_is_told() -> None:
    graph = Graph("job")
    graph.add(replace(source("s"), partitions=None))

    with pytest.raises(TopicMissingError, match="'s'"):
        resolve(make_plan(graph), {})


def test_inputs_that_meet_in_keyed_steps_need_the_same_size() -> None:
    graph = Graph("job")
    graph.add(source("a"))
    graph.add(source("b"))
    graph.add(operator("both", Rekey(), "a", "b", keyed=True))

    with pytest.raises(TopologyError, match="same number of partitions"):
        resolve(make_plan(graph), {"a": 2, "b": 3})


def test_inputs_that_meet_elsewhere_may_differ() -> None:
    graph = Graph("job")
    graph.add(source("a"))
    graph.add(source("b"))
    graph.add(operator("both", Rekey(), "a", "b"))

    resolved = resolve(make_plan(graph), {"a": 1, "b": 3})

    assert resolved.tasks == {"0": 3}
    assert resolved.inputs_of(TaskId("0", 2)) == [TopicPartition("b", 2)]


def test_a_repartition_of_another_size_than_asked_for_is_refused() -> None:
    graph = Graph("job")
    graph.add(source("s"))
    graph.add(RepartitionNode("r", Edge("s"), None, 4))
    plan = make_plan(graph)
    topic = plan.topic_of(graph.nodes["r"])  # type: ignore[arg-type]

    with pytest.raises(StateMismatchError, match="keys would move"):
        resolve(plan, {"s": 2, topic: 3})


def test_a_loop_needs_a_size_of_its_own() -> None:
    graph = Graph("job")
    graph.add(source("s"))
    graph.nodes["o"] = OperatorNode("o", Rekey(), (Edge("r"),), None, "fail", "map")
    graph.nodes["r"] = RepartitionNode("r", Edge("o"), None)

    with pytest.raises(TopologyError, match="depends on itself"):
        resolve(make_plan(graph), {"s": 2})
