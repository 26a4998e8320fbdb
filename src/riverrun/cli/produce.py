"""``riverrun produce``: JSON lines from stdin into a topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import add_broker_options, positive_int
from .command import EXIT_OK, Command

if TYPE_CHECKING:
    import argparse


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", metavar="TOPIC", help="topic to write to")
    parser.add_argument(
        "--key", metavar="FIELD", help="field whose value is the key of a record (default: no key)"
    )
    parser.add_argument(
        "--timestamp",
        metavar="FIELD",
        help="field with the time of a record, in milliseconds since 1970 or ISO 8601 "
        "(default: now)",
    )
    parser.add_argument(
        "--partitions",
        type=positive_int,
        metavar="N",
        help="create the topic with so many partitions if it is missing (default: 4 on the "
        "embedded log; on Kafka the topic must exist)",
    )
    add_broker_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import sys

    from .brokers import opened_log
    from .produce_lines import LineProducer, RecordFields, ensure_topic, read_lines

    async def produce() -> int:
        async with opened_log(arguments) as log:
            topic = await ensure_topic(log, arguments.topic, arguments.partitions, arguments.broker)
            fields = RecordFields(arguments.key, arguments.timestamp)
            async with LineProducer(log, topic, fields) as producer:
                await producer.run(read_lines(sys.stdin.fileno()))
                print(f"riverrun: {producer.written} records to {topic.name}", file=sys.stderr)
        return EXIT_OK

    return asyncio.run(produce())


COMMAND = Command(
    name="produce",
    summary="write JSON lines from stdin to a topic",
    description="Write each line of stdin, a JSON document, as a record to a topic. A line is\n"
    "written within a moment of being read, also from a pipe that stays open. Records are\n"
    "committed in transactions: when something goes wrong, the message says how many\n"
    "lines are in the topic, and no other one is.",
    examples=(
        """echo '{"text": "to be or not to be"}' | riverrun produce lines""",
        "riverrun produce orders --key user --timestamp ts < orders.jsonl",
        "riverrun produce orders --partitions 8 --broker kafka://localhost:9092 < orders.jsonl",
    ),
    configure=_configure,
    run=_run,
)
