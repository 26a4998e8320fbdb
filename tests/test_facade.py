"""The import package: what ``import riverrun`` offers, and how little it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import riverrun as rr
from riverrun import operators
from riverrun.connectors.codecs import Json
from riverrun.engine import errors

FACADE = Path(rr.__file__)


def names_for_type_checkers() -> dict[str, str]:
    """``{name: home}`` of the imports that only type checkers see."""
    [block] = [
        node
        for node in ast.parse(FACADE.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        alias.asname: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


def test_type_checkers_and_programs_see_the_same_names() -> None:
    offered = {name: home for home, names in rr._HOMES.items() for name in names}

    assert offered == names_for_type_checkers()
    assert [name for name in offered if not hasattr(rr, name)] == []
    assert set(offered) <= set(dir(rr))


def test_everything_the_verbs_take_is_offered() -> None:
    public = {name for name, value in vars(operators).items() if isinstance(value, type)}

    assert public - set(dir(rr)) == {"TypedCodec"}


def test_every_error_is_offered() -> None:
    names = {name for name, value in vars(errors).items() if isinstance(value, type)}

    assert names - set(dir(rr)) == set()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Topologie"):
        rr.Topologie  # type: ignore[attr-defined]  # noqa: B018


def test_topics_are_json_unless_they_say_otherwise() -> None:
    topology = rr.Topology("copy")
    topology.source(rr.Topic("in")).sink(rr.Topic("out", value=rr.Text()))

    source, sink = topology.graph.nodes.values()
    assert source.codec == Json()  # type: ignore[union-attr]
    assert sink.codec == rr.Text()  # type: ignore[union-attr]


def test_importing_riverrun_loads_nothing_heavy() -> None:
    show = "import sys, riverrun, riverrun.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, timeout=30, check=True
    ).stdout.split()

    heavy = {"polars", "numpy", "msgspec", "aiokafka", "rocksdict", "obstore", "asyncio"}
    assert heavy.intersection(loaded) == set()
