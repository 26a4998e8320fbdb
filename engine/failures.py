"""Records that a step cannot process: fail, skip or dead letter; never lost silently."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import RecordError
from .keys import key_to_wire

if TYPE_CHECKING:
    from .batch import Batch, RawRecords
    from .metrics import StepMetrics
    from .operator import OnError
    from .output import OutputBuffer

_log = logging.getLogger(__name__)

TRACEBACK_BYTES_MAX = 4_000
"""What a dead letter carries of a traceback: enough for the innermost frames."""


class StepFailures:
    """Carries out the error policy of one step.

    Args:
        step: Name of the step, for messages and headers.
        policy: What becomes of a record that cannot be processed.
        dead_letters: Topic for ``dead_letter``.
        output: Where dead letters go: into the same transaction as all other output.
        metrics: Counts of the step.
    """

    def __init__(
        self,
        step: str,
        policy: OnError,
        dead_letters: str,
        output: OutputBuffer,
        metrics: StepMetrics,
    ) -> None:
        self._step = step
        self._policy = policy
        self._dead_letters = dead_letters
        self._output = output
        self._metrics = metrics

    def record_failed(self, batch: Batch, index: int, error: Exception) -> None:
        """Account for one record of a batch; the step goes on without it.

        Raises:
            RecordError: If the policy is ``fail``.
        """
        positions = batch.positions()
        if batch.origin is not None and positions is not None:
            self.raw_failed(batch.origin, positions[index], error)
            return
        value = _encode(batch.rows()[index])
        key = batch.keys()[index]
        self._account(error, f"key {key!r}", key_to_wire(key), value, batch.times()[index], [])

    def raw_failed(self, records: RawRecords, index: int, error: Exception) -> None:
        """Account for one source record; a dead letter carries its bytes as they came.

        Raises:
            RecordError: If the policy is ``fail``.
        """
        headers: list[tuple[str, bytes | None]] = [
            ("riverrun.topic", records.topic.encode()),
            ("riverrun.partition", str(records.partition).encode()),
            ("riverrun.offset", str(records.offsets[index]).encode()),
            ("riverrun.timestamp", str(records.timestamps_ms[index]).encode()),
        ]
        if records.headers is not None:
            headers = [*records.headers[index], *headers]
        self._account(
            error,
            records.coordinates(index),
            records.keys[index],
            records.values[index],
            records.timestamps_ms[index],
            headers,
        )

    def count_late(self, count: int) -> None:
        """Count records that came after their window had closed."""
        self._metrics.late.inc(count)

    def _account(
        self,
        error: Exception,
        where: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: list[tuple[str, bytes | None]],
    ) -> None:
        reason = f"{type(error).__name__}: {error}"
        if self._policy == "fail":
            raise RecordError(
                f"step {self._step!r} cannot process the record at {where}: {reason}. Mend the "
                "record or the step, or give the step on_error='skip' or on_error='dead_letter'"
            ) from error
        if self._policy == "skip":
            self._metrics.skipped.inc()
            _log.debug("step %s skipped the record at %s: %s", self._step, where, reason)
            return
        trace = "".join(traceback.format_exception(error))[-TRACEBACK_BYTES_MAX:]
        headers = [
            *headers,
            ("riverrun.step", self._step.encode()),
            ("riverrun.error", reason.encode(errors="replace")[:TRACEBACK_BYTES_MAX]),
            ("riverrun.traceback", trace.encode(errors="replace")),
        ]
        if not self._output.fits(self._dead_letters, key, value, headers):
            # A record that just fitted its own topic: better without a traceback than not at all.
            headers = headers[:-1]
            if not self._output.fits(self._dead_letters, key, value, headers):
                raise RecordError(
                    f"step {self._step!r} cannot process the record at {where}: {reason}; and as a "
                    f"dead letter it is larger than topic {self._dead_letters!r} takes. Raise the "
                    "max.message.bytes of that topic"
                ) from error
        self._metrics.dead_letters.inc()
        # The broker refuses negative timestamps, and a bad time may be why it failed.
        now_ms = self._output.now_ms()
        time_ms = timestamp_ms if 0 <= timestamp_ms <= now_ms else now_ms
        self._output.write(self._dead_letters, [key], [value], [time_ms], headers=[headers])


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError):
        return repr(value).encode()
