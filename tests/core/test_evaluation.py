"""Evaluations."""

import json
from typing import Any

import pytest

from pricer.core.candidates import Candidate
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from tests.builders import SPEC, a_checkpoint, a_distribution, a_spec, an_evaluation, an_item, predictions_of

ITEMS = [an_item(key="a", price=100.0), an_item(key="b", price=200.0)]
CHECKPOINT = Candidate.of(a_checkpoint(step=7))


def evaluation_of(
    answers: list[float | None], spec: EvalSpec = SPEC, candidate: Candidate = CHECKPOINT, items: list[Item] = ITEMS
) -> Evaluation:
    return evaluate(candidate, spec, predictions_of(items, answers), items)[0]


def test_an_evaluation_says_what_was_scored_under_which_spec() -> None:
    evaluation, table = evaluate(CHECKPOINT, SPEC, predictions_of(ITEMS, [110.0, 170.0]), ITEMS)

    assert (evaluation.name, evaluation.candidate, evaluation.spec) == ("step-000007", CHECKPOINT, SPEC)
    assert evaluation.metric("mae").value == 20.0  # (10 + 30) / 2
    assert table.abs_error.tolist() == [10.0, 30.0]


def test_the_fallback_of_the_spec_is_imputed_where_an_answer_has_no_price() -> None:
    evaluation = evaluation_of([None, 200.0], a_spec(fallback=130.0))

    assert evaluation.metric("mae").value == 15.0  # (30 + 0) / 2
    assert evaluation.metric("no_price").value == 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"data_fingerprint": "other"},
        {"split": Split.TEST},
        {"limit": 10},
        {"prompt_fingerprint": "other"},
        {"base": "other"},
        {"base_revision": "other"},
        {"precision": "nf4 bfloat16"},
        {"estimator": "median"},
        {"fallback": 101.0},
        {"residual_mass": 0.02},
    ],
)
def test_the_fingerprint_changes_with_every_part_of_the_spec(change: dict[str, Any]) -> None:
    assert a_spec(**change).fingerprint != SPEC.fingerprint


def test_all_estimators_are_scored_and_the_one_of_the_spec_makes_the_metrics() -> None:
    # Prices 100 and 200; greedy 110 and none (100 is imputed), mode 90 and 180, mean 95 and 190, median 101 and 203.
    predictions = [
        Prediction("a", "110", 110.0, a_distribution(median=101.0, mode=90.0, mean=95.0)),
        Prediction("b", "no", None, a_distribution(median=203.0, mode=180.0, mean=190.0)),
    ]

    evaluation, _ = evaluate(CHECKPOINT, a_spec(estimator="median"), predictions, ITEMS)

    assert [(m.name, m.value, m.n) for m in evaluation.estimators] == [
        ("greedy", 55.0, 2),  # (10 + 100) / 2
        ("mode", 15.0, 2),  # (10 + 20) / 2
        ("mean", 7.5, 2),  # (5 + 10) / 2
        ("median", 2.0, 2),  # (1 + 3) / 2
    ]
    assert evaluation.metric("mae").value == 2.0
    assert evaluation.metric("no_price").value == 0
    assert evaluate(CHECKPOINT, SPEC, predictions, ITEMS)[0].metric("mae").value == 55.0
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation


def test_answers_without_a_distribution_have_no_table_of_estimators() -> None:
    mixed = [Prediction("a", "110", 110.0, a_distribution()), Prediction("b", "170", 170.0)]

    assert evaluate(CHECKPOINT, SPEC, mixed, ITEMS)[0].estimators == ()


def test_an_unknown_metric_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="brier"):
        an_evaluation(5, 40.0).metric("brier")


@pytest.mark.parametrize(
    "evaluation",
    [
        evaluation_of([110.0, None]),
        evaluation_of([1.0, 2.0], a_spec(limit=2, split=Split.TEST), Candidate("constant")),
        evaluation_of([1.0], items=ITEMS[:1]),  # no interval, no R²
    ],
)
def test_an_evaluation_reads_back_as_it_was_written(evaluation: Evaluation) -> None:
    written = json.dumps(evaluation.to_json(), allow_nan=False)

    assert Evaluation.from_json(json.loads(written)) == evaluation


@pytest.mark.parametrize(
    "damage", [{"spec": {}}, {"spec": None}, {"metrics": [{"name": "mae"}]}, {"metrics": None}, {"candidate": {}}]
)
def test_a_record_that_no_evaluation_wrote_is_refused(damage: dict[str, Any]) -> None:
    record = {**an_evaluation(5, 40.0).to_json(), **damage}

    with pytest.raises((KeyError, TypeError, ValueError)):
        Evaluation.from_json(record)
