"""Snapshots in storage, as tables and as JSON."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import msgspec

from riverrun.engine.changelog import decode_commit
from riverrun.engine.errors import RiverrunError
from riverrun.state import (
    Manifest,
    SnapshotCorruptError,
    SnapshotMissingError,
    list_snapshots,
    load_manifest,
    verify_snapshot,
)

from .command import EXIT_FAILED, EXIT_OK, CommandFailedError, UsageError, print_note
from .modules import load_plan, looks_like_module
from .progress import size_text
from .runtime import open_snapshots

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from riverrun.state import BlobStore

    # {task: ids of its snapshots, oldest first}
    SnapshotIds = Mapping[str, Sequence[str]]


async def run_action(arguments: argparse.Namespace) -> int:
    """Do what ``riverrun checkpoints`` was asked to; return the exit code.

    Raises:
        CommandFailedError: If there is no snapshot of the job or task.
        StateError: If the storage fails.
    """
    blobs = open_snapshots(arguments.snapshots)
    assert blobs is not None
    found = await _find(blobs, arguments)
    if arguments.action == "list":
        return await _list(blobs, found, as_json=arguments.json)
    chosen = [i for ids in found.values() for i in (ids if arguments.all else ids[-1:])]
    if arguments.action == "show":
        return await _show(blobs, chosen, as_json=arguments.json)
    return await _verify(blobs, chosen, as_json=arguments.json)


async def _find(blobs: BlobStore, arguments: argparse.Namespace) -> SnapshotIds:
    """Return the snapshots of the job, as a job or else as the module of that name."""
    target: str = arguments.job
    job = target
    ids = [] if looks_like_module(target) else await _ids(blobs, target)
    if not ids:
        try:
            job = load_plan(target, current_directory="first").job
        except UsageError:
            if looks_like_module(target):
                raise
            # Neither a job with snapshots nor a module: most likely a job without.
        else:
            ids = await _ids(blobs, job)
    found: dict[str, list[str]] = {}
    for snapshot_id in ids:
        task = snapshot_id.split("/")[1]
        if arguments.task in (None, task):
            found.setdefault(task, []).append(snapshot_id)
    if not found:
        which = f"task {arguments.task} of job" if arguments.task and ids else "job"
        raise CommandFailedError(
            f"there is no snapshot of {which} {job!r} in {blobs.url}; snapshots are made by "
            "`riverrun worker --snapshots URL`, the first one after --snapshot-interval"
        )
    return found


async def _ids(blobs: BlobStore, job: str) -> list[str]:
    return [blob.name for blob in await list_snapshots(blobs, job)]


# --- list ----------------------------------------------------------------------------------------


async def _list(blobs: BlobStore, found: SnapshotIds, *, as_json: bool) -> int:
    rows: list[dict[str, Any]] = []
    unreadable = False
    for task, ids in found.items():
        for snapshot_id in ids:
            try:
                manifest = await load_manifest(blobs, snapshot_id)
            except (SnapshotCorruptError, SnapshotMissingError) as error:
                # One that was collected meanwhile is missing; one that is damaged is told.
                unreadable = unreadable or isinstance(error, SnapshotCorruptError)
                print_note(str(error))
                continue
            rows.append(_summary(task, manifest))
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        headings = ("TASK", "EPOCH", "CREATED", "FILES", "SIZE", "SNAPSHOT")
        cells = [
            (
                row["task"],
                str(row["epoch"]),
                row["created"],
                str(row["files"]),
                size_text(row["size_bytes"]),
                row["snapshot_id"],
            )
            for row in rows
        ]
        print(table_text(headings, cells))
    return EXIT_FAILED if unreadable else EXIT_OK


def _summary(task: str, manifest: Manifest) -> dict[str, Any]:
    created = dt.datetime.fromtimestamp(manifest.created_ms / 1000, dt.UTC)
    return {
        "task": task,
        "epoch": manifest.epoch,
        "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "snapshot_id": manifest.snapshot_id,
    }


def table_text(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with columns as wide as their contents.

    Example:
        >>> print(table_text(("A", "B"), [("x", "1"), ("longer", "2")]))
        A       B
        x       1
        longer  2
    """
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


# --- show ----------------------------------------------------------------------------------------


async def _show(blobs: BlobStore, ids: Sequence[str], *, as_json: bool) -> int:
    details = [_detail(await load_manifest(blobs, snapshot_id)) for snapshot_id in ids]
    if as_json:
        print(json.dumps(details, indent=2))
    else:
        print("\n\n".join(map(_detail_text, details)))
    return EXIT_OK


def _detail(manifest: Manifest) -> dict[str, Any]:
    task = f"{manifest.task.subtopology}-{manifest.task.partition}"
    try:
        commit = decode_commit(manifest.commit_record)
        positions = [msgspec.structs.asdict(position) for position in commit.positions]
    except RiverrunError as error:
        print_note(f"{manifest.snapshot_id}: {error}")
        positions = []
    return {
        **_summary(task, manifest),
        "job": manifest.task.job,
        "owner": f"{manifest.owner[0]}.{manifest.owner[1]}",
        "previous": manifest.previous,
        "changelog_offset": manifest.changelog_offset,
        "positions": positions,
        "content": [
            {"name": file.name, "size_bytes": file.size, "sha256": file.sha256}
            for file in manifest.files
        ],
    }


def _detail_text(detail: Mapping[str, Any]) -> str:
    lines = [
        f"snapshot   {detail['snapshot_id']}",
        f"job, task  {detail['job']}, {detail['task']}",
        f"epoch      {detail['epoch']}, created {detail['created']} by producer {detail['owner']}",
        f"replay     from changelog offset {detail['changelog_offset']}",
        f"previous   {detail['previous'] or 'none'}",
    ]
    lines += [
        f"position   {each['topic']}/{each['partition']} at offset {each['offset']}"
        for each in detail["positions"]
    ]
    rows = [
        (file["name"], size_text(file["size_bytes"]), file["sha256"]) for file in detail["content"]
    ]
    return "\n".join(lines) + "\n" + table_text(("FILE", "SIZE", "SHA-256"), rows)


# --- verify --------------------------------------------------------------------------------------


async def _verify(blobs: BlobStore, ids: Sequence[str], *, as_json: bool) -> int:
    results: list[dict[str, Any]] = []
    for number, snapshot_id in enumerate(ids, start=1):
        if not as_json:
            print(f"[{number}/{len(ids)}] {snapshot_id}: ", end="", flush=True)
        problems = await verify_snapshot(blobs, snapshot_id)
        results.append({"snapshot_id": snapshot_id, "problems": problems})
        if not as_json:
            print("whole" if not problems else f"{len(problems)} problems")
            for problem in problems:
                print(f"  {problem}")
    if as_json:
        print(json.dumps(results, indent=2))
    return EXIT_FAILED if any(each["problems"] for each in results) else EXIT_OK
