"""Distributions and what is read from them."""

import math

import numpy as np
import pytest

from pricer.core.predictions import ESTIMATORS, Distribution, Prediction, compute_quantiles, renormalize
from tests.builders import a_distribution

READ = Distribution(
    quantiles=(10.0, 20.0, 30.0, 60.0, 90.0),
    mode=25.0,
    mode_is_certain=True,
    mean=35.0,
    mean_error=0.5,
    no_price=0.1,
    residual_mass=0.0,
)


def test_a_prediction_has_an_estimate_of_each_kind() -> None:
    prediction = Prediction("a", "0022", 22.0, READ)

    assert [prediction.estimate(name) for name in ESTIMATORS] == [22.0, 25.0, 35.0, 30.0]


@pytest.mark.parametrize(("no_price", "price"), [(0.4999, 100.0), (0.5, None), (1.0, None)])
def test_where_no_price_is_as_likely_as_not_there_is_none(no_price: float, price: float | None) -> None:
    prediction = Prediction("a", "0022", 22.0, a_distribution(median=100.0, no_price=no_price))

    assert [prediction.estimate(name) for name in ESTIMATORS] == [22.0, price, price, price]


def test_a_greedy_answer_without_a_price_may_still_have_a_median() -> None:
    assert Prediction("a", "none", None, READ).estimate("median") == 30.0


def test_a_prediction_that_is_only_a_price_has_that_one_by_any_estimator() -> None:
    assert [Prediction("a", "", 22.0).estimate(name) for name in ESTIMATORS] == [22.0] * 4


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(ValueError, match="midrange is no estimator"):
        Prediction("a", "", 22.0).estimate("midrange")


def test_intervals_lie_between_the_quantiles() -> None:
    assert (READ.interval(0.8), READ.interval(0.95)) == ((20.0, 60.0), (10.0, 90.0))
    with pytest.raises(ValueError, match="not in"):
        READ.interval(0.5)


def test_quantiles_are_the_first_prices_up_to_which_their_shares_lie() -> None:
    # Of 100: 2 at $5, 8 at $10 (0.1 is reached there), 40 at $20 (0.5), 45 at $30 (0.9), 5 at $40 (0.975).
    prices, shares = np.array([30, 5, 20, 40, 10]), np.array([45, 2, 40, 5, 8])

    assert compute_quantiles(prices, shares) == (10.0, 10.0, 20.0, 30.0, 40.0)


def test_shares_are_taken_of_the_sum_of_the_options() -> None:
    shares, together = renormalize(np.log(np.array([[0.1, 0.3]])))

    assert shares == pytest.approx(np.array([[0.25, 0.75]]))
    assert together == pytest.approx(np.array([0.4]))


@pytest.mark.parametrize("nothing", [math.nan, -math.inf])
def test_where_probabilities_are_no_numbers_all_of_it_is_no_price(nothing: float) -> None:
    shares, together = renormalize(np.array([[nothing, nothing]]))

    assert (shares.tolist(), together.tolist()) == ([[0.5, 0.5]], [0.0])
