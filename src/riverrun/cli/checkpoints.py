"""``riverrun checkpoints``: what snapshots of a job are in storage, and whether they are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import Command

if TYPE_CHECKING:
    import argparse


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("list", "show", "verify"),
        help="list the snapshots; show the newest of each task in full; verify reads every file of "
        "the newest of each task and compares it with its SHA-256",
    )
    parser.add_argument(
        "job", metavar="JOB|MODULE[:NAME]", help="name of a job, or the module with its topology"
    )
    parser.add_argument(
        "--snapshots",
        action="append",
        required=True,
        metavar="URL",
        help="where snapshots are: s3://BUCKET/PATH, gs://, az:// or file:///PATH; several times "
        "for replicas, which are all looked at",
    )
    parser.add_argument("--task", metavar="ID", help="only this task, as in 1-0")
    parser.add_argument(
        "--all", action="store_true", help="show or verify all snapshots, not the newest only"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from .checkpoint_reports import run_action

    return asyncio.run(run_action(arguments))


COMMAND = Command(
    name="checkpoints",
    summary="list, show or verify the snapshots of a job in storage",
    description="Look at the snapshots that workers with --snapshots have put into storage. A\n"
    "snapshot counts for a restart only once the changelog names it, so the newest one may\n"
    "not be in use yet. Nothing is changed. verify ends with exit code 1 if a file is\n"
    "missing or damaged.",
    examples=(
        "riverrun checkpoints list revenue --snapshots s3://bucket/shop",
        "riverrun checkpoints show examples.revenue:topology --snapshots file:///var/snapshots",
        "riverrun checkpoints verify revenue --snapshots s3://bucket/shop --task 1-0 --all",
    ),
    configure=_configure,
    run=_run,
)
