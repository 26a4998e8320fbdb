"""Objects as files of a directory: a disk, or a network file system such as NFS or HDFS by FUSE."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from .blob import BlobInfo, BlobOptions, check_name
from .errors import BlobExistsError, BlobMissingError, BlobStoreError
from .files import make_directories, sync_directory, sync_file
from .unhurried import copy_steps, unhurried

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

PARTIAL_SUFFIX = ".partial"
"""Of files on their way in. After a crash they stay, are listed, and are swept as orphans."""


class LocalBlobStore:
    """A ``file://`` store. File and directory are synced before a write returns.

    All disk work happens on threads. A thread that hangs (a dead NFS server) is given up at the
    deadline; what it was doing may still happen later, which write-once names make harmless.
    Files are taken in one after the other and without haste, so that processing does not feel it.
    """

    def __init__(self, root: Path, *, options: BlobOptions | None = None) -> None:
        self._root = root
        self._options = options or BlobOptions()
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._root.absolute().as_uri()

    def replicas(self) -> Sequence[LocalBlobStore]:
        """Return itself."""
        return (self,)

    async def put_if_absent(self, name: str, source: bytes | Path) -> None:
        """Write an object, durably; see ``BlobStore``."""
        path, size = self._path(name), await _source_size(source)
        if isinstance(source, bytes):
            async with self._named("write", name, size):
                await unhurried(self._put(path, source))
            return
        # Waiting in line is no matter of the storage: the deadline begins after it.
        async with self._turn, self._named("write", name, size):
            await unhurried(self._put(path, source))

    async def get(self, name: str) -> bytes:
        """Return a whole object."""
        async with self._named("read", name):
            return await asyncio.to_thread(self._path(name).read_bytes)

    async def get_to_file(self, name: str, target: Path) -> None:
        """Copy an object to ``target``."""
        size = await self.size(name)
        async with self._named("read", name, size or 0):
            await asyncio.to_thread(shutil.copyfile, self._path(name), target)

    async def size(self, name: str) -> int | None:
        """Return the size of an object, None if there is none."""
        try:
            async with self._named("look up", name):
                return (await asyncio.to_thread(self._path(name).stat)).st_size
        except BlobMissingError:
            return None

    async def list(self, prefix: str) -> list[BlobInfo]:
        """Return the objects below ``prefix``, by name."""
        async with self._named("list", prefix):
            return await asyncio.to_thread(self._list, self._path(prefix) if prefix else self._root)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects, if they are there."""
        for name in names:
            async with self._named("delete", name):
                await asyncio.to_thread(self._path(name).unlink, missing_ok=True)

    def _path(self, name: str) -> Path:
        check_name(self.url, name)
        return self._root / name

    @staticmethod
    def _put(path: Path, source: bytes | Path) -> Iterator[None]:
        make_directories(path.parent)
        partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL_SUFFIX}")
        try:
            if isinstance(source, bytes):
                partial.write_bytes(source)
            else:
                # A copy, not a link: damage to one must not be damage to the other.
                yield from copy_steps(source, partial)
            sync_file(partial)
            # Unlike a rename, a link fails if the name is taken.
            os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        sync_directory(path.parent)

    def _list(self, top: Path) -> list[BlobInfo]:
        found: list[BlobInfo] = []
        for parent, _, names in os.walk(top):
            for name in names:
                path = Path(parent) / name
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                found.append(
                    BlobInfo(
                        name=path.relative_to(self._root).as_posix(),
                        size=status.st_size,
                        modified_ms=status.st_mtime_ns // 1_000_000,
                    )
                )
        return sorted(found, key=lambda blob: blob.name)

    @asynccontextmanager
    async def _named(self, doing: str, name: str, size: int = 0) -> AsyncGenerator[None]:
        """Bound what happens inside in time, and name what goes wrong."""
        try:
            async with asyncio.timeout(self._options.upload_seconds(size)):
                yield
        except TimeoutError as error:
            raise BlobStoreError(
                f"cannot {doing} {name!r} in {self.url}: no answer within "
                f"{self._options.upload_seconds(size):.0f} s"
            ) from error
        except FileExistsError as error:
            raise BlobExistsError(f"{name!r} exists already in {self.url}") from error
        except FileNotFoundError as error:
            raise BlobMissingError(f"there is no {name!r} in {self.url}") from error
        except OSError as error:
            raise BlobStoreError(f"cannot {doing} {name!r} in {self.url}: {error}") from error


async def _source_size(source: bytes | Path) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        return (await asyncio.to_thread(source.stat)).st_size
    except OSError as error:
        raise BlobStoreError(f"cannot read {source} to upload it: {error}") from error
