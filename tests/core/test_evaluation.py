"""Evaluations."""

import json
import math
from typing import Any

import pytest

from pricer.core.evaluation import Evaluation, evaluate, judge
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.core.scores import Scores
from tests.builders import SPEC, a_checkpoint, a_distribution, a_spec, an_evaluation, an_item, predictions_of

ITEMS = [an_item(key="a", price=100.0), an_item(key="b", price=200.0)]


def test_an_evaluation_says_what_was_scored_under_which_spec() -> None:
    checkpoint = a_checkpoint(step=7)

    evaluation = evaluate(checkpoint, SPEC, predictions_of(ITEMS, [110.0, 170.0]), ITEMS)

    assert (evaluation.name, evaluation.step, evaluation.revision) == ("step-000007", 7, checkpoint.id)
    assert (evaluation.epoch, evaluation.spec) == (0.7, SPEC)
    assert evaluation.metric("mae").value == 20.0  # (10 + 30) / 2


def test_a_baseline_has_a_name_and_no_revision() -> None:
    evaluation = evaluate("constant", SPEC, predictions_of(ITEMS, [150.0, 150.0]), ITEMS)

    assert (evaluation.name, evaluation.step, evaluation.revision, evaluation.epoch) == ("constant", None, None, None)
    assert evaluation.metric("mae").value == 50.0


def test_predictions_are_matched_by_id_not_by_order() -> None:
    predictions = predictions_of(ITEMS, [110.0, 170.0])

    assert evaluate("x", SPEC, predictions[::-1], ITEMS) == evaluate("x", SPEC, predictions, ITEMS)


def test_a_completion_without_a_price_is_charged_as_the_fallback_of_the_spec() -> None:
    evaluation = evaluate("x", a_spec(fallback=130.0), predictions_of(ITEMS, [None, 200.0]), ITEMS)

    assert evaluation.metric("mae").value == 15.0  # (30 + 0) / 2
    assert evaluation.metric("no_price").value == 0.5


@pytest.mark.parametrize(
    "predictions",
    [
        [],
        [Prediction("a", "", 1.0)],
        [Prediction("a", "", 1.0), Prediction("c", "", 1.0)],
        [Prediction("a", "", 1.0), Prediction("a", "", 1.0)],
        [Prediction("a", "", 1.0), Prediction("b", "", 1.0), Prediction("c", "", 1.0)],
        [Prediction("a", "", 1.0), Prediction("b", "", 1.0), Prediction("b", "", 1.0)],
    ],
)
def test_a_missing_extra_or_repeated_prediction_is_refused(predictions: list[Prediction]) -> None:
    with pytest.raises(ValueError, match=f"{len(predictions)} predictions do not match 2 items"):
        evaluate("x", SPEC, predictions, ITEMS)


def test_one_prediction_does_not_answer_for_two_items_of_one_id() -> None:
    with pytest.raises(ValueError, match="1 predictions do not match 2 items"):
        evaluate("x", SPEC, [Prediction("a", "", 1.0)], [an_item(key="a"), an_item(key="a")])


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


def test_the_fingerprint_is_the_one_that_earlier_evaluations_were_recorded_under() -> None:
    # A change here makes `pricer eval` measure everything again.
    assert SPEC.fingerprint == "e6a8899b96b4"


def test_all_estimators_are_scored_and_the_one_of_the_spec_makes_the_metrics() -> None:
    # Prices 100 and 200; greedy 110 and none (charged as 100), mode 90 and 180, mean 95 and 190, median 101 and 203.
    predictions = [
        Prediction("a", "110", 110.0, a_distribution(median=101.0, mode=90.0, mean=95.0)),
        Prediction("b", "no", None, a_distribution(median=203.0, mode=180.0, mean=190.0)),
    ]

    evaluation = evaluate(a_checkpoint(), a_spec(estimator="median"), predictions, ITEMS)

    assert [(m.name, m.value, m.n) for m in evaluation.estimators] == [
        ("greedy", 55.0, 2),  # (10 + 100) / 2
        ("mode", 15.0, 2),  # (10 + 20) / 2
        ("mean", 7.5, 2),  # (5 + 10) / 2
        ("median", 2.0, 2),  # (1 + 3) / 2
    ]
    assert evaluation.metric("mae").value == 2.0
    assert evaluation.metric("no_price").value == 0
    assert evaluate(a_checkpoint(), SPEC, predictions, ITEMS).metric("mae").value == 55.0
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation


def test_answers_without_a_distribution_have_no_table_of_estimators() -> None:
    mixed = [Prediction("a", "110", 110.0, a_distribution()), Prediction("b", "170", 170.0)]

    assert evaluate(a_checkpoint(), SPEC, mixed, ITEMS).estimators == ()


def test_an_evaluation_from_before_there_were_estimators_is_read() -> None:
    record = an_evaluation(5, 40.0).to_json()
    del record["estimators"], record["spec"]["residual_mass"]

    assert Evaluation.from_json(record) == an_evaluation(5, 40.0)


def test_an_unknown_metric_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="brier"):
        an_evaluation(5, 40.0).metric("brier")


@pytest.mark.parametrize(
    "evaluation",
    [
        evaluate(a_checkpoint(), SPEC, predictions_of(ITEMS, [110.0, None]), ITEMS),
        evaluate("constant", a_spec(limit=2, split=Split.TEST), predictions_of(ITEMS, [1.0, 2.0]), ITEMS),
        evaluate("one item", SPEC, predictions_of(ITEMS[:1], [1.0]), ITEMS[:1]),  # no interval, no R²
    ],
)
def test_an_evaluation_reads_back_as_it_was_written(evaluation: Evaluation) -> None:
    written = json.dumps(evaluation.to_json(), allow_nan=False)

    assert Evaluation.from_json(json.loads(written)) == evaluation


@pytest.mark.parametrize(
    "damage",
    [
        {"spec": {}},
        {"spec": None},
        {"metrics": [{"name": "mae"}]},
        {"metrics": None},
    ],
)
def test_a_record_that_no_evaluation_wrote_is_refused(damage: dict[str, Any]) -> None:
    record = {**an_evaluation(5, 40.0).to_json(), **damage}

    with pytest.raises((KeyError, TypeError, ValueError)):
        Evaluation.from_json(record)


def test_an_unknown_split_is_refused() -> None:
    record = an_evaluation(5, 40.0).to_json()
    record["spec"] = {**record["spec"], "split": "validation"}

    with pytest.raises(ValueError, match="'validation' is not a valid Split"):
        Evaluation.from_json(record)


def test_scores_in_columns_give_the_errors_again() -> None:
    # $110 for $100 and, without an answer, the fallback of $130 for $200; $210 for $1,000 and $250 for $260.
    items = [an_item(key, price) for key, price in zip("abcd", [100.0, 200.0, 1000.0, 260.0], strict=True)]
    predictions = predictions_of(items, [110.0, None, 210.0, 250.0])

    scores = Scores.of(judge(a_spec(fallback=130.0), predictions[::-1], items))

    assert scores.charged.tolist() == [110.0, 130.0, 210.0, 250.0]
    assert scores.abs_error.tolist() == [10.0, 70.0, 790.0, 10.0]
    assert scores.hit.tolist() == [True, False, False, True]
    assert scores.log_error[0] == pytest.approx(math.log(111 / 101))
    assert len(scores) == 4
