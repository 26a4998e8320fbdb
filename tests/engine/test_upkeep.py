"""What is done to a store beside processing: when, whose error it is, and that close waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from riverrun.engine.upkeep import Upkeep
from riverrun.state import Delta, MemoryStore, OverlayLimits, OverlayStore, StateDirectoryFullError
from riverrun.state.unhurried import no_rest

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.state.unhurried import Rest


class Thread:
    """Runs what it is given when the test says so."""

    def __init__(self) -> None:
        self.may_go = asyncio.Event()
        self.calls = 0

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        self.calls += 1
        await self.may_go.wait()
        return function(*args)


class FullStore(MemoryStore):
    """Has no room."""

    def apply(self, delta: Delta, meta: bytes, rest: Rest = no_rest) -> None:
        raise StateDirectoryFullError("full")


def overlay(base: MemoryStore) -> OverlayStore:
    return OverlayStore(base, limits=OverlayLimits(rows=2))


def commit(store: OverlayStore, upkeep: Upkeep, *keys: bytes) -> None:
    store.apply(Delta(dict.fromkeys(keys, b"")), b"m")
    upkeep.after_apply(store)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_epochs_go_on_while_one_drain_is_under_way() -> None:
    thread, base = Thread(), MemoryStore()
    store, upkeep = overlay(base), Upkeep(thread.run)

    commit(store, upkeep, b"a")
    await turns()
    assert thread.calls == 0
    for key in (b"b", b"c"):
        commit(store, upkeep, key)
        await turns()
    assert (thread.calls, base.get_many([b"a"])) == (1, [None])

    thread.may_go.set()
    await turns()
    assert base.get_many([b"a", b"b", b"c"]) == [b""] * 3


async def test_a_drain_that_failed_is_told_after_the_next_epoch() -> None:
    thread = Thread()
    thread.may_go.set()
    store, upkeep = overlay(FullStore()), Upkeep(thread.run)
    commit(store, upkeep, b"a", b"b")
    await turns()

    with pytest.raises(StateDirectoryFullError):
        commit(store, upkeep)
    assert store.get_many([b"a"]) == [b""]


async def test_close_waits_for_a_call_that_was_given_up() -> None:
    thread = Thread()
    upkeep = Upkeep(thread.run)
    done: list[str] = []
    caller = asyncio.create_task(upkeep.calls(done.append, "call"))
    await turns()
    caller.cancel()
    closing = asyncio.create_task(upkeep.calls.settle())
    await turns()
    assert caller.cancelled()
    assert not closing.done()

    thread.may_go.set()
    await closing
    assert done == ["call"]
