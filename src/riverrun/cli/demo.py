"""``riverrun demo``: the main job, live in the terminal, with nothing to install or start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import positive_int
from .command import Command

if TYPE_CHECKING:
    import argparse

DEFAULT_RATE = 3_000
DEFAULT_SPEED = 60


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--duration",
        type=positive_int,
        metavar="SECONDS",
        help="end after so many seconds (default: at Ctrl-C)",
    )
    parser.add_argument(
        "--rate",
        type=positive_int,
        default=DEFAULT_RATE,
        metavar="N",
        help=f"orders per second (default: {DEFAULT_RATE})",
    )
    parser.add_argument(
        "--speed",
        type=positive_int,
        default=DEFAULT_SPEED,
        metavar="N",
        help="how many times as fast as the clock event time runs, so that one-minute windows "
        f"close every 60/N seconds (default: {DEFAULT_SPEED})",
    )


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from .demo_session import DemoOptions, DemoSession
    from .logs import configure_logging

    configure_logging("warning", "text")
    options = DemoOptions(arguments.rate, arguments.speed, arguments.duration)
    return asyncio.run(DemoSession(options).run())


COMMAND = Command(
    name="demo",
    summary="run the main job in this terminal, no server needed",
    description="Run a whole job in one process, on the embedded log in a temporary directory: a\n"
    "generator writes orders, a worker computes the revenue of each user and minute of\n"
    "event time, exactly once, and what it wrote is read back and drawn. When output is\n"
    "no terminal, each window is one line. At the end every result is compared with a\n"
    "recomputation from the orders; the exit code is 1 if one differs.",
    examples=(
        "riverrun demo",
        "riverrun demo --duration 20",
        "riverrun demo --rate 20000 --duration 20 | tail -3",
    ),
    configure=_configure,
    run=_run,
)
