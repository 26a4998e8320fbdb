"""``riverrun doctor``: what there is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import add_broker_options
from .command import EXIT_FAILED, EXIT_OK, Command

if TYPE_CHECKING:
    import argparse

PACKAGES = (
    "polars",
    "numpy",
    "msgspec",
    "orjson",
    "aiokafka",
    "crc32c",
    "lz4",
    "rocksdict",
    "obstore",
    "prometheus-client",
    "uvloop",
)
"""What riverrun stands on."""

OPEN_FILES_MIN = 1_024
"""RocksDB keeps some files open per task."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect",
        action="store_true",
        help="also try to reach the broker, without reading or writing",
    )
    add_broker_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    findings = [*_machine(), *_plane(), *_packages(), *_codecs()]
    if arguments.connect:
        findings.append(_broker(arguments))
    width = max(len(name) for name, _, _ in findings)
    for name, found, problem in findings:
        print(f"{'!' if problem else ' '} {name:<{width}}  {found}")
        if problem:
            print(f"  {'':<{width}}  -> {problem}")
    problems = sum(problem is not None for _, _, problem in findings)
    print(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    return EXIT_FAILED if problems else EXIT_OK


Finding = tuple[str, str, str | None]
"""Name, what was found, and what is wrong with it, None if nothing."""


def _machine() -> list[Finding]:
    import os
    import platform
    import resource
    import sqlite3
    from importlib.metadata import version

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = None
    if files != resource.RLIM_INFINITY and files < OPEN_FILES_MIN:
        few = f"below {OPEN_FILES_MIN}: raise it with `ulimit -n` or in the service's unit"
    return [
        ("riverrun", version("riverrun"), None),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})", None),
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", None),
        ("sqlite", sqlite3.sqlite_version, None),
        ("open files", "unlimited" if files == resource.RLIM_INFINITY else str(files), few),
    ]


def _plane() -> list[Finding]:
    """Tell which plane runs; that there is no kernel is a problem only where one is asked for."""
    import os

    from riverrun.engine.errors import ConfigError
    from riverrun.engine.planes import (
        HOW_TO_GET_THE_KERNEL,
        PLANE_VARIABLE,
        select_plane,
        why_reference,
    )

    missing = why_reference()
    try:
        plane, problem = select_plane().name, None
    except ConfigError as error:
        plane, problem = "none", str(error)
    if os.environ.get(PLANE_VARIABLE) and problem is None:
        plane += f", as {PLANE_VARIABLE} says"
    if missing is None:
        kernel = "built for this version"
    else:
        kernel = f"{missing}; to get it, {HOW_TO_GET_THE_KERNEL}"
    return [("data plane", plane, problem), ("kernel", kernel, None)]


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    findings: list[Finding] = []
    for name in PACKAGES:
        try:
            findings.append((name, version(name), None))
        except PackageNotFoundError:
            findings.append((name, "missing", "install riverrun again: pip install riverrun"))
    return findings


def _codecs() -> list[Finding]:
    """Tell which compressed topics can be read; a missing codec is no problem until one is."""
    from importlib.util import find_spec

    more = find_spec("cramjam") is not None
    rest = "gzip, lz4, snappy, zstd" if more else "gzip, lz4 (snappy, zstd: riverrun[codecs])"
    return [("codecs", rest, None)]


def _broker(arguments: argparse.Namespace) -> Finding:
    import asyncio

    from riverrun.engine.errors import RiverrunError

    from .brokers import opened_log
    from .command import UsageError

    async def connect() -> None:
        async with opened_log(arguments):
            pass

    try:
        asyncio.run(connect())
    except UsageError:
        raise
    except (RiverrunError, OSError) as error:
        return ("broker", arguments.broker, str(error))
    return ("broker", f"{arguments.broker} answers", None)


COMMAND = Command(
    name="doctor",
    summary="show versions, data plane and codecs, and what is wrong with them",
    description="Show what riverrun finds on this machine. Put its output into a bug report.\n"
    "The exit code is 1 if something is wrong.",
    examples=("riverrun doctor", "riverrun doctor --connect --broker kafka://localhost:9092"),
    configure=_configure,
    run=_run,
)
