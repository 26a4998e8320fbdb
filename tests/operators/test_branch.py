from __future__ import annotations

import polars as pl

from riverrun.operators.branch import Branch
from tests.operators.harness import Rec, run


def ports(done: object) -> dict[int, list[int]]:
    by_port = done.out.by_port  # type: ignore[attr-defined]
    return {port: [record.value["n"] for record in records] for port, records in by_port.items()}


def numbers(*values: int) -> list[Rec]:
    return [Rec({"n": value}, value, "k") for value in values]


def test_a_record_goes_to_the_first_branch_whose_condition_holds() -> None:
    operator = Branch((pl.col("n") > 10, lambda row: row["n"] > 5))
    done = run(operator, numbers(7, 20, 1, 6, 30))
    assert ports(done) == {0: [20, 30], 1: [7, 6], 2: [1]}
    assert done.out[1][0] == Rec({"n": 7}, 7, "k")


def test_all_may_go_to_one_branch() -> None:
    assert ports(run(Branch((pl.col("n") > 0,)), numbers(1, 2))) == {0: [1, 2]}
    assert ports(run(Branch((pl.col("n") < 0,)), numbers(1, 2))) == {1: [1, 2]}


def test_null_matches_no_condition() -> None:
    records = [Rec({"n": None}), Rec({"n": 1})]
    assert ports(run(Branch((pl.col("n") > 0, pl.col("n") <= 0)), records)) == {0: [1], 2: [None]}


def test_a_record_for_which_a_condition_raises_goes_nowhere() -> None:
    operator = Branch((lambda row: 6 // row["n"] > 2, lambda row: True))
    done = run(operator, numbers(1, 0, 6), policy="skip")
    assert ports(done) == {0: [1], 1: [6]}
    assert [value for value, _ in done.failed.records] == [{"n": 0}]
