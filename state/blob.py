"""The blob port: replicated storage for snapshots, as objects that are written once."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from .errors import BlobStoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*(/[A-Za-z0-9_][A-Za-z0-9._=-]*)*")

SCHEMES = ("file", "s3", "gs", "az", "memory")


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """An object in a listing.

    Attributes:
        name: Its name, without the prefix of the store's URL.
        size: Bytes.
        modified_ms: When it was written, by the storage's clock.
    """

    name: str
    size: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class BlobOptions:
    """Deadlines and retries of a blob store.

    Attributes:
        timeout_ms: Longest wait for one answer, or for the next part of a transfer.
        attempts: Tries of one operation, for troubles that pass.
        backoff_ms: Wait before the second try; doubled for each further one.
        bytes_per_second_min: Slower uploads run into their deadline.
    """

    timeout_ms: int = 30_000
    attempts: int = 4
    backoff_ms: int = 200
    bytes_per_second_min: int = 256 * 1024

    def __post_init__(self) -> None:
        """Reject numbers that mean never or forever."""
        if self.timeout_ms < 1 or self.attempts < 1 or self.backoff_ms < 0:
            raise ValueError(f"timeout_ms and attempts must be positive: {self}")
        if self.bytes_per_second_min < 1:
            raise ValueError(f"bytes_per_second_min must be positive: {self}")

    def upload_seconds(self, size: int) -> float:
        """Return the deadline of uploading ``size`` bytes."""
        return self.timeout_ms / 1000 + size / self.bytes_per_second_min


class BlobStore(Protocol):
    """Objects under names, in one or more places. Every call has a deadline and may be retried.

    All methods raise ``BlobStoreError``, naming the URL and the object, when the storage does not
    do what was asked.
    """

    @property
    def url(self) -> str:
        """Where it is, for messages; without credentials."""
        ...

    def replicas(self) -> Sequence[BlobStore]:
        """Return the places that each hold every object; itself if there is but one."""
        ...

    async def put_if_absent(self, name: str, source: bytes | Path) -> None:
        """Write an object; it is durable, whole and visible when this returns.

        Raises:
            BlobExistsError: The name is taken. Nothing was written.
        """
        ...

    async def get(self, name: str) -> bytes:
        """Return a whole object.

        Raises:
            BlobMissingError: There is none.
        """
        ...

    async def get_to_file(self, name: str, target: Path) -> None:
        """Write a whole object to ``target``. Not synced; after an error it may hold a part.

        Raises:
            BlobMissingError: There is none.
        """
        ...

    async def size(self, name: str) -> int | None:
        """Return the size of an object, None if there is none."""
        ...

    async def list(self, prefix: str) -> list[BlobInfo]:
        """Return the objects below ``prefix`` (whole path segments; "" for all), by name."""
        ...

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        ...


def open_blob_store(url: str, *, options: BlobOptions | None = None) -> BlobStore:
    """Return the store at ``url``; nothing is contacted yet.

    ``file:///path``, ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix`` or
    ``memory://`` (empty, gone with the object). Several, separated by commas, are replicas of one
    another. Credentials and endpoints come from the environment, by the names that the
    providers' own tools use (``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``,
    ``AZURE_STORAGE_ACCOUNT_NAME`` and so on).

    Raises:
        BlobStoreError: The URL makes no sense.
    """
    from .blob_cloud import open_cloud_store
    from .blob_local import LocalBlobStore

    options = options or BlobOptions()
    if "," in url:
        places = [part.strip() for part in url.split(",")]
        return replicated([open_blob_store(place, options=options) for place in places])
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise BlobStoreError(
            f"cannot open blob store {url!r}: the scheme must be one of {', '.join(SCHEMES)}"
        )
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise BlobStoreError(f"cannot open blob store {url!r}: write file:///absolute/path")
        return LocalBlobStore(Path(unquote(parts.path)), options=options)
    return open_cloud_store(url, options=options)


def replicated(stores: Sequence[BlobStore]) -> BlobStore:
    """Return a store that keeps every object in each of ``stores``."""
    if not stores:
        raise BlobStoreError("a replicated blob store needs at least one place")
    return stores[0] if len(stores) == 1 else _ReplicatedBlobStore(stores)


def check_name(url: str, name: str) -> None:
    """Raise ``BlobStoreError`` unless ``name`` is relative and the same in every kind of store."""
    if not _NAME.fullmatch(name):
        raise BlobStoreError(f"{name!r} is not a name for an object of {url}")


class _ReplicatedBlobStore:
    """Writes need every place; reads take the first that answers.

    Who can tell good contents from bad goes through ``replicas()`` instead.
    """

    def __init__(self, stores: Sequence[BlobStore]) -> None:
        self._stores = tuple(stores)

    @property
    def url(self) -> str:
        return ",".join(store.url for store in self._stores)

    def replicas(self) -> Sequence[BlobStore]:
        return self._stores

    async def put_if_absent(self, name: str, source: bytes | Path) -> None:
        # All of them, even if one fails: what is written is an orphan then, and swept.
        outcomes = await asyncio.gather(
            *(store.put_if_absent(name, source) for store in self._stores), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def get(self, name: str) -> bytes:
        for store in self._stores[:-1]:
            try:
                return await store.get(name)
            except BlobStoreError:
                continue
        return await self._stores[-1].get(name)

    async def get_to_file(self, name: str, target: Path) -> None:
        for store in self._stores[:-1]:
            try:
                return await store.get_to_file(name, target)
            except BlobStoreError:
                continue
        return await self._stores[-1].get_to_file(name, target)

    async def size(self, name: str) -> int | None:
        sizes = {await store.size(name) for store in self._stores}
        return sizes.pop() if len(sizes) == 1 else None

    async def list(self, prefix: str) -> list[BlobInfo]:
        """Return what any place has: a deletion must find what only one of them holds."""
        found: dict[str, BlobInfo] = {}
        for store in self._stores:
            for blob in await store.list(prefix):
                known = found.get(blob.name)
                # The youngest, so that no grace period ends early.
                if known is None or known.modified_ms < blob.modified_ms:
                    found[blob.name] = blob
        return [found[name] for name in sorted(found)]

    async def delete(self, names: Sequence[str]) -> None:
        for store in self._stores:
            await store.delete(names)
