"""``riverrun worker --processes N``: a parent that keeps N worker processes running.

A child that dies of a signal is started again for as long as it takes: that is what workers are
built for. One that ends with an error is tried a few times; then the others are stopped and the
parent ends with an error as well. Should the parent itself be killed, the children see their
stdin end, commit and leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .command import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, print_error, print_note

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import TextIO

ERRORS_MAX = 3
"""How often in a row a child may end with an error before that counts as permanent."""

LINE_MAX_BYTES = 1 << 20
"""Longest line that a child may print; a longer one is left out."""

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
STEADY_AFTER_S = 30.0
"""A child that ran for so long is counted as started: back-off and errors begin anew."""


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """How to start one child.

    Attributes:
        number: Its number, from 0.
        argv: Its command line.
    """

    number: int
    argv: tuple[str, ...]


def child_commands(arguments: argparse.Namespace, job: str) -> list[ChildCommand]:
    """Return the command line of each child: the parent's own, with what differs at the end."""
    from .runtime import default_state_directory

    state = arguments.state_dir or default_state_directory(arguments.broker, job)
    commands: list[ChildCommand] = []
    for number in range(arguments.processes):
        # -P: the child finds the same modules as the parent did, not what lies around.
        argv = [sys.executable, "-P", "-m", "riverrun", *arguments.argv]
        argv += ["--processes", "1", "--supervised", "--state-dir", str(state / str(number))]
        if arguments.http is not None:
            host, port = arguments.http
            own_port = port + number if port else 0
            argv += ["--http", f"[{host}]:{own_port}" if ":" in host else f"{host}:{own_port}"]
        commands.append(ChildCommand(number, tuple(argv)))
    return commands


class Supervisor:
    """Starts the children, passes signals on and restarts what crashed.

    Args:
        commands: How to start each child.
        first_backoff_s: Pause before the first restart; doubles up to ``MAX_BACKOFF_S``.
    """

    def __init__(
        self, commands: Sequence[ChildCommand], first_backoff_s: float = FIRST_BACKOFF_S
    ) -> None:
        self._commands = commands
        self._first_backoff_s = first_backoff_s
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._failed = False

    def run(self) -> int:
        """Keep the children running until a signal comes, or one fails for good.

        Returns:
            0 after a signal and a clean end of all children, otherwise 1.
        """
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        await asyncio.gather(*(self._keep_running(command) for command in self._commands))
        return EXIT_FAILED if self._failed else EXIT_OK

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set() and number == signal.SIGINT:
            for child in self._children.values():
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
            os._exit(EXIT_INTERRUPTED)
        if not self._stopping.is_set():
            print_note(f"{number.name}: stopping {len(self._children)} workers")
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    async def _keep_running(self, command: ChildCommand) -> None:
        backoff_s, errors = self._first_backoff_s, 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            code = await self._run_child(command)
            if self._stopping.is_set():
                if code > EXIT_OK:
                    print_error(f"worker {command.number} ended with exit code {code}")
                    self._failed = True
                return
            if time.monotonic() - began_s > STEADY_AFTER_S:
                backoff_s, errors = self._first_backoff_s, 0
            errors += code > EXIT_OK
            how = f"exit code {code}" if code >= EXIT_OK else f"signal {-code}"
            if code == EXIT_USAGE or errors >= ERRORS_MAX:
                print_error(
                    f"worker {command.number} ended with {how}"
                    f"{'' if code == EXIT_USAGE else f', {errors} times in a row'}; "
                    "see its message above; stopping all"
                )
                self._failed = True
                self._stop()
                return
            print_note(f"worker {command.number} ended by {how}; again in {backoff_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    async def _run_child(self, command: ChildCommand) -> int:
        child = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_MAX_BYTES,
            # A group of its own: Ctrl-C in the terminal reaches the children through us, once.
            start_new_session=True,
        )
        self._children[command.number] = child
        if self._stopping.is_set():
            child.send_signal(signal.SIGTERM)
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            prefix = f"[{command.number}] "
            await asyncio.gather(
                _pass_on(child.stdout, prefix, sys.stdout),
                _pass_on(child.stderr, prefix, sys.stderr),
            )
            return await child.wait()
        finally:
            self._children.pop(command.number, None)


async def _pass_on(output: asyncio.StreamReader, prefix: str, to: TextIO) -> None:
    """Print what a child prints, line by line, until it closes its end."""
    while True:
        try:
            line = await output.readline()
        except ValueError:
            # Too long; the reader has dropped it.
            continue
        if not line:
            return
        to.write(f"{prefix}{line.decode(errors='replace')}")
        to.flush()
