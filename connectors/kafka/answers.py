"""Answers of a broker, read from the socket into memory of their size.

aiokafka reads through an ``asyncio.StreamReader``: what comes is copied three times, and a task is
woken for each 64 KiB. Answers to fetch requests have a megabyte, so once a connection stands its
transport is given this protocol instead. It goes below aiokafka's public face: ``_writer``,
``_protocol`` and ``_handle_frame``; ``tests/kafka/test_answers.py`` watches them.
"""

# aiokafka's connection module has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.conn import CloseReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka.conn import AIOKafkaConnection

log = logging.getLogger(__name__)

FRAME_BYTES_MAX = 1024 * 1024 * 1024
"""A larger one is no answer: whoever answers does not speak Kafka."""

READ_BYTES = 64 * 1024
"""Read at a time where the size of what comes is not known; small answers fit."""

TRUSTED_BYTES = 16 * 1024 * 1024
"""A frame gets memory of its size up to this one; larger ones get more as they come, for a size
that only looks like one must not take a gigabyte."""

_SIZE = struct.Struct(">i")


class BadFrameError(ValueError):
    """What came is not framed as Kafka frames it."""


class Frames:
    r"""Cuts a stream of bytes into frames: a size of four bytes, and so many bytes.

    Args:
        take: Called with each frame, in order.

    Example:
        >>> frames = Frames(print)
        >>> buffer = frames.buffer()
        >>> buffer[:9] = b"\x00\x00\x00\x02hi\x00\x00\x00"
        >>> frames.filled(9)
        b'hi'
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._head = memoryview(bytearray(READ_BYTES))
        self._head_bytes = 0
        self._frame: memoryview | None = None  # the one that has come in part
        self._frame_bytes = 0
        self._frame_size = 0

    def buffer(self) -> memoryview:
        """Return where to put what comes next."""
        if self._frame is not None:
            return self._frame[self._frame_bytes :]
        return self._head[self._head_bytes :]

    def filled(self, count: int) -> None:
        """Take in that the first bytes of ``buffer()`` have come.

        Raises:
            BadFrameError: A size makes no sense.
        """
        if self._frame is not None:
            self._frame_bytes += count
            if self._frame_bytes == self._frame_size:
                frame, self._frame = self._frame, None
                self._take(bytes(frame))
            elif self._frame_bytes == len(self._frame):
                more = memoryview(bytearray(min(self._frame_size, 2 * self._frame_bytes)))
                more[: self._frame_bytes] = self._frame
                self._frame = more
            return
        at, end = 0, self._head_bytes + count
        while end - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._head, at)
            if not 0 <= size <= FRAME_BYTES_MAX:
                raise BadFrameError(f"an answer of {size} bytes is announced")
            at += _SIZE.size
            if end - at < size:
                room = max(min(size, TRUSTED_BYTES), end - at + 1)
                self._frame, self._frame_size = memoryview(bytearray(room)), size
                self._frame_bytes = end - at
                self._frame[: end - at] = self._head[at:end]
                at = end
                break
            self._take(bytes(self._head[at : at + size]))
            at += size
        self._head_bytes = end - at
        self._head[: end - at] = self._head[at:end]


class AnswerProtocol(asyncio.BufferedProtocol):
    """Hands the answers of one connection to it. All else goes to the protocol that was there."""

    def __init__(self, connection: AIOKafkaConnection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport
        self._before: Any = connection._protocol  # noqa: SLF001
        # Of nothing that refers back to us: a frame that came in part goes with the connection.
        self._frames = Frames(partial(_hand_over, connection))

    @staticmethod
    def install(connection: AIOKafkaConnection) -> None:
        """Let a connection that waits for no answer read in this way from now on."""
        if not connection.connected():
            return
        writer: Any = connection._writer  # noqa: SLF001
        transport: asyncio.Transport = writer.transport
        # Paused, for a transport decides when it begins to read how it does.
        transport.pause_reading()
        transport.set_protocol(AnswerProtocol(connection, transport))
        transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the transport is to put what comes next."""
        return self._frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what came; what cannot be understood ends the connection."""
        if self._transport.is_closing():
            # TLS hands over what it holds from inside of close(), which must not begin anew then.
            return
        try:
            self._frames.filled(nbytes)
        except Exception as error:
            log.exception("an answer of %s", self._connection)
            self._connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)

    def eof_received(self) -> bool | None:
        """End the task that still waits where nothing comes any more: it closes the connection."""
        return self._before.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Do the same, and let whoever waits for the end know."""
        self._before.connection_lost(exc)
        # Not only when that task wakes: on uvloop, writing to what is lost is a RuntimeError.
        self._connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=exc)

    def pause_writing(self) -> None:
        """Keep writers waiting."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._before.resume_writing()


def _hand_over(connection: AIOKafkaConnection, frame: bytes) -> None:
    # An answer out of order has closed the connection; what came behind it is nobody's.
    if connection.connected():
        connection._handle_frame(frame)  # noqa: SLF001
