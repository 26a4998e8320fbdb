"""Kills a writer again and again in the middle of its commits. Run by ``test_processes``.

Forks itself, so that each writer starts in milliseconds. After each kill, topic ``a`` and topic
``b`` must hold the same numbers, from 0 on, none twice and none missing.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time

from riverrun.connectors.local import LocalLog
from riverrun.engine.log import TopicPartition, TopicSpec
from tests.batches import encode, values

A, B = TopicPartition("a", 0), TopicPartition("b", 0)


async def open_log(path: str) -> LocalLog:
    log = LocalLog(path)
    await log.start(10_000)
    await log.create_topics([TopicSpec("a", 1), TopicSpec("b", 1)])
    return log


async def write_forever(path: str, started: int) -> None:
    log = await open_log(path)
    writer = await log.open_writer("w", transactional=True, timeout_ms=10_000)
    number = (await log.offsets([A]))[A].end
    while True:
        for _ in range(3):
            writer.append(*A, encode([b"%d" % number]))
            writer.append(*B, encode([b"%d" % number]))
            number += 1
        await writer.commit(10_000)
        os.write(started, b".")


async def check(path: str) -> int:
    log = await open_log(path)
    reader = await log.open_reader({A: 0, B: 0})
    found: dict[TopicPartition, list[bytes | None]] = {A: [], B: []}
    while chunks := await reader.poll(0):
        for chunk in chunks:
            found[chunk.partition] += values([chunk])
    await log.close()
    count = len(found[A])
    assert found[A] == [b"%d" % number for number in range(count)]
    assert found[B] == found[A]
    assert count % 3 == 0
    return count


def kill_once(path: str, chance: random.Random) -> None:
    started_in, started_out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(started_in)
        asyncio.run(write_forever(path, started_out))
        os._exit(1)
    os.close(started_out)
    assert os.read(started_in, 1) == b".", "the writer died by itself"
    time.sleep(chance.uniform(0, 0.015))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(started_in)


def main(path: str, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    before = 0
    for _ in range(kills):
        kill_once(path, chance)
        count = asyncio.run(check(path))
        assert count > before
        before = count
    sys.stdout.write(str(before))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
