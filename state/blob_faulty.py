"""A blob store that goes wrong when told to, for tests and simulation."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from .errors import BlobStoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .blob import BlobInfo, BlobStore


class Fault(Enum):
    """What happens to an operation."""

    FAIL = "nothing is done, and an error raised"
    LOSE_ANSWER = "it is done, and an error raised all the same"
    TRUNCATE = "the contents lose their second half"
    CORRUPT = "one byte of the contents is another"


class FaultyBlobStore:
    """Wraps ``inner``; ``faults`` says what befalls the n-th operation of a kind, from 0.

    Kinds are ``put``, ``get`` (to file or not), ``size``, ``list`` and ``delete``. After each
    operation ``done`` holds one more ``(kind, name)``.
    """

    def __init__(self, inner: BlobStore, faults: Mapping[tuple[str, int], Fault]) -> None:
        self._inner = inner
        self._faults = dict(faults)
        self._counts: dict[str, int] = {}
        self.done: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """Where the inner store is."""
        return self._inner.url

    def replicas(self) -> Sequence[FaultyBlobStore]:
        """Return itself: faults do not reach into a replicated store, wrap its places instead."""
        return (self,)

    async def put_if_absent(self, name: str, source: bytes | Path) -> None:
        """Write an object, or something else."""
        fault = self._before("put", name)
        if fault in (Fault.TRUNCATE, Fault.CORRUPT):
            content = source if isinstance(source, bytes) else source.read_bytes()
            source = _spoiled(content, fault)
        await self._inner.put_if_absent(name, source)
        self._after(fault, name)

    async def get(self, name: str) -> bytes:
        """Return an object, or something else."""
        fault = self._before("get", name)
        content = await self._inner.get(name)
        self._after(fault, name)
        return _spoiled(content, fault)

    async def get_to_file(self, name: str, target: Path) -> None:
        """Write an object, or something else, to ``target``."""
        fault = self._before("get", name)
        await self._inner.get_to_file(name, target)
        if fault in (Fault.TRUNCATE, Fault.CORRUPT):
            target.write_bytes(_spoiled(target.read_bytes(), fault))
        self._after(fault, name)

    async def size(self, name: str) -> int | None:
        """Return the size of an object."""
        fault = self._before("size", name)
        size = await self._inner.size(name)
        self._after(fault, name)
        return size

    async def list(self, prefix: str) -> list[BlobInfo]:
        """Return the objects below ``prefix``."""
        fault = self._before("list", prefix)
        found = await self._inner.list(prefix)
        self._after(fault, prefix)
        return found[: len(found) // 2] if fault is Fault.TRUNCATE else found

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects."""
        fault = self._before("delete", ",".join(names))
        await self._inner.delete(names)
        self._after(fault, ",".join(names))

    def _before(self, kind: str, name: str) -> Fault | None:
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        self.done.append((kind, name))
        fault = self._faults.get((kind, number))
        if fault is Fault.FAIL:
            raise BlobStoreError(f"cannot {kind} {name!r} in {self.url}: told to fail")
        return fault

    def _after(self, fault: Fault | None, name: str) -> None:
        if fault is Fault.LOSE_ANSWER:
            raise BlobStoreError(f"no answer for {name!r} from {self.url}: told to lose it")


def _spoiled(content: bytes, fault: Fault | None) -> bytes:
    if fault is Fault.TRUNCATE:
        return content[: len(content) // 2]
    if fault is Fault.CORRUPT and content:
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    return content
