"""Map async: other values for the same records, from calls that wait.

State      none; calls in flight are finished before a barrier passes
Watermark  held until the calls before it are done
Order      kept per key, or for all records
Emits      one record per record
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from riverrun.engine.errors import TopologyError

from .durations import Duration, duration_ms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from riverrun.engine.operator import AsyncLogic, OperatorContext

Ordered = Literal["key", "stream"]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed call is repeated, and after what wait.

    The waits are fixed, doubling from ``backoff`` to ``backoff_max``, so that a test knows them.

    Args:
        attempts: Calls at most, the first one included.
        backoff: Wait after the first failure.
        backoff_max: Longest wait.
        on: Errors after which it is repeated; others fail at once. A time-out is a TimeoutError.

    Raises:
        TopologyError: If a number makes no sense.

    Example:
        >>> [Retry(attempts=5, backoff="100ms", backoff_max="1s").wait_ms(n) for n in (1, 2, 3, 9)]
        [100, 200, 400, 1000]
    """

    attempts: int = 3
    backoff: Duration = "200ms"
    backoff_max: Duration = "10s"
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        """Reject what makes no sense."""
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise TopologyError(f"Retry(attempts={self.attempts!r}): at least 1, the first call")
        duration_ms(self.backoff, "backoff of Retry")
        duration_ms(self.backoff_max, "backoff_max of Retry")

    def wait_ms(self, failures: int) -> int:
        """Return how long to wait after so many failures."""
        # The exponent is bounded: 2**63 ms would do for any wait.
        doubled = duration_ms(self.backoff) * 2 ** min(failures - 1, 62)
        return min(doubled, duration_ms(self.backoff_max))


@dataclass(frozen=True, slots=True)
class MapAsync:
    """Give each record the value that a coroutine function returns.

    Args:
        function: Called with the value.
        in_flight: How many calls run at once in one task.
        ordered: What keeps its order.
        timeout_ms: How long one attempt may take.
        retry: How failed attempts are repeated.

    Raises:
        TopologyError: If a number makes no sense.
    """

    function: Callable[[Any], Awaitable[Any]]
    in_flight: int
    ordered: Ordered
    timeout_ms: int
    retry: Retry

    def __post_init__(self) -> None:
        """Reject what makes no sense."""
        if not isinstance(self.in_flight, int) or self.in_flight < 1:
            raise TopologyError(f"map_async: in_flight={self.in_flight!r} must be at least 1")
        if self.ordered not in get_args(Ordered):
            raise TopologyError(f"map_async: ordered={self.ordered!r} is not one of key, stream")
        if not isinstance(self.retry, Retry):
            raise TopologyError(f"map_async: retry={self.retry!r} is not a Retry(...)")

    def build(self, context: OperatorContext) -> AsyncLogic:
        """Return the logic for one task."""
        del context
        return _MapAsyncLogic(self)


class _MapAsyncLogic:
    def __init__(self, config: MapAsync) -> None:
        self._config = config

    @property
    def in_flight_max(self) -> int:
        return self._config.in_flight

    @property
    def ordered(self) -> Ordered:
        return self._config.ordered

    async def call(self, value: Any) -> Any:
        config = self._config
        for failures in range(1, config.retry.attempts):
            try:
                return await self._attempt(value)
            except config.retry.on:
                await asyncio.sleep(config.retry.wait_ms(failures) / 1000)
        return await self._attempt(value)

    async def _attempt(self, value: Any) -> Any:
        deadline = asyncio.timeout(self._config.timeout_ms / 1000)
        try:
            async with deadline:
                return await self._config.function(value)
        except TimeoutError as error:
            # The function may raise a TimeoutError of its own, which is told as it is.
            if deadline.expired():
                raise TimeoutError(f"no result within {self._config.timeout_ms} ms") from error
            raise
