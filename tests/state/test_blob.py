from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun.state import (
    BlobExistsError,
    BlobMissingError,
    BlobOptions,
    BlobStore,
    BlobStoreError,
    Fault,
    FaultyBlobStore,
    open_blob_store,
    replicated,
)

if TYPE_CHECKING:
    from pathlib import Path

BIG = bytes(range(256)) * 40_000


async def test_bytes_and_files_come_back(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(BIG)
    await blobs.put_if_absent("a/b/bytes", b"content")
    await blobs.put_if_absent("a/b/file", tmp_path / "source")
    await blobs.put_if_absent("a/empty", b"")
    assert await blobs.get("a/b/bytes") == b"content"
    assert await blobs.get("a/empty") == b""
    await blobs.get_to_file("a/b/file", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == BIG
    assert await blobs.size("a/b/file") == len(BIG)


async def test_objects_are_written_once(blobs: BlobStore, tmp_path: Path) -> None:
    await blobs.put_if_absent("a/name", b"first")
    (tmp_path / "source").write_bytes(b"second")
    for second in (b"second", tmp_path / "source"):
        with pytest.raises(BlobExistsError, match="a/name"):
            await blobs.put_if_absent("a/name", second)
    assert await blobs.get("a/name") == b"first"


async def test_missing_objects_are_named(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobMissingError, match="no/such"):
        await blobs.get("no/such")
    with pytest.raises(BlobMissingError, match="no/such"):
        await blobs.get_to_file("no/such", tmp_path / "target")
    assert await blobs.size("no/such") is None


async def test_list_goes_by_whole_segments(blobs: BlobStore) -> None:
    for name in ("a/b/2", "a/b/1", "a/bc/3", "z"):
        await blobs.put_if_absent(name, name.encode())
    assert [(blob.name, blob.size) for blob in await blobs.list("a/b")] == [
        ("a/b/1", 5),
        ("a/b/2", 5),
    ]
    found = await blobs.list("")
    assert [blob.name for blob in found] == ["a/b/1", "a/b/2", "a/bc/3", "z"]
    assert all(blob.modified_ms > 1_600_000_000_000 for blob in found)
    assert await blobs.list("nothing") == []


async def test_delete_does_not_mind_what_is_gone(blobs: BlobStore) -> None:
    await blobs.put_if_absent("a/1", b"")
    await blobs.put_if_absent("a/2", b"")
    await blobs.delete(["a/1", "a/never"])
    await blobs.delete(["a/1"])
    await blobs.delete([])
    assert [blob.name for blob in await blobs.list("a")] == ["a/2"]


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "a b", "a\n"])
async def test_names_that_could_lead_astray_are_refused(blobs: BlobStore, name: str) -> None:
    with pytest.raises(BlobStoreError, match="not a name"):
        await blobs.get(name)
    with pytest.raises(BlobStoreError, match="not a name"):
        await blobs.put_if_absent(name, b"")


async def test_missing_source_file_is_named(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobStoreError, match="nowhere"):
        await blobs.put_if_absent("a", tmp_path / "nowhere")


@pytest.mark.parametrize(
    "url", ["", "path", "ftp://host/x", "file://host/x", "file:relative", "az://container", ","]
)
def test_urls_that_make_no_sense_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(BlobStoreError, match="cannot open"):
        open_blob_store(url)


async def test_unreachable_storage_names_url_and_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    options = BlobOptions(timeout_ms=500, attempts=2, backoff_ms=0, bytes_per_second_min=1 << 30)
    blobs = open_blob_store("s3://bucket/prefix", options=options)
    with pytest.raises(BlobStoreError, match="'a/b' in s3://bucket/prefix in 2 attempts"):
        await blobs.put_if_absent("a/b", b"x")
    with pytest.raises(BlobStoreError, match="cannot list"):
        await blobs.list("a")


@pytest.mark.s3
async def test_missing_bucket_is_no_missing_object(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BlobStoreError, match="not found") as caught:
        await open_blob_store("s3://nobucket/x").put_if_absent("a", b"x")
    assert not isinstance(caught.value, BlobMissingError)


@pytest.mark.s3
async def test_large_files_go_in_parts_and_still_once(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("riverrun.state.blob_cloud.SINGLE_PUT_BYTES", 1_000_000)
    monkeypatch.setattr("riverrun.state.blob_cloud._PART_BYTES", 5 * 1024 * 1024)
    blobs = open_blob_store("s3://bucket/large")
    (tmp_path / "source").write_bytes(BIG)
    await blobs.put_if_absent("a", tmp_path / "source")
    assert await blobs.get("a") == BIG
    with pytest.raises(BlobExistsError):
        await blobs.put_if_absent("a", tmp_path / "source")


async def test_lost_answer_is_not_taken_for_a_conflict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import obstore

    honest = obstore.put_async
    answers = 0

    async def lossy(*args: object, **kwargs: object) -> object:
        nonlocal answers
        answers += 1
        result = await honest(*args, **kwargs)
        if answers == 1:
            raise obstore.exceptions.GenericError("connection reset")
        return result

    monkeypatch.setattr(obstore, "put_async", lossy)
    blobs = open_blob_store("memory://", options=BlobOptions(backoff_ms=0))
    await blobs.put_if_absent("a", b"content")
    assert answers == 2
    answers = 0
    (tmp_path / "source").write_bytes(b"content")
    await blobs.put_if_absent("b", tmp_path / "source")
    assert await blobs.get("b") == b"content"


async def test_deadline_ends_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    import obstore

    async def hang(*args: object, **kwargs: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(obstore, "head_async", hang)
    options = BlobOptions(timeout_ms=1, attempts=3, backoff_ms=0)
    with pytest.raises(BlobStoreError, match="in 3 attempts"):
        await open_blob_store("memory://", options=options).size("a")


async def test_local_store_leaves_no_partial_files(tmp_path: Path) -> None:
    blobs = open_blob_store(tmp_path.as_uri())
    await blobs.put_if_absent("a/name", b"1")
    with pytest.raises(BlobExistsError):
        await blobs.put_if_absent("a/name", b"2")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["name"]


async def test_replicated_store_needs_all_to_write_and_one_to_read(tmp_path: Path) -> None:
    one, two = (open_blob_store((tmp_path / name).as_uri()) for name in ("one", "two"))
    both = replicated([one, two])
    await both.put_if_absent("a", b"x")
    await one.delete(["a"])
    assert await both.get("a") == b"x"
    assert await both.size("a") is None
    await both.get_to_file("a", tmp_path / "target")
    assert [blob.name for blob in await both.list("")] == ["a"]
    await both.delete(["a"])
    assert await two.list("") == []
    broken = replicated([FaultyBlobStore(one, {("put", 0): Fault.FAIL}), two])
    with pytest.raises(BlobStoreError, match="told to fail"):
        await broken.put_if_absent("b", b"x")


@pytest.mark.parametrize("field", ["timeout_ms", "attempts", "bytes_per_second_min"])
def test_senseless_options_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        BlobOptions(**{field: 0})
