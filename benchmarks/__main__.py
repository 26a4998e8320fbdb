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

from tests.kafka_broker import (
    STEADY_JVM_FLAGS,
    KafkaBroker,
    KafkaNotAvailableError,
    from_environment,
)

from .engine import ROOT
from .machine import facts
from .measure import DEFAULT_PARTS, PARTS, measure
from .peers import command as peers
from .plots import PlotsNeedMatplotlibError, draw, require_matplotlib
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
RESULTS = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure riverrun, Kafka to Kafka."
    )
    parser.add_argument(
        "--job", action="append", choices=PARTS, help="only this; may be given several times"
    )
    parser.add_argument("--records", type=int, default=6_000_000, help="records to drain")
    parser.add_argument("--keys", type=int, default=10_000, help="distinct users")
    parser.add_argument(
        "--event-rate", type=int, default=10_000, help="records per second of event time"
    )
    parser.add_argument("--partitions", type=int, default=1, help="partitions to drain")
    parser.add_argument("--seconds", type=float, default=15.0, help="measuring time per latency")
    parser.add_argument(
        "--rate", action="append", type=int, help="loads of latency (default: 10, 50 and 150 k/s)"
    )
    parser.add_argument(
        "--state-mb",
        action="append",
        type=int,
        help="sizes of state of recovery, the last one of checkpoint too (default: 100 and 1,000)",
    )
    parser.add_argument(
        "--large-keys", type=int, default=10_000_000, help="distinct users of large-state"
    )
    parser.add_argument(
        "--state-memory",
        metavar="SIZE",
        default="64MiB",
        help="--state-memory of the worker of large-state (default: 64MiB)",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: rough figures soon")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIRECTORY",
        help="draw what was measured, as SVG (needs matplotlib)",
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help=f"put the results into {DOCS.relative_to(ROOT)}, with the plots",
    )
    parser.add_argument(
        "--engine-command",
        metavar="COMMAND",
        help="what to start in place of python, as in 'py-spy record -o profile.svg -- python'",
    )
    arguments = parser.parse_args(argv)
    if arguments.docs and (arguments.job or arguments.quick):
        parser.error("--docs writes all of its section: leave --job and --quick out")
    _set_sizes(arguments)
    return arguments


def _set_sizes(arguments: argparse.Namespace) -> None:
    """Set what was not given, and make it small where it is to be quick."""
    quick: bool = arguments.quick
    arguments.job = arguments.job or list(DEFAULT_PARTS)
    arguments.rate = arguments.rate or ([10_000, 50_000] if quick else [10_000, 50_000, 150_000])
    arguments.state_mb = arguments.state_mb or ([100] if quick else [100, 1_000])
    arguments.repeats = 1 if quick else 3
    arguments.warm_up = 2.0 if quick else 4.0
    arguments.checkpoint_seconds = 16.0 if quick else 60.0
    if quick:
        arguments.records = min(arguments.records, 1_500_000)
        arguments.seconds = min(arguments.seconds, 4.0)
        arguments.large_keys = min(arguments.large_keys, 1_000_000)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if all figures could be had, whatever they are."""
    argv = sys.argv[1:] if argv is None else argv
    if peers.asked_for(argv):
        return peers.main(argv)
    arguments = _arguments(argv)
    began_s = time.monotonic()
    options = {name: str(value) for name, value in vars(arguments).items()}
    report = Report(facts(), options)
    address = from_environment()
    broker = None if address else KafkaBroker(jvm_flags=STEADY_JVM_FLAGS)
    try:
        if arguments.docs or arguments.plots is not None:
            require_matplotlib()
        if broker is not None:
            broker.start()
        asyncio.run(measure(arguments, address or broker.address, report))  # type: ignore[union-attr]
    except (KafkaNotAvailableError, PlotsNeedMatplotlibError) as error:
        print(f"no figures: {error}", file=sys.stderr)
        return 1
    finally:
        if broker is not None:
            broker.remove()
    report.seconds = time.monotonic() - began_s
    _print(report)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    if arguments.plots is not None:
        draw(report, arguments.plots)
    if arguments.docs and not report.failures:
        _write_docs(report)
    return 1 if report.failures else 0


def _print(report: Report) -> None:
    for name, value in report.facts().items():
        print(f"{name}: {value}")
    print()
    print(report.table())
    print(f"\n{report.seconds:.0f} s in all; every output was equal to a recomputation")
    if missed := len(report.missed()):
        print(f"{missed} goals are missed")
    if report.failures:
        print("the documentation is written by a run without failures only", file=sys.stderr)
    for part, error in report.failures.items():
        print(f"no figures of {part}: {error}", file=sys.stderr)


def _write_docs(report: Report) -> None:
    images = [
        f"![{title}]({path.relative_to(DOCS.parent)})" for title, path in draw(report, IMAGES)
    ]
    text = "\n\n".join([report.markdown(), *images])
    DOCS.write_text(
        RESULTS.sub(lambda _: f"\n{text}\n\n", DOCS.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    sys.exit(main())
