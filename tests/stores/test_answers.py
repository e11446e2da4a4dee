"""Answers and failures in files from elsewhere."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from pricer.core.checkpoints import Failure
from pricer.core.predictions import Distribution, Prediction
from pricer.stores.answers import check_answers, check_failures, format_failures
from tests.builders import SPEC, a_distribution


def a_line(price: float | None = 5.0, distribution: Distribution | None = None) -> bytes:
    return json.dumps({"batch": [asdict(Prediction("a", "5.00", price, distribution))]}).encode() + b"\n"


def test_possible_answers_are_taken_without_a_torn_line() -> None:
    whole = a_line() + a_line(None) + a_line(1e100) + a_line(0.0, a_distribution(no_price=1.0, residual_mass=-1e-17))

    assert check_answers(whole + b'{"batch"', {"a"}) == whole


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mode": -1.0}, "mode is -1.0, not between 0 and 1e+100"),
        ({"mean": 1e101}, "mean is 1e+101, not between 0 and 1e+100"),
        ({"mean_error": -1.0}, "mean_error is -1.0, not between 0 and 1e+100"),
        ({"quantiles": (1.0, 2.0, 3.0, 4.0, 1e101)}, "quantiles.4 is 1e+101, not between 0 and 1e+100"),
        ({"quantiles": (1.0, 2.0, 1.5, 4.0, 5.0)}, "the quantiles do not ascend"),
        ({"no_price": 1.5}, "no_price is 1.5, not between 0 and 1"),
        ({"residual_mass": -0.5}, "residual_mass is -0.5, not between 0 and 1"),
    ],
)
def test_answers_with_numbers_that_cannot_be_scored_are_named(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: ") as raised:
        check_answers(a_line() + a_line(5.0, a_distribution(**changes)), {"a"})

    assert str(raised.value) == f"line 2: {problem}"


def test_failures_of_other_checkpoints_and_bases_are_left_out() -> None:
    mine = Failure("step-000002", "not\nnumbers " + "x" * 999, "a", SPEC.base_revision)
    others = [Failure("step-000004", "", "b", SPEC.base_revision), Failure("step-000002", "", "a", "9" * 40)]

    (found,) = check_failures(format_failures([mine, *others]), SPEC, {"a"})

    assert (found.id, found.base_revision, len(found.reason)) == ("a", SPEC.base_revision, 300)
    assert found.reason.startswith("not numbers xxx")
