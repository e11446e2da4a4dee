"""Scores: how far off an answer is, and what an answer without a price counts as."""

import math

import numpy as np
import pytest

from pricer.core.predictions import Prediction
from pricer.core.scores import ScoreTable, score_predictions
from tests.builders import an_item, predictions_of

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
