"""``python -m benchmarks``: measure riverrun on a real Kafka, from topic to topic."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from riverrun.connectors.kafka import KafkaLog
from tests.kafka_broker import (
    STEADY_JVM_FLAGS,
    KafkaBroker,
    KafkaNotAvailableError,
    from_environment,
)

from . import latency, restart, throughput
from .engine import ROOT, EngineFailedError
from .machine import facts
from .orders import TIMEOUT_MS
from .peers import command as peers
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun.engine.log import Log

THROUGHPUT_JOBS = ("filter", "window")
PARTS = (*THROUGHPUT_JOBS, "python", "latency", "start", "restart")
DEFAULT_PARTS = (*THROUGHPUT_JOBS, "latency", "start", "restart")
DOCS = ROOT / "docs" / "benchmarks.md"
RESULTS = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure riverrun, Kafka to Kafka."
    )
    parser.add_argument(
        "--job", action="append", choices=PARTS, help="only this; may be given several times"
    )
    parser.add_argument("--records", type=int, default=3_000_000, help="records to drain")
    parser.add_argument("--keys", type=int, default=10_000, help="distinct users")
    parser.add_argument(
        "--event-rate", type=int, default=10_000, help="records per second of event time"
    )
    parser.add_argument("--partitions", type=int, default=1, help="partitions to drain")
    parser.add_argument("--state-mb", type=int, default=1_100, help="local state at the restart")
    parser.add_argument("--seconds", type=float, default=15.0, help="measuring time per latency")
    parser.add_argument("--quick", action="store_true", help="small sizes: a minute, rough figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument(
        "--docs", action="store_true", help=f"put the results into {DOCS.relative_to(ROOT)}"
    )
    parser.add_argument(
        "--engine-command",
        metavar="COMMAND",
        help="what to start in place of python, as in 'py-spy record -o profile.svg -- python'",
    )
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.records = min(arguments.records, 600_000)
        arguments.state_mb = min(arguments.state_mb, 100)
        arguments.seconds = min(arguments.seconds, 4.0)
    return arguments


async def measure(arguments: argparse.Namespace, broker: str) -> Report:
    """Measure what was asked for, in the order of the goals."""
    parts = arguments.job or DEFAULT_PARTS
    command = tuple((arguments.engine_command or sys.executable).split())
    options = {name: str(value) for name, value in vars(arguments).items()}
    report = Report(facts(), options)
    log = KafkaLog(broker)
    await log.start(TIMEOUT_MS)
    try:
        await _measure_throughput(arguments, log, broker, command, report)
        if "latency" in parts:
            for guarantee in ("at_least_once", "exactly_once"):
                _say(f"latency, {guarantee.replace('_', ' ')}")
                found = await latency.measure(
                    log,
                    broker,
                    guarantee,
                    warm_up_s=2.0 if arguments.quick else 4.0,
                    seconds=arguments.seconds,
                    command=command,
                )
                report.latencies.append(found)
        if "start" in parts:
            _say("start to first result")
            report.start = await restart.measure_start(log, broker)
        if "restart" in parts:
            _say(f"restart with {arguments.state_mb} MB of state")
            report.restart = await restart.measure_restart(log, broker, arguments.state_mb)
    finally:
        await log.close()
    return report


async def _measure_throughput(
    arguments: argparse.Namespace,
    log: Log,
    broker: str,
    command: tuple[str, ...],
    report: Report,
) -> None:
    jobs = [p for p in arguments.job or DEFAULT_PARTS if p in (*THROUGHPUT_JOBS, "python")]
    if not jobs:
        return
    _say(f"writing {arguments.records:,} records")
    topics = await throughput.prepare(
        log,
        arguments.records,
        keys=arguments.keys,
        rate=arguments.event_rate,
        partitions=arguments.partitions,
    )
    for job in jobs:
        _say(f"draining them with {job}")
        report.throughputs.append(await throughput.measure(log, broker, job, topics, command))


def _say(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if all figures could be had, whatever they are."""
    argv = sys.argv[1:] if argv is None else argv
    if peers.asked_for(argv):
        return peers.main(argv)
    arguments = _arguments(argv)
    began_s = time.monotonic()
    address = from_environment()
    broker = None if address else KafkaBroker(jvm_flags=STEADY_JVM_FLAGS)
    try:
        if broker is not None:
            _say("starting Kafka")
            broker.start()
        report = asyncio.run(measure(arguments, address or broker.address))  # type: ignore[union-attr]
    except (
        KafkaNotAvailableError,
        EngineFailedError,
        throughput.WrongOutputError,
        latency.LoadNotKeptError,
    ) as error:
        print(f"no figures: {error}", file=sys.stderr)
        return 1
    finally:
        if broker is not None:
            broker.remove()
    report.seconds = time.monotonic() - began_s
    for name, value in report.machine.items():
        print(f"{name}: {value}")
    print()
    print(report.table())
    print(f"\n{report.seconds:.0f} s in all; every output was equal to a recomputation")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    if arguments.docs:
        DOCS.write_text(
            RESULTS.sub(lambda _: f"\n{report.markdown()}\n\n", DOCS.read_text(encoding="utf-8")),
            encoding="utf-8",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
