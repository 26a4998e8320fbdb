from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from riverrun.engine.errors import TopologyError
from riverrun.operators.map_async import MapAsync, Retry


def logic(function: Any, *, timeout_ms: int = 1000, retry: Retry | None = None) -> Any:
    operator = MapAsync(
        function,
        in_flight=7,
        ordered="stream",
        timeout_ms=timeout_ms,
        retry=retry or Retry(attempts=1),
    )
    return operator.build(cast("Any", None))


async def test_the_result_is_what_the_function_returns() -> None:
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    built = logic(double)
    assert await built.call(4) == 8
    assert (built.in_flight_max, built.ordered) == (7, "stream")


async def test_a_failed_call_is_repeated() -> None:
    calls: list[int] = []

    async def third_time_lucky(n: int) -> str:
        calls.append(n)
        if len(calls) < 3:
            raise ConnectionError("gone")
        return "back"

    built = logic(third_time_lucky, retry=Retry(attempts=3, backoff=1))
    assert await built.call(5) == "back"
    assert calls == [5, 5, 5]


async def test_the_last_error_is_told() -> None:
    calls: list[int] = []

    async def never(n: int) -> None:
        calls.append(n)
        raise ConnectionError(f"attempt {len(calls)}")

    with pytest.raises(ConnectionError, match="attempt 2"):
        await logic(never, retry=Retry(attempts=2, backoff=0)).call(1)


async def test_errors_that_are_not_listed_are_not_repeated() -> None:
    calls: list[int] = []

    async def wrong(n: int) -> None:
        calls.append(n)
        raise ValueError("wrong for good")

    retry = Retry(attempts=5, backoff=0, on=(ConnectionError,))
    with pytest.raises(ValueError, match="wrong for good"):
        await logic(wrong, retry=retry).call(1)
    assert calls == [1]


async def test_a_call_that_hangs_is_ended_and_repeated() -> None:
    calls: list[int] = []

    async def hangs_once(n: int) -> str:
        calls.append(n)
        if len(calls) == 1:
            await asyncio.sleep(60)
        return "done"

    assert (
        await logic(hangs_once, timeout_ms=5, retry=Retry(attempts=2, backoff=0)).call(1) == "done"
    )
    with pytest.raises(TimeoutError, match="no result within 5 ms"):
        await logic(lambda _: asyncio.sleep(60), timeout_ms=5).call(1)


async def test_a_time_out_of_the_function_itself_is_told_as_it_is() -> None:
    async def times_out(n: int) -> None:
        raise TimeoutError("the database")

    with pytest.raises(TimeoutError, match="the database"):
        await logic(times_out).call(1)


async def test_a_cancelled_call_is_not_repeated() -> None:
    calls: list[int] = []

    async def hangs(n: int) -> None:
        calls.append(n)
        await asyncio.sleep(60)

    task = asyncio.create_task(logic(hangs, retry=Retry(attempts=9, backoff=0)).call(1))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == [1]


def test_waits_double_up_to_a_bound() -> None:
    retry = Retry(attempts=9, backoff="100ms", backoff_max="500ms")
    assert [retry.wait_ms(n) for n in (1, 2, 3, 4, 1000)] == [100, 200, 400, 500, 500]


@pytest.mark.parametrize("attempts", [0, -1, 1.5])
def test_no_attempts_are_refused(attempts: Any) -> None:
    with pytest.raises(TopologyError, match="at least 1"):
        Retry(attempts=attempts)
