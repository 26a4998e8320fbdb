"""``python -m benchmarks --peers``: riverrun and other engines, on one Kafka, in one run."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import throughput
from benchmarks.engine import ROOT, EngineFailedError
from benchmarks.machine import facts
from benchmarks.orders import TIMEOUT_MS, start_of_day_before_ms
from benchmarks.plots import PlotsNeedMatplotlibError, require_matplotlib
from benchmarks.throughput import WrongOutputError
from riverrun.connectors.kafka import KafkaLog
from tests.kafka_broker import (
    STEADY_JVM_FLAGS,
    KafkaBroker,
    KafkaNotAvailableError,
    from_environment,
)

from . import drain
from .catalog import JOBS, NAMES, PEERS, RIVERRUN, Peer
from .drain import PeerResult
from .environments import PeerNotAvailableError, install
from .report import PeerReport, draw, engines_markdown, rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.log import Log

OPTIONS = ("--peers", "--peers-quick", "--engine")
DOCS = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "images" / "peers-throughput.svg"
RECORDS = 6_000_000


def asked_for(argv: Sequence[str]) -> bool:
    """Return whether a command line is of this command."""
    return any(argument.partition("=")[0] in OPTIONS for argument in argv)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks --peers",
        description="Measure riverrun and other engines with the same jobs on the same Kafka.",
    )
    parser.add_argument("--peers", action="store_true", help="all engines")
    parser.add_argument("--peers-quick", action="store_true", help="half the records")
    parser.add_argument("--engine", action="append", choices=NAMES, help="only this; repeatable")
    parser.add_argument("--job", action="append", choices=JOBS, help="only this; repeatable")
    parser.add_argument("--records", type=int, default=RECORDS, help="records that riverrun drains")
    parser.add_argument("--keys", type=int, default=10_000, help="distinct users")
    parser.add_argument(
        "--event-rate", type=int, default=10_000, help="records per second of event time"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument(
        "--docs", action="store_true", help=f"put results into {DOCS.relative_to(ROOT)}, and draw"
    )
    arguments = parser.parse_args(argv)
    if arguments.docs and (arguments.job or arguments.engine):
        parser.error("--docs writes all of its section: leave --job and --engine out")
    if arguments.peers_quick:
        arguments.records //= 2
    return arguments


async def measure(arguments: argparse.Namespace, broker: str, report: PeerReport) -> None:
    """Measure riverrun, then each engine whose environment can be had."""
    names = arguments.engine or NAMES
    jobs = arguments.job or JOBS
    log = KafkaLog(broker)
    await log.start(TIMEOUT_MS)
    try:
        if RIVERRUN in names:
            await _measure_riverrun(arguments, log, broker, jobs, report)
        inputs = drain.Inputs(
            log,
            keys=arguments.keys,
            rate=arguments.event_rate,
            start_ms=start_of_day_before_ms(),
        )
        for peer in (peer for peer in PEERS if peer.name in names):
            reason = await asyncio.to_thread(_install, peer)
            for job in jobs:
                if reason:
                    _take(report, PeerResult(peer.name, job, reason=reason))
                    continue
                _say(f"{peer.title}: {job}")
                try:
                    size = peer.size(job, quick=arguments.peers_quick)
                    found = await drain.measure(log, broker, peer, job, inputs, size=size)
                except (EngineFailedError, WrongOutputError) as error:
                    found = PeerResult(peer.name, job, reason=str(error))
                _take(report, found)
    finally:
        await log.close()


async def _measure_riverrun(
    arguments: argparse.Namespace, log: Log, broker: str, jobs: Sequence[str], report: PeerReport
) -> None:
    topics = await throughput.prepare(
        log, arguments.records, keys=arguments.keys, rate=arguments.event_rate, partitions=1
    )
    for job in jobs:
        _say(f"riverrun: {job}")
        try:
            measured = await throughput.measure(log, broker, job, topics)
        except (EngineFailedError, WrongOutputError) as error:
            _take(report, PeerResult(RIVERRUN, job, reason=str(error)))
        else:
            _take(report, PeerResult.of_riverrun(measured))


def _take(report: PeerReport, result: PeerResult) -> None:
    """Keep a result and tell it: a run that is broken off has said what it had."""
    report.results.append(result)
    why = result.reason.partition("\n")[0]
    _say(f"    {why or f'{rate(result.per_cpu_s)} records/s per core of CPU'}")


def _install(peer: Peer) -> str:
    """Make an environment; return why it cannot be had, or nothing."""
    _say(f"{peer.title}: environment")
    try:
        install(peer)
    except PeerNotAvailableError as error:
        return f"cannot be installed: {error}"
    return ""


def _say(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> int:
    """Measure and print; 0 if all figures could be had, whatever they are."""
    arguments = _arguments(argv)
    began_s = time.monotonic()
    report = PeerReport(facts(), {name: str(value) for name, value in vars(arguments).items()})
    address = from_environment()
    broker = None if address else KafkaBroker(jvm_flags=STEADY_JVM_FLAGS)
    try:
        if arguments.docs:
            require_matplotlib()
        if broker is not None:
            _say("starting Kafka")
            broker.start()
        asyncio.run(measure(arguments, address or broker.address, report))  # type: ignore[union-attr]
    except (KafkaNotAvailableError, PlotsNeedMatplotlibError) as error:
        print(f"no figures: {error}", file=sys.stderr)
        return 1
    finally:
        if broker is not None:
            broker.remove()
    report.seconds = time.monotonic() - began_s
    for name, value in report.machine.items():
        print(f"{name}: {value}")
    print(f"\n{report.table()}\n\n{report.seconds:.0f} s in all; every output was checked")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    if arguments.docs:
        DOCS.write_text(with_results(DOCS.read_text("utf-8"), report), "utf-8")
        draw(report, PLOT)
    return 1 if report.failures() else 0


def with_results(page: str, report: PeerReport) -> str:
    """Return the page with the tables of engines and results put between their markers."""
    image = f"![Records per second of CPU]({PLOT.relative_to(DOCS.parent)})"
    page = between(page, "engines", engines_markdown())
    return between(page, "peers", f"{report.markdown()}\n\n{image}")


def between(page: str, name: str, text: str) -> str:
    """Return a page with what is between two markers replaced.

    Raises:
        ValueError: If the markers are not there.
    """
    section = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
    if not section.search(page):
        raise ValueError(f"no markers of {name} in the page")
    return section.sub(lambda _: f"\n{text}\n\n", page)
