from __future__ import annotations

from riverrun.operators.union import Union
from tests.operators.harness import Rec, batch_of, run


def test_batches_pass_as_they_are() -> None:
    first, second = batch_of([Rec(1, 1, "a")]), batch_of([Rec({"x": 2}, 2, "b")], columnar=True)
    assert run(Union(), first, second).out.batches == [first, second]
