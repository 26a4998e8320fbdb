"""Objects in S3, Google Cloud Storage, Azure and what speaks their protocols; and in memory."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import MemoryStore, from_url

from .blob import BlobInfo, BlobOptions, check_name
from .errors import BlobExistsError, BlobMissingError, BlobStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_Result = TypeVar("_Result")

_MIB = 1024 * 1024
SINGLE_PUT_BYTES = 64 * _MIB
"""Larger files go in parts. No provider takes parts on the condition that the name is free, so for
those the name is looked up before; names are unique anyway, this guards against mistakes."""
_PART_BYTES = 16 * _MIB
_PART_CONCURRENCY = 4
_CHUNK_BYTES = 4 * _MIB
_DELETE_NAMES = 500
# Its type mentions a package that is not installed.
_list: Any = obstore.list  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

_HOPELESS = (
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)


def open_cloud_store(url: str, *, options: BlobOptions) -> CloudBlobStore:
    """Return the store at an ``s3://``, ``gs://``, ``az://`` or ``memory://`` URL.

    Raises:
        BlobStoreError: Its settings make no sense.
    """
    if url.startswith("memory:"):
        return CloudBlobStore(url, MemoryStore(), options=options)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    try:
        store: Any = from_url(
            url,
            # Its own limit is for a whole transfer, however large; ours are for each part.
            client_options={
                "allow_http": plain or endpoint.startswith("http://"),
                "connect_timeout": "10s",
                "timeout": "900s",
            },
            retry_config={
                "max_retries": 2,
                "retry_timeout": timedelta(milliseconds=options.timeout_ms),
            },
        )
    except (BaseError, ValueError) as error:
        raise BlobStoreError(f"cannot open blob store {url}: {_brief(error)}") from error
    return CloudBlobStore(url, store, options=options)


class CloudBlobStore:
    """A store reached through obstore."""

    def __init__(self, url: str, store: Any, *, options: BlobOptions) -> None:
        self._url = url
        self._store = store
        self._options = options

    @property
    def url(self) -> str:
        """Where it is."""
        return self._url

    def replicas(self) -> Sequence[CloudBlobStore]:
        """Return itself."""
        return (self,)

    async def put_if_absent(self, name: str, source: bytes | Path) -> None:
        """Write an object; see ``BlobStore``."""
        size = len(source) if isinstance(source, bytes) else await self._file_size(source)
        large = isinstance(source, Path) and size > SINGLE_PUT_BYTES
        tries = 0

        async def put() -> None:
            nonlocal tries
            tries += 1
            if large:
                await self._put_large(name, source)
                return
            content = source if isinstance(source, bytes) else await _read(source)
            await obstore.put_async(self._store, name, content, mode="create", use_multipart=False)

        try:
            await self._retried("write", name, put, self._options.upload_seconds(size))
        except BlobExistsError:
            # A try whose answer was lost may have been the one that wrote it.
            if tries > 1 and await self._holds(name, source, size):
                return
            raise

    async def get(self, name: str) -> bytes:
        """Return a whole object."""

        async def get() -> bytes:
            answer = await obstore.get_async(self._store, name)
            chunks = [bytes(chunk) async for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES)]
            return b"".join(chunks)

        size = await self.size(name) or 0
        return await self._retried("read", name, get, self._options.upload_seconds(size))

    async def get_to_file(self, name: str, target: Path) -> None:
        """Write a whole object to ``target``, chunk by chunk."""

        async def get() -> None:
            answer = await obstore.get_async(self._store, name)
            with target.open("wb") as file:
                async for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                    await asyncio.to_thread(file.write, chunk)

        size = await self.size(name) or 0
        await self._retried("read", name, get, self._options.upload_seconds(size))

    async def size(self, name: str) -> int | None:
        """Return the size of an object, None if there is none."""

        async def head() -> int:
            return (await obstore.head_async(self._store, name))["size"]

        try:
            return await self._retried("look up", name, head)
        except BlobMissingError:
            return None

    async def list(self, prefix: str) -> list[BlobInfo]:
        """Return the objects below ``prefix``, by name."""

        async def collect() -> list[BlobInfo]:
            found: list[BlobInfo] = []
            pages = _list(self._store, prefix or None, chunk_size=1000)
            async for page in pages:
                for blob in page:
                    modified_ms = int(blob["last_modified"].timestamp() * 1000)
                    found.append(BlobInfo(blob["path"], blob["size"], modified_ms))
            return sorted(found, key=lambda blob: blob.name)

        return await self._retried("list", prefix, collect, self._options.upload_seconds(0) * 4)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects, if they are there."""
        for begin in range(0, len(names), _DELETE_NAMES):
            some = names[begin : begin + _DELETE_NAMES]
            try:
                await self._delete(some)
            except BlobMissingError:
                # Not every provider takes that for success; one by one, it is known which.
                for name in some:
                    with suppress(BlobMissingError):
                        await self._delete([name])

    async def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(self._url, name)

        async def delete() -> None:
            await obstore.delete_async(self._store, [*names])

        await self._retried("delete", names[0], delete)

    async def _put_large(self, name: str, source: Path | bytes) -> None:
        if await self.size(name) is not None:
            raise BlobExistsError(f"{name!r} exists already in {self._url}")
        await obstore.put_async(
            self._store,
            name,
            source,
            use_multipart=True,
            chunk_size=_PART_BYTES,
            max_concurrency=_PART_CONCURRENCY,
        )

    async def _holds(self, name: str, source: bytes | Path, size: int) -> bool:
        """Return whether the object is what we wanted to write, as far as can be told cheaply."""
        if isinstance(source, bytes):
            return await self.get(name) == source
        return await self.size(name) == size

    async def _file_size(self, source: Path) -> int:
        try:
            return (await asyncio.to_thread(source.stat)).st_size
        except OSError as error:
            raise BlobStoreError(f"cannot read {source} to upload it: {error}") from error

    async def _retried(
        self,
        doing: str,
        name: str,
        operation: Callable[[], Awaitable[_Result]],
        seconds: float | None = None,
    ) -> _Result:
        """Run ``operation`` until it succeeds, is hopeless, or the attempts are used up."""
        if name or doing != "list":
            check_name(self._url, name)
        options = self._options
        limit = options.timeout_ms / 1000 if seconds is None else seconds
        what = f"cannot {doing} {name!r} in {self._url}"
        attempt = 0
        while True:
            attempt += 1
            try:
                async with asyncio.timeout(limit):
                    return await operation()
            except BlobStoreError:
                raise
            except FileNotFoundError as error:
                # A missing bucket says the same; for a write it can be nothing else.
                kind = BlobStoreError if doing == "write" else BlobMissingError
                raise kind(f"{what}: not found ({_brief(error)})") from error
            except (AlreadyExistsError, PreconditionError) as error:
                raise BlobExistsError(f"{name!r} exists already in {self._url}") from error
            except (*_HOPELESS, ValueError) as error:
                raise BlobStoreError(f"{what}: {_brief(error)}. Check URL and rights.") from error
            except (BaseError, OSError) as error:
                # TimeoutError is an OSError.
                if attempt >= options.attempts:
                    raise BlobStoreError(
                        f"{what} in {attempt} attempts of at most {limit:.0f} s: {_brief(error)}"
                    ) from error
            await asyncio.sleep(options.backoff_ms * 2 ** (attempt - 1) / 1000)


async def _read(source: Path) -> bytes:
    try:
        return await asyncio.to_thread(source.read_bytes)
    except OSError as error:
        raise BlobStoreError(f"cannot read {source} to upload it: {error}") from error


def _brief(error: BaseException) -> str:
    """Return the first line: what follows is a dump of the client's insides."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
