"""Errors of the state layer. Each says what, where and how to mend it."""

from __future__ import annotations


class StateError(Exception):
    """Base of everything that the state layer raises."""


class StateDirectoryInUseError(StateError):
    """Another live worker holds the lock of this state directory."""


class StateDirectoryFullError(StateError):
    """The disk under the state directory has no space left."""


class StoreCorruptError(StateError):
    """A local store cannot be opened or read. It can be rebuilt from snapshot and changelog."""


class SnapshotMissingError(StateError):
    """A snapshot or one of its objects is not in storage."""


class SnapshotCorruptError(StateError):
    """An object of a snapshot differs in size or SHA-256 from its manifest."""


class BlobStoreError(StateError):
    """Object storage did not do what was asked (unreachable, refused, timed out)."""


class BlobMissingError(BlobStoreError):
    """There is no object of this name."""


class BlobExistsError(BlobStoreError):
    """There is an object of this name already; objects are written once."""
