"""Commits transactions over two topics. Run several times at once by ``test_processes``."""

from __future__ import annotations

import asyncio
import sys

from riverrun.connectors.local import LocalLog
from riverrun.engine.log import TopicSpec
from tests.batches import encode


async def main(path: str, name: str, count: int) -> None:
    log = LocalLog(path)
    await log.start(20_000)
    await log.create_topics([TopicSpec("a", 1), TopicSpec("b", 1)])
    writer = await log.open_writer(name, transactional=True, timeout_ms=20_000)
    for number in range(count):
        for topic in ("a", "b"):
            writer.append(topic, 0, encode([f"{name}:{number}".encode()]))
        await writer.commit(20_000)
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
