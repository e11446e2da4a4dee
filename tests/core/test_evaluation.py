"""Evaluations."""

import math
from typing import Any

import numpy as np
import pytest

from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import EvalSpec, Evaluation, ScoreTable, evaluate, score_predictions
from pricer.core.items import Item, Split
from pricer.core.metrics import ScoreRule
from pricer.core.predictions import Prediction
from pricer.core.units import PriceUnit
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


def test_answers_without_a_distribution_have_no_table_of_estimators() -> None:
    mixed = [Prediction("a", "110", 110.0, a_distribution()), Prediction("b", "170", 170.0)]

    assert evaluate(CHECKPOINT, SPEC, mixed, ITEMS)[0].estimators == ()


def test_an_unknown_metric_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="brier"):
        an_evaluation(5, 40.0).metric("brier")


FALLBACK = 150.0


def scored(price: float, answer: float | None) -> ScoreTable:
    return score_predictions([Prediction("a", "", answer)], [an_item(key="a", price=price)], FALLBACK)


def test_the_errors_are_of_the_estimate_or_of_the_fallback() -> None:
    # $110 for $100 and, without a price, the fallback of $150 for $200; $210 for $1,000 and $250 for $260.
    items = [an_item(key, price) for key, price in zip("abcd", [100.0, 200.0, 1000.0, 260.0], strict=True)]

    table = score_predictions(predictions_of(items, [110.0, None, 210.0, 250.0])[::-1], items, FALLBACK)

    assert table.item_id.tolist() == ["a", "b", "c", "d"]
    assert table.imputed.tolist() == [110.0, 150.0, 210.0, 250.0]
    assert table.has_price.tolist() == [True, False, True, True]
    assert table.error.tolist() == [10.0, -50.0, -790.0, -10.0]
    assert table.abs_error.tolist() == [10.0, 50.0, 790.0, 10.0]
    assert table.hit.tolist() == [True, False, False, True]
    assert table.log_error.tolist() == pytest.approx([math.log(111 / 101), *np.log([151 / 201, 211 / 1001, 251 / 261])])


def test_a_rule_decides_what_is_a_hit_and_on_which_scale_errors_are_relative() -> None:
    # Off by 0.05 of 0.10; by 0.02 of 0.25; by 0.07 of 0.25, which is 28 %.
    items = [an_item(key, price) for key, price in zip("abc", [0.1, 0.25, 0.25], strict=True)]
    predictions = predictions_of(items, [0.15, 0.27, 0.32])
    cents = PriceUnit("€", 2)

    def hits(error: float | None, share: float) -> list[bool]:
        rule = ScoreRule(cents, error, share)
        return list(score_predictions(predictions, items, 1.0, rule=rule).hit)

    assert hits(None, 0.2) == [False, True, False]
    assert hits(0.06, 0.2) == [True, True, False]
    assert hits(0.06, 0.3) == [True, True, True]
    table = score_predictions(predictions, items, 1.0, rule=ScoreRule(cents, None, 0.2))
    assert table.is_within(2).tolist() == [False, True, True]  # 50 %, 8 % and 28 % off, with a limit of 40 %
    # ln(price + 0.01)
    assert table.log_error.tolist() == pytest.approx(np.log([16 / 11, 28 / 26, 33 / 26]))
    assert table.rows(np.array([0])).rule == table.rule


def test_an_evaluation_is_judged_by_its_spec() -> None:
    spec = a_spec(unit="€", decimals=2, hit_error=None, hit_share=0.5)
    items = [an_item("a", 10.0), an_item("b", 1000.0)]

    evaluation, table = evaluate(CHECKPOINT, spec, predictions_of(items, [16.0, 1499.0]), items)

    assert table.rule == ScoreRule(PriceUnit("€", 2), None, 0.5)
    assert evaluation.metric("hit_rate").value == 0.5  # 6 of 10 is a miss without a limit in euros, 499 of 1,000 a hit
    others = [a_spec(unit="€"), a_spec(decimals=2), a_spec(hit_error=None), a_spec(hit_share=0.5), a_spec()]
    assert len({one.fingerprint for one in others}) == 5


def test_an_answer_of_zero_dollars_is_an_answer() -> None:
    table = scored(100.0, 0.0)

    assert (table.imputed[0], table.abs_error[0], table.has_price[0]) == (0.0, 100.0, True)


@pytest.mark.parametrize(
    ("price", "answer", "hit"),
    [
        (100.0, 139.99, True),  # less than $40 off
        (100.0, 140.0, False),  # $40 off, and 40 % of the price
        (10.0, 49.0, True),  # $39 off is a hit however cheap the item
        (500.0, 599.99, True),  # less than 20 % off
        (500.0, 600.0, False),
        (500.0, 400.01, True),
        (500.0, 400.0, False),
        (FALLBACK, None, False),  # no price is never a hit, even where the fallback is right
    ],
)
def test_a_hit_is_less_than_forty_dollars_or_twenty_percent_off(price: float, answer: float | None, hit: bool) -> None:
    assert scored(price, answer).hit.tolist() == [hit]


@pytest.mark.parametrize("ids", ["", "a", "ac", "aa", "abc", "abb"])
def test_a_missing_extra_or_repeated_prediction_is_refused(ids: str) -> None:
    with pytest.raises(ValueError, match=f"{len(ids)} predictions do not match 2 items"):
        score_predictions([Prediction(key, "", 1.0) for key in ids], [an_item("a"), an_item("b")], FALLBACK)


def test_rows_are_chosen_from_every_column() -> None:
    table = scored(100.0, 110.0).rows(np.array([0, 0]))

    assert (table.item_id.tolist(), table.price.tolist(), table.imputed.tolist()) == (
        ["a", "a"],
        [100.0] * 2,
        [110.0] * 2,
    )
    assert len(table) == 2
