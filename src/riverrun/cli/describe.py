"""``riverrun describe``: what a topology becomes when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import add_module_argument
from .command import EXIT_OK, Command

if TYPE_CHECKING:
    import argparse


def _configure(parser: argparse.ArgumentParser) -> None:
    add_module_argument(parser)
    parser.add_argument(
        "--format",
        choices=("text", "mermaid", "json"),
        default="text",
        help="text for reading (default), a Mermaid flowchart, or JSON",
    )


def _run(arguments: argparse.Namespace) -> int:
    from .modules import load_plan
    from .plan_formats import FORMATS

    plan = load_plan(arguments.module, current_directory="first")
    print(FORMATS[arguments.format](plan))
    return EXIT_OK


COMMAND = Command(
    name="describe",
    summary="show the plan of a topology: subtopologies, steps, state and topics",
    description="Show what a topology becomes when it runs: the parts that run as tasks, their\n"
    "steps and state, and all topics, those included that riverrun makes for itself.\n"
    "No broker is needed. MODULE is looked for in the current directory first.",
    examples=(
        "riverrun describe examples.revenue",
        "riverrun describe my_topology.py --format mermaid > plan.mmd",
        "riverrun describe examples.revenue --format json | jq '.topics[].name'",
    ),
    configure=_configure,
    run=_run,
)
