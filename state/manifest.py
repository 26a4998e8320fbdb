"""The manifest of a snapshot: which files it is made of, where they are, and whose they are.

Names of objects, below the URL of the blob store:

    JOB/SUBTOPOLOGY-PARTITION/objects/PRODUCER.PRODUCER_EPOCH-EPOCH-UUID
    JOB/SUBTOPOLOGY-PARTITION/manifests/EPOCH-PRODUCER.PRODUCER_EPOCH-UUID.json

An object is never named after a RocksDB file: two owners who resume from one snapshot both write a
``000017.sst``, with different contents.
"""

from __future__ import annotations

import hashlib
import re
from uuid import uuid4

import msgspec

from .errors import SnapshotCorruptError, StateError

FORMAT_VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OBJECT = re.compile(r"-?[0-9]+\.-?[0-9]+-[0-9]+-[0-9a-f]{32}")
_MANIFEST = re.compile(r"[0-9]{20}--?[0-9]+\.-?[0-9]+-[0-9a-f]{32}\.json")
_SNAPSHOT_ID = re.compile(r"[^/]+/[^/]+/manifests/[^/]+\.json")

Owner = tuple[int, int]
"""``(producer id, producer epoch)``: what the log fences by."""


class TaskIdentity(msgspec.Struct, frozen=True):
    """Whose state it is.

    Raises:
        StateError: A name does not fit into the name of an object.
    """

    job: str
    subtopology: str
    partition: int

    def __post_init__(self) -> None:
        """Check the names."""
        for name in (self.job, self.subtopology):
            if not _NAME.fullmatch(name):
                raise StateError(
                    f"{name!r} cannot be part of an object name; use letters, digits, '.', '_', '-'"
                )
        if self.partition < 0:
            raise StateError(f"partition {self.partition} is negative")

    @property
    def prefix(self) -> str:
        """What the names of all its objects begin with, before a slash."""
        return f"{self.job}/{self.subtopology}-{self.partition}"

    def new_object(self, owner: Owner, epoch: int) -> str:
        """Return a name that nobody ever had or will have."""
        return f"{self.prefix}/objects/{owner[0]}.{owner[1]}-{epoch}-{uuid4().hex}"

    def new_snapshot_id(self, owner: Owner, epoch: int) -> str:
        """Return a name for a manifest; names sort by epoch."""
        return f"{self.prefix}/manifests/{epoch:020d}-{owner[0]}.{owner[1]}-{uuid4().hex}.json"

    def owns_object(self, name: str) -> bool:
        """Return whether ``name`` is one that ``new_object`` could have returned."""
        head, _, tail = name.rpartition("/")
        return head == f"{self.prefix}/objects" and bool(_OBJECT.fullmatch(tail))

    def owns_snapshot(self, name: str) -> bool:
        """Return whether ``name`` is one that ``new_snapshot_id`` could have returned."""
        head, _, tail = name.rpartition("/")
        return head == f"{self.prefix}/manifests" and bool(_MANIFEST.fullmatch(tail))


class ManifestFile(msgspec.Struct, frozen=True):
    """One file of the store's directory.

    Attributes:
        name: File name within the directory.
        object: Name of the object with its contents.
        size: Bytes.
        sha256: Of the contents, in hex.
    """

    name: str
    object: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one snapshot.

    Attributes:
        snapshot_id: Name of the manifest object itself.
        task: Whose state it is.
        epoch: The epoch that the state equals.
        owner: Who wrote it.
        created_ms: When, by the owner's clock; for people.
        changelog_offset: Where replay starts.
        commit_record: The commit record of ``epoch``, as the engine encodes it.
        previous: The committed snapshot before it; with it, the committed ones form a chain.
        files: The files, by name.
    """

    version: int = FORMAT_VERSION
    snapshot_id: str
    task: TaskIdentity
    epoch: int
    owner: Owner
    created_ms: int
    changelog_offset: int
    commit_record: bytes
    previous: str | None
    files: tuple[ManifestFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class _Sealed(msgspec.Struct, frozen=True):
    """What is stored: a flipped bit in an offset would make a manifest that is wrong and whole."""

    manifest: msgspec.Raw
    sha256: str


def _seal(manifest: bytes) -> bytes:
    digest = hashlib.sha256(manifest).hexdigest()
    return msgspec.json.encode(_Sealed(manifest=msgspec.Raw(manifest), sha256=digest))


def encode_manifest(manifest: Manifest) -> bytes:
    """Return ``manifest`` as JSON, having checked it as ``decode_manifest`` will."""
    content = _seal(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    decode_manifest(manifest.snapshot_id, content)
    return content


def decode_manifest(snapshot_id: str, content: bytes) -> Manifest:
    """Return the manifest that was found under ``snapshot_id``.

    Raises:
        SnapshotCorruptError: It is not what ``encode_manifest`` wrote under this name.
    """
    try:
        sealed = msgspec.json.decode(content, type=_Sealed)
        manifest = msgspec.json.decode(sealed.manifest, type=Manifest)
        fault = _fault(manifest, snapshot_id)
        if sealed.sha256 != hashlib.sha256(sealed.manifest).hexdigest():
            fault = "its SHA-256 does not match"
    except (msgspec.MsgspecError, StateError, UnicodeDecodeError, RecursionError) as error:
        fault = str(error)
        manifest = None
    if manifest is None or fault is not None:
        raise SnapshotCorruptError(
            f"manifest {snapshot_id!r} is damaged or of a newer version: {fault}. Restore from an "
            "earlier snapshot, or use the version that wrote it."
        )
    return manifest


def is_snapshot_id(name: str) -> bool:
    """Return whether ``name`` looks like that of a manifest, of whichever task."""
    return bool(_SNAPSHOT_ID.fullmatch(name)) and bool(_MANIFEST.fullmatch(name.rpartition("/")[2]))


def _fault(manifest: Manifest, snapshot_id: str) -> str | None:
    """Return what is wrong with ``manifest``, None if nothing is."""
    if manifest.version != FORMAT_VERSION:
        return f"format version {manifest.version}, not {FORMAT_VERSION}"
    if manifest.snapshot_id != snapshot_id or not manifest.task.owns_snapshot(snapshot_id):
        return f"it says it is {manifest.snapshot_id!r} of {manifest.task.prefix!r}"
    if manifest.previous is not None and not manifest.task.owns_snapshot(manifest.previous):
        return f"its predecessor {manifest.previous!r} is none of this task"
    if not manifest.files:
        return "it has no files"
    if len({file.name for file in manifest.files}) != len(manifest.files):
        return "a file is in it twice"
    for file in manifest.files:
        # No separators, no leading dot: it cannot lead out of the directory it is restored to.
        if not _NAME.fullmatch(file.name):
            return f"file name {file.name!r}"
        if not manifest.task.owns_object(file.object):
            return f"object {file.object!r} is none of this task"
        if file.size < 0 or not _SHA256.fullmatch(file.sha256):
            return f"size or digest of {file.name!r}"
    return None
