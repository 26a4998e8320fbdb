from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun.state.files import make_directories, write_durably

if TYPE_CHECKING:
    from pathlib import Path


def test_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"first, and long")
    write_durably(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_durably(tmp_path / "file", b"first")

    def fail(path: Path) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr("riverrun.state.files.sync_file", fail)
    with pytest.raises(OSError, match="disk gone"):
        write_durably(tmp_path / "file", b"second")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    make_directories(tmp_path / "a" / "b")
    make_directories(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
