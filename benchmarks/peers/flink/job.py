"""The jobs of the benchmark in PyFlink: SQL in a mini cluster. Names come from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

BROKER = os.environ["BENCH_BROKER"]
JOB = os.environ["BENCH_JOB"]
JARS = Path(os.environ["BENCH_JARS"])
CHECKPOINTS = Path(os.environ["BENCH_STATE"]) / "checkpoints"

SETTINGS = {
    "pipeline.jars": ";".join(path.as_uri() for path in JARS.glob("*.jar")),
    "pipeline.object-reuse": "true",
    "parallelism.default": "1",
    "execution.checkpointing.interval": "1 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
    "execution.checkpointing.dir": CHECKPOINTS.as_uri(),
    "taskmanager.memory.managed.size": "512m",
    "table.local-time-zone": "UTC",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "500 ms",
    "table.exec.mini-batch.size": "50000",
}

SOURCE = f"""
    CREATE TABLE orders (
        `user` STRING,
        `order` BIGINT,
        amount DOUBLE,
        ts BIGINT,
        product STRING,
        event_time AS TO_TIMESTAMP_LTZ(ts, 3),
        WATERMARK FOR event_time AS event_time - INTERVAL '1' SECOND
    ) WITH (
        'connector' = 'kafka',
        'topic' = '{os.environ["BENCH_INPUT"]}',
        'properties.bootstrap.servers' = '{BROKER}',
        'properties.group.id' = '{JOB}',
        'scan.startup.mode' = 'earliest-offset',
        'format' = 'json'
    )
"""

SINK = f"""
    'connector' = 'kafka',
    'topic' = '{os.environ["BENCH_OUTPUT"]}',
    'properties.bootstrap.servers' = '{BROKER}',
    'properties.compression.type' = 'lz4',
    'properties.batch.size' = '131072',
    'properties.linger.ms' = '100',
    'properties.transaction.timeout.ms' = '600000',
    'sink.delivery-guarantee' = 'exactly-once',
    'sink.transactional-id-prefix' = '{JOB}',
    'key.format' = 'raw',
    'key.fields' = 'user',
    'value.format' = 'json'
"""

FILTER = (
    f"CREATE TABLE results (`user` STRING, `order` BIGINT, amount DOUBLE) WITH ({SINK})",
    """
    INSERT INTO results
    SELECT `user`, `order`, amount FROM orders WHERE amount >= 100
    """,
)

WINDOW = (
    f"""
    CREATE TABLE results (
        `user` STRING,
        window_start BIGINT,
        window_end BIGINT,
        total DOUBLE,
        orders BIGINT
    ) WITH ({SINK})
    """,
    """
    INSERT INTO results
    SELECT
        `user`,
        1000 * UNIX_TIMESTAMP(CAST(window_start AS STRING)),
        1000 * UNIX_TIMESTAMP(CAST(window_end AS STRING)),
        SUM(amount),
        COUNT(*)
    FROM TUMBLE(TABLE orders, DESCRIPTOR(event_time), INTERVAL '1' MINUTE)
    GROUP BY `user`, window_start, window_end
    """,
)


def main() -> None:
    """Run the job until it is killed."""
    environment = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for name, value in SETTINGS.items():
        environment.get_config().set(name, value)
    sink, insert = WINDOW if os.environ["BENCH_TOPOLOGY"] == "window" else FILTER
    environment.execute_sql(SOURCE)
    environment.execute_sql(sink)
    environment.execute_sql(insert).wait()


if __name__ == "__main__":
    main()
