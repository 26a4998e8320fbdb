"""The command ``riverrun``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import TYPE_CHECKING, cast

from . import checkpoints, consume, demo, describe, doctor, produce, run, worker
from .command import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    Command,
    CommandFailedError,
    Parser,
    UsageError,
    print_error,
    print_note,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    demo.COMMAND,
    run.COMMAND,
    worker.COMMAND,
    describe.COMMAND,
    produce.COMMAND,
    consume.COMMAND,
    checkpoints.COMMAND,
    doctor.COMMAND,
)
"""All commands, in the order of ``riverrun --help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: it failed. 2: the command line is wrong. 130: cut short by Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    command: Command = arguments.riverrun_command
    # What started it, for commands that start themselves again.
    arguments.argv = list(sys.argv[1:] if argv is None else argv)
    stdout: object = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        # A terminal that cannot show a character shows another one; that is no error.
        cast("io.TextIOWrapper", stdout).reconfigure(errors="replace")
    try:
        return command.run(arguments)
    except KeyboardInterrupt:
        print_note("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has had enough, as in `riverrun consume orders | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except UsageError as error:
        print_error(str(error))
        return EXIT_USAGE
    except (CommandFailedError, OSError) as error:
        print_error(str(error))
        return EXIT_FAILED
    except Exception as error:
        return _report(error)


def _report(error: Exception) -> int:
    """Print an error: without a traceback if it was raised on purpose."""
    from riverrun.engine.errors import ConfigError, RiverrunError
    from riverrun.state import StateError

    if isinstance(error, ConfigError):
        print_error(str(error))
        return EXIT_USAGE
    if isinstance(error, RiverrunError | StateError):
        print_error(str(error))
        return EXIT_FAILED
    import traceback

    traceback.print_exception(error)
    print_error(f"this should not happen, please report it: {type(error).__name__}: {error}")
    return EXIT_FAILED


def _parser() -> Parser:
    parser = Parser(
        prog="riverrun",
        description="Stream processing in Python: Kafka to Kafka, exactly once.",
        epilog="`riverrun COMMAND --help` explains a command and shows examples.\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong command line, 130 cut short by Ctrl-C.\n"
        "RIVERRUN_BROKER=kafka://host:9092 stands for --broker in all commands.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        examples = "\n".join(f"  {line}" for line in command.examples)
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(sub)
        sub.set_defaults(riverrun_command=command)
    return parser


class _Version(argparse.Action):
    """Prints the version; asked for seldom, so it is looked up only then."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"riverrun {version('riverrun')}")
        parser.exit(EXIT_OK)
