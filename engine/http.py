"""A small HTTP/1.1 server on the event loop: metrics, health and readiness of a worker.

It answers GET and HEAD for a fixed table of paths and nothing else: no path leads to a file, no
request has a body, no connection is kept. Every request has a size bound and a deadline, and the
number of connections is bounded, so that a slow or hostile client costs the worker little.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

REQUEST_MAX_BYTES = 8 * 1024
"""Request line and headers together; browsers send about 1 KiB."""

REQUEST_TIMEOUT_S = 5.0
"""From connecting to the end of the headers."""

RESPONSE_TIMEOUT_S = 10.0
"""From the end of the headers to the last byte taken by the client."""

CONNECTIONS_MAX = 32
"""More at once are turned away with 503."""

_DRAIN_MAX_BYTES = 64 * 1024

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered.

    Attributes:
        status: HTTP status code.
        body: Content.
        content_type: Its media type.
    """

    status: int
    body: bytes
    content_type: str = TEXT


def json_response(value: Any, status: int = 200) -> Response:
    """Return ``value`` as JSON."""
    return Response(status, orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), JSON)


def worker_routes(
    status: Callable[[], Mapping[str, Any]], render_metrics: Callable[[], bytes]
) -> dict[str, Callable[[], Response]]:
    """Return what a worker serves.

    Args:
        status: Returns how the worker is doing, with ``healthy`` and ``ready``.
        render_metrics: Returns all metrics in the Prometheus text format.
    """

    def by(name: str) -> Callable[[], Response]:
        def respond() -> Response:
            current = status()
            return json_response(current, 200 if current[name] else 503)

        return respond

    return {
        "/": lambda: Response(200, b"riverrun worker: /metrics /healthz /readyz\n"),
        "/metrics": lambda: Response(200, render_metrics(), PROMETHEUS),
        "/healthz": by("healthy"),
        "/readyz": by("ready"),
    }


class HttpServer:
    """Serves a table of paths.

    Args:
        routes: What to answer by path. Called on the event loop; must not wait.
        request_timeout_s: Deadline of a request to come in.
        response_timeout_s: Deadline of a response to be taken.
    """

    def __init__(
        self,
        routes: Mapping[str, Callable[[], Response]],
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        response_timeout_s: float = RESPONSE_TIMEOUT_S,
    ) -> None:
        self._routes = routes
        self._request_timeout_s = request_timeout_s
        self._response_timeout_s = response_timeout_s
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.url = ""

    async def start(self, host: str, port: int) -> None:
        """Listen; ``url`` says where, also when ``port`` is 0.

        Raises:
            ConfigError: If the address cannot be listened on.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, host, port, limit=REQUEST_MAX_BYTES
            )
        except OSError as error:
            raise ConfigError(
                f"cannot serve HTTP on {host}:{port}: {error.strerror or error}; choose another "
                "address, or port 0 for any free one"
            ) from error
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening and drop open connections. Never raises."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            # The client is gone or too slow, or the server closes.
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, response = "GET", Response(503, b"too many connections\n")
        if len(self._open) <= CONNECTIONS_MAX:
            method, response = await self._read_and_answer(reader)
        async with asyncio.timeout(self._response_timeout_s):
            writer.write(_encode(method, response))
            await writer.drain()
            if response.status in (400, 408, 431, 503):
                # Closing with bytes unread resets the connection, and the answer may be lost.
                writer.write_eof()
                await _discard(reader)

    async def _read_and_answer(self, reader: asyncio.StreamReader) -> tuple[str, Response]:
        try:
            async with asyncio.timeout(self._request_timeout_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return "GET", Response(408, b"the request took too long\n")
        except asyncio.LimitOverrunError:
            return "GET", Response(431, b"the request is too large\n")
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                raise ConnectionResetError from error
            return "GET", Response(400, b"the request is incomplete\n")
        parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/"):
            return "GET", Response(400, b"this is no HTTP request\n")
        method, target, version = parts
        if not version.startswith("HTTP/1."):
            return method, Response(505, b"HTTP/1.1 only\n")
        return method, self._answer(method, target)

    def _answer(self, method: str, target: str) -> Response:
        path = target.partition("?")[0]
        respond = self._routes.get(path)
        if respond is None:
            known = ", ".join(sorted(self._routes))
            return Response(404, f"nothing is here; there are {known}\n".encode())
        if method not in ("GET", "HEAD"):
            return Response(405, b"GET and HEAD only\n")
        try:
            return respond()
        except Exception:
            _log.exception("answering %s failed", path)
            return Response(500, b"failed, see the log of the worker\n")


async def _discard(reader: asyncio.StreamReader) -> None:
    seen = 0
    while seen < _DRAIN_MAX_BYTES and (chunk := await reader.read(4_096)):
        seen += len(chunk)


def _encode(method: str, response: Response) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if response.status == 405:
        lines.append("Allow: GET, HEAD")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if method == "HEAD" else head + response.body
