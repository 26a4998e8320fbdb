from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from riverrun.state import (
    StateDirectory,
    StateDirectoryFullError,
    StateDirectoryInUseError,
    StateError,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_directory_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    with StateDirectory(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o755)
    with StateDirectory(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    with (
        StateDirectory(tmp_path),
        pytest.raises(StateDirectoryInUseError, match=f"process {os.getpid()}"),
    ):
        StateDirectory(tmp_path)
    StateDirectory(tmp_path).close()


def test_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from riverrun.state import StateDirectory\n"
        "StateDirectory(Path(sys.argv[1])); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    StateDirectory(tmp_path).close()


def test_instance_id_survives_restarts(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "a") as first:
        name = first.instance_id
    with StateDirectory(tmp_path / "a") as again, StateDirectory(tmp_path / "b") as other:
        assert again.instance_id == name
        assert other.instance_id != name


def test_damaged_instance_id_is_named_and_the_lock_released(tmp_path: Path) -> None:
    (tmp_path / "instance_id").write_text("who knows")
    with pytest.raises(StateError, match="Delete the file"):
        StateDirectory(tmp_path)
    (tmp_path / "instance_id").unlink()
    StateDirectory(tmp_path).close()


def test_tasks_lists_what_is_held_with_its_size(tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as directory:
        for job, subtopology, partition in (("job", "count-by", 11), ("job", "join", 2)):
            store = directory.task_path(job, subtopology, partition)
            store.mkdir()
            (store / "file").write_bytes(b"x" * partition)
        (tmp_path / "tasks" / "job" / "what is this").mkdir()
        held = [(t.job, t.subtopology, t.partition, t.size_bytes) for t in directory.tasks()]
    assert held == [("job", "count-by", 11, 11), ("job", "join", 2, 2)]


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a\0b", ".hidden", "ü"])
def test_names_that_are_no_path_component_are_refused(tmp_path: Path, name: str) -> None:
    with StateDirectory(tmp_path) as directory:
        with pytest.raises(StateError, match="path"):
            directory.task_path(name, "s", 0)
        with pytest.raises(StateError, match="path"):
            directory.task_path("j", name, 0)


def test_discard_removes_a_store_and_only_a_store(tmp_path: Path) -> None:
    with StateDirectory(tmp_path / "state") as directory:
        store = directory.task_path("job", "s", 0)
        store.mkdir()
        (store / "file").write_bytes(b"x")
        directory.discard(store)
        directory.discard(store)
        assert not store.exists()
        assert directory.tasks() == []
        with pytest.raises(StateError, match="refusing"):
            directory.discard(tmp_path)


def test_half_deleted_stores_vanish_at_the_next_start(tmp_path: Path) -> None:
    StateDirectory(tmp_path).close()
    left = tmp_path / "trash" / "left"
    left.mkdir(parents=True)
    (left / "file").write_bytes(b"x")
    StateDirectory(tmp_path).close()
    assert not left.exists()


def test_little_space_is_an_error_that_says_how_little(tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as directory:
        directory.check_space(1)
        with pytest.raises(StateDirectoryFullError, match="bytes free"):
            directory.check_space(directory.free_bytes() + 2**50)


def test_unusable_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="cannot use state directory"):
        StateDirectory(tmp_path / "file")
