"""What every command of ``riverrun`` is made of: its parser, its texts, and how it fails."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """The command line asks for what makes no sense; ends with exit code 2."""


class CommandFailedError(Exception):
    """The command could not do what it was asked to; ends with exit code 1."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of ``riverrun``.

    Attributes:
        name: What is typed.
        summary: One line for the list of commands.
        description: What it does, for its ``--help``.
        examples: Command lines, for its ``--help``.
        configure: Adds its options to a parser.
        run: Does it and returns the exit code.
    """

    name: str
    summary: str
    description: str
    examples: tuple[str, ...]
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors look like all other errors of ``riverrun``."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to read more, and exit with code 2."""
        print_error(f"{message}; see `{self.prog} --help`")
        self.exit(EXIT_USAGE)


def print_error(message: str) -> None:
    """Print an error the way all commands do."""
    _print_to_stderr(f"riverrun: error: {message}")


def print_note(message: str) -> None:
    """Print what a person should know, where it does not mix with the output."""
    _print_to_stderr(f"riverrun: {message}")


def _print_to_stderr(line: str) -> None:
    # The parent that passed our lines on may be dead; we still have work to commit.
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)
