from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun.state import Manifest, ManifestFile, SnapshotCorruptError, StateError, TaskIdentity
from riverrun.state.manifest import _seal, decode_manifest, encode_manifest, is_snapshot_id

TASK = TaskIdentity("job", "count-by", 3)
OWNER = (7, 2)


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "snapshot_id": TASK.new_snapshot_id(OWNER, 5),
        "task": TASK,
        "epoch": 5,
        "owner": OWNER,
        "created_ms": 1,
        "changelog_offset": 9,
        "commit_record": b"\x00\xff",
        "previous": None,
        "files": (ManifestFile("CURRENT", TASK.new_object(OWNER, 5), 3, "0" * 64),),
    }
    return Manifest(**fields | changes)


@given(st.binary(), st.integers(0, 2**62))
def test_manifest_survives_json(commit_record: bytes, epoch: int) -> None:
    written = manifest(commit_record=commit_record, epoch=epoch)
    assert decode_manifest(written.snapshot_id, encode_manifest(written)) == written


def file(**changes: Any) -> tuple[ManifestFile, ...]:
    return (msgspec.structs.replace(manifest().files[0], **changes),)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"files": ()},
        {"files": manifest().files * 2},
        {"files": file(name="../CURRENT")},
        {"files": file(name="/etc/passwd")},
        {"files": file(name=".hidden")},
        {"files": file(name="a/b")},
        {"files": file(name="")},
        {"files": file(size=-1)},
        {"files": file(sha256="00")},
        {"files": file(object="job/other-1/objects/7.2-5-" + "0" * 32)},
        {"files": file(object="job/count-by-3/manifests/x.json")},
        {"previous": "job/other-1/manifests/" + "0" * 20 + "-7.2-" + "0" * 32 + ".json"},
        {"task": TaskIdentity("job", "count-by", 4)},
    ],
    ids=str,
)
def test_manifest_that_makes_no_sense_is_neither_written_nor_read(changes: dict[str, Any]) -> None:
    bad = manifest(**changes)
    with pytest.raises(SnapshotCorruptError, match=bad.snapshot_id):
        encode_manifest(bad)
    with pytest.raises(SnapshotCorruptError, match="damaged"):
        decode_manifest(bad.snapshot_id, _seal(msgspec.json.encode(bad)))


def test_manifest_under_another_name_is_refused() -> None:
    with pytest.raises(SnapshotCorruptError, match="it says it is"):
        decode_manifest(TASK.new_snapshot_id(OWNER, 5), encode_manifest(manifest()))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_manifest(content: bytes) -> None:
    with pytest.raises(SnapshotCorruptError):
        decode_manifest(TASK.new_snapshot_id(OWNER, 5), content)


def test_every_flipped_bit_is_noticed() -> None:
    written = manifest()
    content = encode_manifest(written)
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1
        try:
            decoded = decode_manifest(written.snapshot_id, bytes(flipped))
        except SnapshotCorruptError:
            continue
        assert decoded == written


@pytest.mark.parametrize("field", ["epoch", "files", "task", "owner"])
def test_missing_fields_are_noticed(field: str) -> None:
    written = manifest()
    fields = json.loads(encode_manifest(written))["manifest"]
    del fields[field]
    with pytest.raises(SnapshotCorruptError):
        decode_manifest(written.snapshot_id, _seal(json.dumps(fields).encode()))


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "a b"])
def test_names_that_cannot_be_in_an_object_name_are_refused(name: str) -> None:
    with pytest.raises(StateError, match="object name"):
        TaskIdentity(name, "s", 0)
    with pytest.raises(StateError, match="object name"):
        TaskIdentity("j", name, 0)
    with pytest.raises(StateError, match="negative"):
        TaskIdentity("j", "s", -1)


def test_names_are_new_each_time_and_recognised() -> None:
    assert TASK.new_object(OWNER, 5) != TASK.new_object(OWNER, 5)
    assert TASK.owns_object(TASK.new_object((-1, -1), 5))
    assert TASK.owns_snapshot(TASK.new_snapshot_id(OWNER, 5))
    assert is_snapshot_id(TASK.new_snapshot_id(OWNER, 5))
    assert not is_snapshot_id(TASK.new_object(OWNER, 5))
    assert not TASK.owns_object(TaskIdentity("job", "count-by", 33).new_object(OWNER, 5))
    assert TASK.new_snapshot_id(OWNER, 9) < TASK.new_snapshot_id(OWNER, 10)
