"""Python functions of users: checked when the topology is built, called a batch at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from riverrun.engine.errors import TopologyError
from riverrun.engine.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.engine.batch import Batch
    from riverrun.engine.operator import Failures

A = TypeVar("A")
R = TypeVar("R")


def check_callable(function: Any, step: str, takes: str) -> None:
    """Check that a verb got a plain function.

    Args:
        function: What it got.
        step: Name of the step, for the message.
        takes: What it wants, for the message.

    Raises:
        TopologyError: If it is not callable, or a coroutine function.
    """
    if not callable(function):
        raise TopologyError(f"step {step!r} takes {takes}, got {function!r}")
    if is_async(function):
        raise TopologyError(
            f"step {step!r}: {_name_of(function)} is async; use stream.map_async(...), which runs "
            "calls concurrently, with a bound and in order"
        )


def is_async(function: Any) -> bool:
    """Return whether calling ``function`` gives something to await."""
    call: Any = getattr(cast("type[Any]", type(function)), "__call__", None)  # noqa: B004
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.iscoroutinefunction(call)
    )


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def returned_schema(function: Any) -> Schema | None:
    """Return the schema that a function's return annotation declares, None if it has none."""
    return schema_of_hint(_return_hint(function))


def returned_element_schema(function: Any) -> Schema | None:
    """Return the schema of the elements that a function is annotated to return."""
    hint = _return_hint(function)
    origins = (list, tuple, set, Iterable, Iterator, Sequence)
    args = get_args(hint)
    return schema_of_hint(args[0]) if get_origin(hint) in origins and args else None


def schema_of_hint(hint: Any) -> Schema | None:
    """Return the schema of a record type, None for anything else."""
    try:
        return Schema.of(hint)
    except Exception:
        return None


def _return_hint(function: Any) -> Any:
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if isinstance(function, type):
        return function
    try:
        return get_type_hints(target).get("return")
    except Exception:
        # Names that exist for type checkers only cannot be resolved; the schema is then unknown.
        return None


def call_each(
    function: Callable[[A], R], values: Sequence[A], batch: Batch, failures: Failures
) -> tuple[list[R], list[int] | None]:
    """Call a function on each value, once each; report the records it raises for.

    The loop over the values is ``list.extend`` over ``map``, in C; it stops where the function
    raises, with the results so far kept, and goes on behind that record.

    Args:
        function: The user's function.
        values: What to call it with, one per record of ``batch``.
        batch: The records, for failures.
        failures: The policy of the step.

    Returns:
        The results, and the index of the record of each; None if no record failed.
    """
    results: list[R] = []
    failed: list[int] = []
    calls = map(function, values)
    count = len(values)
    while len(results) + len(failed) < count:
        error: Exception
        try:
            results.extend(calls)
        except Exception as raised:
            error = raised
        else:
            if len(results) + len(failed) >= count:
                break
            # ``map`` takes a StopIteration of the function for its own end.
            error = RuntimeError("the function raised StopIteration")
        index = len(results) + len(failed)
        failures.record_failed(batch, index, error)
        failed.append(index)
    if not failed:
        return results, None
    dropped = set(failed)
    return results, [index for index in range(count) if index not in dropped]
