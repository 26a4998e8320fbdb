"""The jobs of the benchmark in Bytewax. Names come from the environment.

It ends at the end of the topic: clocks are per key, so no record of another key closes a window,
and only the end of the input closes the last windows of all keys.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import bytewax.operators.windowing as win
import msgspec
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main

AMOUNT_MIN = 100.0
WINDOW_MS = 60_000
STARTED = datetime.now(UTC)
BROKERS = [os.environ["BENCH_BROKER"]]


class Order(msgspec.Struct, gc=False):
    """The input."""

    user: str
    order: int
    amount: float
    ts: int
    product: str


class Kept(msgspec.Struct, gc=False):
    """What the filter puts out."""

    user: str
    order: int
    amount: float


class Result(msgspec.Struct, gc=False):
    """What the window puts out."""

    user: str
    window_start: int
    window_end: int
    total: float
    orders: int


_decode = msgspec.json.Decoder(Order).decode
_encode = msgspec.json.Encoder().encode


def _source(flow: Dataflow) -> op.Stream[Order]:
    # `tail=False`: end where the topic ends now.
    source = KafkaSource(BROKERS, [os.environ["BENCH_INPUT"]], tail=False, batch_size=1_000)
    messages = op.input("source", flow, source)
    return op.map("decode", messages, _order)


def _order(message: KafkaSourceMessage[bytes, bytes]) -> Order:
    return _decode(message.value)


def _message(user: str, row: msgspec.Struct) -> KafkaSinkMessage[bytes, bytes]:
    return KafkaSinkMessage(user.encode(), _encode(row))


def _sink(rows: op.Stream[KafkaSinkMessage[bytes, bytes]]) -> None:
    settings = {"compression.type": "lz4"}
    kop.output("sink", rows, brokers=BROKERS, topic=os.environ["BENCH_OUTPUT"], add_config=settings)


def _kept(order: Order) -> KafkaSinkMessage[bytes, bytes] | None:
    if order.amount < AMOUNT_MIN:
        return None
    return _message(order.user, Kept(order.user, order.order, order.amount))


def filter_project(flow: Dataflow) -> None:
    """Keep some of the orders, and some of their fields."""
    _sink(op.filter_map("keep", _source(flow), _kept))


def _time_of(order: Order) -> datetime:
    return datetime.fromtimestamp(order.ts / 1000, UTC)


def _standing_still() -> datetime:
    return STARTED


def _never(event_time: datetime) -> None:
    """Tell that no system time closes a window, only event times do."""


def _none() -> tuple[float, int]:
    return 0.0, 0


def _add(sums: tuple[float, int], order: Order) -> tuple[float, int]:
    return sums[0] + order.amount, sums[1] + 1


def _merge(left: tuple[float, int], right: tuple[float, int]) -> tuple[float, int]:
    return left[0] + right[0], left[1] + right[1]


def _result(down: tuple[str, tuple[int, tuple[float, int]]]) -> KafkaSinkMessage[bytes, bytes]:
    user, (window, (total, orders)) = down
    # Windows are numbered from the epoch on.
    start = window * WINDOW_MS
    return _message(user, Result(user, start, start + WINDOW_MS, total, orders))


def window(flow: Dataflow) -> None:
    """Count and sum per user and minute of event time."""
    keyed = op.key_on("user", _source(flow), lambda order: order.user)
    # By itself the clock also goes on with the system's time, so that records of a topic that is
    # read more slowly than it was written are late. It stands still here: the watermark comes from
    # event times alone, as in all other engines.
    clock = win.EventClock(
        _time_of,
        wait_for_system_duration=timedelta(seconds=1),
        now_getter=_standing_still,
        to_system_utc=_never,
    )
    minutes = win.TumblingWindower(
        length=timedelta(milliseconds=WINDOW_MS), align_to=datetime(1970, 1, 1, tzinfo=UTC)
    )
    sums = win.fold_window("sums", keyed, clock, minutes, _none, _add, _merge, ordered=False)
    _sink(op.map("encode", sums.down, _result))


def main() -> None:
    """Run the job until the end of the input."""
    flow = Dataflow(os.environ["BENCH_JOB"].replace("-", "_"))
    if os.environ["BENCH_TOPOLOGY"] == "window":
        window(flow)
    else:
        filter_project(flow)
    store = Path(os.environ["BENCH_STATE"])
    init_db_dir(store, 1)
    cluster_main(
        flow,
        [],
        0,
        epoch_interval=timedelta(seconds=10),
        recovery_config=RecoveryConfig(str(store)),
    )


if __name__ == "__main__":
    main()
