from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.contracts.operators import CASES, WAYS, OperatorCase
from tests.operators.harness import Rec, Run, batch_of, run
from tests.operators.records import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.engine.batch import Batch


def outcome(done: Run, case: OperatorCase) -> Any:
    """Return what a run gave, in a form in which equal is equal."""
    if case.by_batch:
        return {record.key: record.value for record in done.results}
    output = {
        port: [(r.time, repr(r.key), r.value) for r in records]
        for port, records in done.out.by_port.items()
    }
    if case.any_order:
        output[0] = sorted(output.get(0, []), key=lambda row: row[:2])
    failures = [value for value, _ in done.failed.records]
    return output, failures, done.failed.late


@pytest.mark.parametrize("columnar", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_output_does_not_depend_on_how_records_come(
    case: OperatorCase, way: str, columnar: bool
) -> None:
    expected = outcome(run(case.operator, *case.script, policy="skip", schema=ORDER), case)
    done = run(
        case.operator,
        *WAYS[way](case.script),
        policy="skip",
        schema=ORDER,
        columnar=columnar,
    )
    assert outcome(done, case) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_gives_something(case: OperatorCase) -> None:
    done = run(case.operator, *case.script, policy="skip", schema=ORDER)
    assert done.results


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_batches_are_left_as_they_were(case: OperatorCase) -> None:
    batches = list(batches_of(case))
    before = [(list(b.rows()), list(b.times()), list(b.keys())) for b in batches]
    run(case.operator, *batches, policy="skip", schema=ORDER)
    assert [(b.rows(), b.times(), b.keys()) for b in batches] == before


def batches_of(case: OperatorCase) -> Iterator[Batch]:
    for item in case.script:
        if isinstance(item, list):
            yield batch_of([Rec(r.value, r.time, r.key) for r in item], ORDER, columnar=True)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if hasattr(case.operator, "state_signature")],
    ids=lambda case: case.name,
)
def test_all_state_is_below_names_that_begin_with_the_step(case: OperatorCase) -> None:
    done = run(case.operator, *case.script, policy="skip", schema=ORDER)
    assert done.tables
    assert all(name.startswith("step/") for name in done.tables)
