"""The embedded log between processes, and through kill -9."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from riverrun.connectors.local import LocalLog
from riverrun.engine.log import TopicPartition, TopicSpec
from tests.batches import values

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 60
WRITERS, TRANSACTIONS = 3, 60
KILLS, SEED = 20, 7


async def run(module: str, *arguments: object) -> str:
    """Run a script beside this file to its end and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.connectors.local.{module}",
        *map(str, arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_processes_write_and_read_at_the_same_time(tmp_path: Path) -> None:
    # All of them, and this one, create the directory and the topics at once.
    path = tmp_path / "log"
    writing = [
        asyncio.create_task(run("write_many", path, f"w{number}", TRANSACTIONS))
        for number in range(WRITERS)
    ]
    log = LocalLog(path)
    await log.start(20_000)
    await log.create_topics([TopicSpec("a", 1), TopicSpec("b", 1)])
    keys = [TopicPartition("a", 0), TopicPartition("b", 0)]
    reader = await log.open_reader(dict.fromkeys(keys, 0))
    found: dict[TopicPartition, list[bytes | None]] = {key: [] for key in keys}

    async with asyncio.timeout(DEADLINE_S):
        while any(reader.position(key) < WRITERS * TRANSACTIONS for key in keys):
            chunks = await reader.poll(100)
            for chunk in chunks:
                found[chunk.partition] += values([chunk])
            # One poll sees one moment: a transaction is in both topics or in none.
            assert found[keys[0]] == found[keys[1]]
    await asyncio.gather(*writing)
    await log.close()

    for number in range(WRITERS):
        prefix = b"w%d:" % number
        own = [value for value in found[keys[0]] if value is not None and value.startswith(prefix)]
        assert own == [prefix + b"%d" % index for index in range(TRANSACTIONS)]


async def test_kill_9_never_leaves_half_a_commit(tmp_path: Path) -> None:
    committed = int(await run("kill_loop", tmp_path / "log", KILLS, SEED))

    assert committed >= 3 * KILLS
