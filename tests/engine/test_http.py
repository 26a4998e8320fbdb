"""The HTTP server of a worker: what it answers, and what it does not put up with."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from riverrun.engine import http
from riverrun.engine.errors import ConfigError
from riverrun.engine.http import HttpServer, Response, json_response, worker_routes
from riverrun.engine.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def serving(routes: dict[str, Any], **options: Any) -> AsyncIterator[int]:
    server = HttpServer(routes, **options)
    await server.start("127.0.0.1", 0)
    try:
        yield int(server.url.rpartition(":")[2])
    finally:
        await server.close()


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes and return status, headers and body of the answer."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), headers, body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


HELLO = {"/": lambda: Response(200, b"hello\n")}


async def test_get_answers_with_body_length_and_close() -> None:
    async with serving(HELLO) as port:
        status, headers, body = await ask(port, get("/?a=b"))

    assert (status, body) == (200, b"hello\n")
    assert headers["Content-Length"] == "6"
    assert headers["Connection"] == "close"


async def test_head_answers_without_body() -> None:
    async with serving(HELLO) as port:
        status, headers, body = await ask(port, get("/", "HEAD"))

    assert (status, headers["Content-Length"], body) == (200, "6", b"")


async def test_other_methods_are_refused() -> None:
    async with serving(HELLO) as port:
        status, headers, _ = await ask(port, get("/", "POST"))

    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/etc/passwd", "/../../etc/passwd", "/%2e%2e/x", "", "//"])
async def test_no_path_leads_anywhere_else(path: str) -> None:
    async with serving(HELLO) as port:
        status, _, body = await ask(port, get(path))

    assert status == 404
    assert b"root:" not in body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * (2 * http.REQUEST_MAX_BYTES) + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_no_request_is_told_so(request_bytes: bytes, status: int) -> None:
    async with serving(HELLO) as port:
        assert (await ask(port, request_bytes))[0] == status
        assert (await ask(port, get("/")))[0] == 200


async def test_a_client_that_says_nothing_is_dropped() -> None:
    async with serving(HELLO, request_timeout_s=0.1) as port:
        assert (await ask(port, b"GET / HT"))[0] == 408


async def test_too_many_connections_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 1)
    async with serving(HELLO) as port:
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        status = (await ask(port, get("/")))[0]
        silent.close()
        await silent.wait_closed()

    assert status == 503


async def test_a_route_that_fails_is_500_and_the_server_lives() -> None:
    def fail() -> Response:
        raise RuntimeError("broken")

    async with serving({**HELLO, "/bad": fail}) as port:
        assert (await ask(port, get("/bad")))[0] == 500
        assert (await ask(port, get("/")))[0] == 200


async def test_closing_drops_open_connections() -> None:
    server = HttpServer(HELLO)
    await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    await asyncio.sleep(0.05)

    async with asyncio.timeout(5):
        await server.close()
        try:
            left = await reader.read()
        except ConnectionError:
            left = b""
    writer.close()

    assert left == b""


async def test_an_address_in_use_is_an_error_that_says_so() -> None:
    async with serving(HELLO) as port:
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*port 0"):
            await HttpServer(HELLO).start("127.0.0.1", port)


async def test_a_worker_serves_metrics_health_and_readiness() -> None:
    metrics = Metrics(job="shop", worker="w1")
    metrics.step("filter-1", 0).records.inc(3)
    status = {"healthy": True, "ready": False, "job": "shop"}
    routes = worker_routes(lambda: status, metrics.render)

    async with serving(routes) as port:
        assert (await ask(port, get("/")))[0] == 200
        code, headers, body = await ask(port, get("/metrics"))
        assert (code, headers["Content-Type"]) == (200, http.PROMETHEUS)
        samples = [
            s for family in text_string_to_metric_families(body.decode()) for s in family.samples
        ]
        assert [s.value for s in samples if s.name == "riverrun_step_records_total"] == [3]

        code, _, body = await ask(port, get("/healthz"))
        assert (code, json.loads(body)) == (200, status)
        assert (await ask(port, get("/readyz")))[0] == 503

        status.update(healthy=False, ready=True)
        assert (await ask(port, get("/healthz")))[0] == 503
        assert (await ask(port, get("/readyz")))[0] == 200


def test_json_ends_with_a_line_end() -> None:
    assert json_response({"a": 1}) == Response(200, b'{"a":1}\n', http.JSON)
