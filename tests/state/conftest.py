from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from riverrun.state import BlobOptions, BlobStore, open_blob_store
from tests.s3_server import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    with s3_server("bucket") as environment:
        yield environment


@pytest.fixture(
    params=["file", "memory", "replicated", pytest.param("s3", marks=pytest.mark.s3)],
)
def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BlobStore:
    """Every kind of blob store, empty."""
    options = BlobOptions(backoff_ms=0, timeout_ms=20_000)
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3_environment").items():
            monkeypatch.setenv(name, value)
        return open_blob_store(f"s3://bucket/{uuid4().hex}", options=options)
    url = {
        "file": (tmp_path / "blobs").as_uri(),
        "memory": "memory://",
        "replicated": f"{(tmp_path / 'one').as_uri()}, {(tmp_path / 'two').as_uri()}",
    }[request.param]
    return open_blob_store(url, options=options)
