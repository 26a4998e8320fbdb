"""``riverrun consume``: the records of a topic as JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import add_broker_options, positive_int
from .command import EXIT_OK, Command

if TYPE_CHECKING:
    import argparse


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", metavar="TOPIC", help="topic to read")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        "--from-beginning",
        dest="from_end",
        action="store_false",
        help="begin with the first record (default)",
    )
    begin.add_argument(
        "--from-end",
        action="store_true",
        help="begin with the first record that comes from now on; to be used with --follow",
    )
    parser.set_defaults(from_end=False)
    parser.add_argument(
        "--follow",
        action="store_true",
        help="wait for further records, and for the topic if it is missing, until Ctrl-C; without "
        "it the command ends at what is the end of the topic when it starts",
    )
    parser.add_argument("--max", type=positive_int, metavar="N", help="end after N records")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "--with-key", action="store_true", help='print {"key": ..., "value": ...} for each record'
    )
    shape.add_argument(
        "--with-metadata",
        action="store_true",
        help="print topic, partition, offset, timestamp_ms, key, headers and value",
    )
    add_broker_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import sys

    from .brokers import opened_log
    from .consume_lines import TopicReader, find_topic, line_of

    async def consume() -> int:
        shape = "metadata" if arguments.with_metadata else "key" if arguments.with_key else "value"
        left: int | None = arguments.max
        async with opened_log(arguments) as log:
            topic = await find_topic(log, arguments.topic, wait=arguments.follow)
            reader = TopicReader(log, topic, from_end=arguments.from_end, follow=arguments.follow)
            async for records in reader.read():
                count = len(records) if left is None else min(left, len(records))
                lines = [line_of(records, index, shape) for index in range(count)]
                sys.stdout.buffer.write(b"".join(lines))
                sys.stdout.buffer.flush()
                if left is not None:
                    left -= count
                    if left == 0:
                        break
        return EXIT_OK

    return asyncio.run(consume())


COMMAND = Command(
    name="consume",
    summary="print the records of a topic as JSON lines",
    description="Print the committed records of a topic, one JSON document per line. Values that\n"
    'are no JSON are printed as JSON text, bytes that are no text as {"base64": ...}, and\n'
    "tombstones as null. Records of one partition come in order.",
    examples=(
        "riverrun consume word-counts",
        "riverrun consume revenue-per-minute --follow --with-key",
        "riverrun consume orders --broker kafka://localhost:9092 --max 10 --with-metadata",
    ),
    configure=_configure,
    run=_run,
)
