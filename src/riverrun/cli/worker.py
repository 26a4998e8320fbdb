"""``riverrun worker``: workers for production."""

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
    size_bytes,
)
from .command import Command, print_note

if TYPE_CHECKING:
    import argparse


def _configure(parser: argparse.ArgumentParser) -> None:
    add_module_argument(parser)
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where state is kept; one worker at a time, on a disk that outlives it "
        "(default: .riverrun/BROKER/state/JOB)",
    )
    parser.add_argument(
        "--snapshots",
        action="append",
        default=[],
        metavar="URL",
        help="where snapshots go: s3://BUCKET/PATH, gs://, az:// or file:///PATH; given several "
        "times, each holds all of them (default: none, state is rebuilt from the changelog)",
    )
    parser.add_argument(
        "--processes",
        type=positive_int,
        default=1,
        metavar="N",
        help="run N worker processes, with state in DIR/0 to DIR/N-1 (default: 1)",
    )
    parser.add_argument(
        "--http",
        type=http_address,
        metavar="HOST:PORT",
        help="serve /metrics, /healthz and /readyz there; with --processes, process n has "
        "PORT+n, or a free port each if PORT is 0 (default: off)",
    )
    add_plane_option(parser)
    _configure_settings(parser)
    add_broker_options(parser)
    add_logging_options(parser)
    import argparse

    # Given by the parent of --processes to each child.
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def _configure_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it works")
    group.add_argument(
        "--guarantee",
        choices=("exactly_once", "at_least_once"),
        default="exactly_once",
        help="default: exactly_once",
    )
    for name, default, text in (
        ("commit-interval", "100ms", "time between two commits of a task"),
        ("snapshot-interval", "60s", "time between two snapshots of a task"),
        ("session-timeout", "10s", "how long the group waits for a silent worker"),
    ):
        group.add_argument(
            f"--{name}",
            type=positive_duration_ms,
            default=default,
            metavar="DURATION",
            help=f"{text} (default: {default})",
        )
    group.add_argument(
        "--state-memory",
        type=size_bytes,
        default="768MiB",
        metavar="SIZE",
        help="what a process may take to have state in memory that its disk has too: a third each "
        "for rows of windows, RocksDB's block cache and its write buffers (default: 768MiB)",
    )
    group.add_argument(
        "--start",
        choices=("earliest", "latest"),
        default="earliest",
        help="where a job that never ran begins to read (default: earliest)",
    )
    group.add_argument(
        "--allow-fresh-start",
        action="store_true",
        help="start from nothing where committed work is lost; without it that is an error",
    )
    group.add_argument(
        "--allow-lost-records",
        action="store_true",
        help="go on where records were deleted before they were read; else that is an error",
    )
    group.add_argument(
        "--allow-state-drop",
        action="store_true",
        help="drop the state of steps that the topology no longer has; else that is an error",
    )


def _run(arguments: argparse.Namespace) -> int:
    from riverrun.engine.config import StateMemory, TaskSettings, WorkerSettings
    from riverrun.engine.planes import select_plane

    from .logs import configure_logging
    from .modules import load_plan

    configure_logging(arguments.log_level, arguments.log_format)
    # Before any process is started: a mistake is told once.
    plan = load_plan(arguments.module, current_directory="last")
    memory = StateMemory(arguments.state_memory)
    plane = select_plane(arguments.plane, memory.each_bytes)
    if arguments.processes > 1:
        from .supervisor import Supervisor, child_commands

        return Supervisor(child_commands(arguments, plan.job)).run()

    if not arguments.snapshots and any(sub.keyed for sub in plan.subtopologies):
        print_note(
            "no --snapshots: the changelog grows for ever, and a worker with an empty disk reads "
            "all of it before it starts"
        )
    from .runtime import WorkerOptions, run_worker

    task = TaskSettings(
        guarantee=arguments.guarantee,
        commit_interval_ms=arguments.commit_interval,
        snapshot_interval_ms=arguments.snapshot_interval,
        start=arguments.start,
        allow_fresh_start=arguments.allow_fresh_start,
        allow_lost_records=arguments.allow_lost_records,
        allow_state_drop=arguments.allow_state_drop,
    )
    return run_worker(
        plan,
        WorkerOptions(
            arguments=arguments,
            settings=WorkerSettings(task=task, session_timeout_ms=arguments.session_timeout),
            plane=plane,
            state_dir=arguments.state_dir,
            state_memory=memory,
            snapshots=arguments.snapshots,
            http=arguments.http,
            stop_at_stdin_end=arguments.supervised,
        ),
    )


COMMAND = Command(
    name="worker",
    summary="run a topology in production",
    description="Run a worker of a job. All workers of a job share its tasks: start as many as\n"
    "you like, on as many machines as you like, and stop any of them at any time.\n"
    "SIGTERM and Ctrl-C process and commit what was read, then leave; kill -9 loses\n"
    "nothing either. MODULE is looked for among the installed packages first, then in\n"
    "the current directory.",
    examples=(
        "riverrun worker shop.revenue --broker kafka://kafka:9092 --state-dir /var/lib/shop \\",
        "    --snapshots s3://bucket/shop --http 0.0.0.0:9100",
        "riverrun worker shop.revenue --broker kafka://kafka:9092 --processes 4",
        "RIVERRUN_KAFKA_PASSWORD=... riverrun worker shop.revenue --broker kafka://k:9093 \\",
        "    --kafka-security-protocol SASL_SSL --kafka-username shop",
    ),
    configure=_configure,
    run=_run,
)
