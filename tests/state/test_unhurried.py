from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from riverrun.state import unhurried as subject
from riverrun.state.unhurried import copy_steps, unhurried, unhurried_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZES = [0, 1, 9_999, 10_000, 10_001, 35_000]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "PIECE_BYTES", 10_000)


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_is_hashed_and_copied_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    assert await unhurried_sha256(source) == hashlib.sha256(content).hexdigest()
    await unhurried(copy_steps(source, target))
    assert target.read_bytes() == content


async def test_each_piece_is_durable_and_followed_by_a_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    async def rest(seconds: float) -> None:
        assert 0 < seconds <= subject.REST_MAX_S
        happened.append("rest")

    monkeypatch.setattr(subject, "_sync_data", lambda _: happened.append("durable"))
    monkeypatch.setattr(asyncio, "sleep", rest)
    (tmp_path / "source").write_bytes(bytes(25_000))
    await unhurried(copy_steps(tmp_path / "source", tmp_path / "target"))
    assert happened == ["durable", "rest"] * 3


async def test_what_is_cancelled_begins_no_other_step() -> None:
    begun: list[int] = []
    loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

    def steps() -> Iterator[None]:
        for number in range(1_000_000):
            begun.append(number)
            loop.call_soon_threadsafe(has_begun.set)
            yield

    task = asyncio.create_task(unhurried(steps()))
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    count = len(begun)
    await asyncio.sleep(0.05)
    assert len(begun) <= count + 1


async def test_an_error_of_a_step_is_raised(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "source").touch()
    with pytest.raises(FileExistsError):
        await unhurried(copy_steps(tmp_path / "source", tmp_path / "target"))
    with pytest.raises(FileNotFoundError):
        await unhurried_sha256(tmp_path / "nowhere")
