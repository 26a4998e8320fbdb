"""Work on gigabytes that processing must not feel: done piece by piece, with rests in between."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Rest = Callable[[], None]
    """Called between two pieces of work; returns when the next one may begin."""

PIECE_BYTES = 1024 * 1024
"""Read, hashed or written at a time: a millisecond, about, of a processor or of a disk that others
wait for."""

REST_FACTOR = 3
"""How many times as long as a piece took is the rest after it: the work takes a quarter of a
processor or of a disk, and less the more others want of it."""

REST_MAX_S = 0.1

TURN_S = 0.0005
"""How long work on Python objects goes on before it lets other threads have the interpreter."""

TURN_REST_S = 0.001
"""For how long. A record asks for the interpreter many times on its way, and each time it would
wait for the end of a turn."""

# On systems without it the file's times are written as well.
_sync_data = getattr(os, "fdatasync", os.fsync)


async def unhurried(steps: Iterator[None]) -> None:
    """Go through steps on threads, one at a time, with a rest after each.

    Cancelled, it does not begin with another step; the one that runs ends by itself.
    """
    loop = asyncio.get_running_loop()
    while True:
        # The loop's time, which stands still where a simulation wants it to.
        began_s = loop.time()
        if await asyncio.to_thread(next, steps, _OVER) is _OVER:
            return
        await asyncio.sleep(min(REST_FACTOR * (loop.time() - began_s), REST_MAX_S))


_OVER = object()


def no_rest() -> None:
    """Go on at once."""


class Turns:
    """Rests of a thread that works on Python objects beside processing.

    Example:
        >>> turns = Turns()
        >>> for piece in pieces:
        ...     work_on(piece)
        ...     turns.rest()
    """

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    def rest(self) -> None:
        """Rest if this turn has taken its time."""
        if time.perf_counter() - self._began_s > TURN_S:
            time.sleep(TURN_REST_S)
            self._began_s = time.perf_counter()


async def unhurried_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()

    def steps() -> Iterator[None]:
        for piece in _pieces(path):
            digest.update(piece)
            yield

    await unhurried(steps())
    return digest.hexdigest()


def copy_steps(source: Path, target: Path) -> Iterator[None]:
    """Copy a file to one that is not there yet. What a step has written is durable.

    Or the disk would get all of it at once in the end, and keep commits waiting meanwhile.

    Raises:
        FileExistsError: ``target`` is there.
        OSError: One of them cannot be read or written.
    """
    with target.open("xb", buffering=0) as writer:
        for piece in _pieces(source):
            rest = piece
            while rest:
                rest = rest[writer.write(rest) :]
            _sync_data(writer.fileno())
            yield


def _pieces(path: Path) -> Iterator[memoryview]:
    """Yield what is in a file; a piece is valid until the next one."""
    with path.open("rb", buffering=0) as file:
        piece = memoryview(bytearray(PIECE_BYTES))
        while count := file.readinto(piece):
            yield piece[:count]
