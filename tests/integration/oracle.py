"""What a run must have given: computed again from its input topic, and compared.

Reads with aiokafka's consumer, which shares no code with the connector under test.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from .topologies import MILESTONE, OUT_OF_ORDERNESS_MS, PARTITIONS, WINDOW_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMITTED = "read_committed"
UNCOMMITTED = "read_uncommitted"
READ_DEADLINE_S = 60
SHOWN_MAX = 10

Rows = list[dict[str, Any]]


async def read_topic(broker: str, topic: str, isolation: str = COMMITTED) -> dict[int, Rows]:
    """Return the values of a topic by partition, in order, up to its present end."""
    partitions = [TopicPartition(topic, each) for each in range(PARTITIONS)]
    rows: dict[int, Rows] = {each: [] for each in range(PARTITIONS)}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker, isolation_level=isolation, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(READ_DEADLINE_S):
            for partition in partitions:
                while await consumer.position(partition) < ends[partition]:
                    found = await consumer.getmany(partition, timeout_ms=200)
                    for record in found.get(partition, []):
                        rows[partition.partition].append(orjson.loads(record.value))
    finally:
        await consumer.stop()
    return rows


async def open_transactions(broker: str, topics: Iterable[str]) -> list[str]:
    """Return the partitions whose stable end is behind their end."""
    partitions = [TopicPartition(t, each) for t in topics for each in range(PARTITIONS)]
    ends: dict[str, dict[TopicPartition, int]] = {}
    for isolation in (COMMITTED, UNCOMMITTED):
        consumer = AIOKafkaConsumer(bootstrap_servers=broker, isolation_level=isolation)
        await consumer.start()
        try:
            ends[isolation] = await consumer.end_offsets(partitions)
        finally:
            await consumer.stop()
    return [
        f"{each.topic}/{each.partition}: stable {ends[COMMITTED][each]} of {end}"
        for each, end in ends[UNCOMMITTED].items()
        if end != ends[COMMITTED][each]
    ]


@dataclass
class Expected:
    """What comes out for a given input.

    Attributes:
        orders: Number of input records.
        accepted: ``{order id: amount}`` of what passes the filter.
        ids: ``{user: ids of accepted orders}``.
        windows: ``{(user, window start): (total, orders)}`` of those that have closed.
    """

    orders: int = 0
    accepted: dict[int, int] = field(default_factory=dict)
    ids: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    windows: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)


def expect(orders: dict[int, Rows]) -> Expected:
    """Return what must come out; fails if an order is late, for then it would depend on luck."""
    expected = Expected()
    marks: list[int] = []
    for partition, rows in orders.items():
        latest_ms = 0
        for order in rows:
            assert order["ts"] >= latest_ms - OUT_OF_ORDERNESS_MS, f"late: {partition} {order}"
            latest_ms = max(latest_ms, order["ts"])
            expected.orders += 1
            if order["amount"] == 0:
                continue
            assert order["id"] not in expected.accepted, f"written twice: {order}"
            expected.accepted[order["id"]] = order["amount"]
            expected.ids[order["user"]].add(order["id"])
            start = order["ts"] - order["ts"] % WINDOW_MS
            total, count = expected.windows.get((order["user"], start), (0, 0))
            expected.windows[order["user"], start] = (total + order["amount"], count + 1)
        marks.append(latest_ms - OUT_OF_ORDERNESS_MS)
    closed_ms = min(marks)
    expected.windows = {
        (user, start): value
        for (user, start), value in expected.windows.items()
        if start + WINDOW_MS <= closed_ms
    }
    return expected


class Findings:
    """Everything that differs, so that a failure tells more than its first line."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def note(self, text: str, cases: Sequence[Any] = ("",)) -> None:
        """Note a finding, with the cases that show it; without cases there is none."""
        if cases:
            self._found.append(f"{text}: {len(cases)}, as {list(cases)[:SHOWN_MAX]}")

    def check(self) -> None:
        """Fail if there is a finding."""
        assert not self._found, "the output is not what the input gives\n" + "\n".join(self._found)


def compare_accepted(rows: dict[int, Rows], expected: Expected, findings: Findings) -> None:
    """Each accepted order exactly once."""
    seen = Counter(row["id"] for part in rows.values() for row in part)
    findings.note("accepted twice", [id for id, count in seen.items() if count > 1])
    note_missing("accepted", seen.keys(), expected.accepted.keys(), findings)


def compare_windows(rows: dict[int, Rows], expected: Expected, findings: Findings) -> None:
    """Each window of each user exactly once, with its exact sum and count."""
    seen: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for part in rows.values():
        for row in part:
            seen[row["user"], row["window_start"]].append((row["total"], row["orders"]))
    findings.note("windows twice", [key for key, found in seen.items() if len(found) > 1])
    note_missing("windows", seen.keys(), expected.windows.keys(), findings)
    wrong = [
        (key, found, expected.windows[key])
        for key, found in seen.items()
        if key in expected.windows and set(found) != {expected.windows[key]}
    ]
    findings.note("windows wrong (is, should be)", wrong)


def compare_running(rows: dict[int, Rows], expected: Expected, findings: Findings) -> None:
    """For each user the numbers 1 to n in order, over exactly its orders, with exact sums."""
    of_user: dict[str, Rows] = defaultdict(list)
    for part in rows.values():
        for row in part:
            of_user[row["user"]].append(row)
    note_missing("users", of_user.keys(), expected.ids.keys(), findings)
    for user, ids in expected.ids.items():
        found = of_user[user]
        numbers = [row["n"] for row in found]
        if numbers != list(range(1, len(ids) + 1)):
            at = next((i for i, n in enumerate(numbers) if n != i + 1), min(len(numbers), len(ids)))
            findings.note(
                f"{user}: {len(numbers)} numbers of {len(ids)}, out of step at {at}",
                [numbers[max(at - 2, 0) : at + 3]],
            )
            continue
        note_missing(f"orders of {user}", {row["id"] for row in found}, ids, findings)
        total, wrong = 0, []
        for row in found:
            total += expected.accepted.get(row["id"], 0)
            if row["total"] != total:
                wrong.append((row, total))
        findings.note(f"{user}: running sums wrong (is, should be)", wrong)


def compare_milestones(rows: dict[int, Rows], running: dict[int, Rows], findings: Findings) -> None:
    """Every tenth running count once: one transaction wrote both topics."""
    seen = Counter((row["user"], row["n"]) for part in rows.values() for row in part)
    due = Counter(
        (row["user"], row["n"])
        for part in running.values()
        for row in part
        if row["n"] % MILESTONE == 0
    )
    findings.note("milestones that are not among the counts", list(seen - due))
    findings.note("milestones missing", list(due - seen))


def note_missing(
    what: str, seen: Iterable[Any], expected: Iterable[Any], findings: Findings
) -> None:
    """Note what is not in both."""
    findings.note(f"{what} missing", sorted(set(expected) - set(seen)))
    findings.note(f"{what} that should not be", sorted(set(seen) - set(expected)))
