"""``riverrun run``: one worker for development."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import (
    add_broker_options,
    add_logging_options,
    add_module_argument,
    add_plane_option,
    http_address,
    positive_duration_ms,
    positive_int,
)
from .command import Command

if TYPE_CHECKING:
    import argparse

DEFAULT_IDLE_AFTER_MS = 5_000
DEFAULT_PARTITIONS = 4


def _configure(parser: argparse.ArgumentParser) -> None:
    add_module_argument(parser)
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where state is kept (default: beside the embedded log, .riverrun/state/JOB)",
    )
    parser.add_argument(
        "--guarantee",
        choices=("exactly_once", "at_least_once"),
        default="exactly_once",
        help="default: exactly_once",
    )
    parser.add_argument(
        "--idle-after",
        type=positive_duration_ms,
        default=DEFAULT_IDLE_AFTER_MS,
        metavar="DURATION",
        help="sources that do not say: after so long without records, windows are closed by the "
        "clock (default: 5s)",
    )
    parser.add_argument(
        "--partitions",
        type=positive_int,
        default=DEFAULT_PARTITIONS,
        metavar="N",
        help="partitions of source topics that are missing and do not say (default: 4)",
    )
    parser.add_argument(
        "--http", type=http_address, metavar="HOST:PORT", help="serve metrics and health there"
    )
    add_plane_option(parser)
    add_broker_options(parser)
    add_logging_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    from riverrun.engine.config import StateMemory, TaskSettings, WorkerSettings
    from riverrun.engine.planes import select_plane

    from .logs import configure_logging
    from .modules import load_plan
    from .runtime import WorkerOptions, run_worker

    configure_logging(arguments.log_level, arguments.log_format)
    plan = load_plan(arguments.module, current_directory="first")
    task = TaskSettings(
        guarantee=arguments.guarantee, start="earliest", idle_after_ms=arguments.idle_after
    )
    return run_worker(
        plan,
        WorkerOptions(
            arguments=arguments,
            settings=WorkerSettings(task=task),
            plane=select_plane(arguments.plane),
            state_dir=arguments.state_dir,
            state_memory=StateMemory(),
            snapshots=(),
            http=arguments.http,
            create_sources=arguments.partitions,
        ),
    )


COMMAND = Command(
    name="run",
    summary="run a topology while you write it, on the embedded log",
    description="Run one worker for development: it reads from the earliest record, creates\n"
    "topics that are missing and closes the windows of a stream that went quiet.\n"
    "MODULE is looked for in the current directory first. Ctrl-C commits and ends.\n"
    "In production use `riverrun worker`.",
    examples=(
        "riverrun run examples.wordcount",
        "riverrun run my_topology.py --http 9100",
        "riverrun run shop.orders:late --broker kafka://localhost:9092",
    ),
    configure=_configure,
    run=_run,
)
