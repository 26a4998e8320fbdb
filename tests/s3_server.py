"""An S3 server of our own for tests: moto in a process, on a free port of the loopback."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.kafka_broker import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS_MAX = 30


@contextmanager
def s3_server(bucket: str) -> Iterator[dict[str, str]]:
    """Run a server with an empty ``bucket``; yield the environment that leads clients to it."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _make_bucket(server, f"{url}/{bucket}")
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


def _make_bucket(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    authorization = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"
    while True:
        request = urllib.request.Request(
            url, method="PUT", headers={"Authorization": authorization}
        )
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except (OSError, urllib.error.URLError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # a server says in no other way that it is not up yet
        else:
            return
