"""Metrics: for each metric a model that is good, one that is bad and one that is silent."""

from collections.abc import Sequence

import pytest

from pricer.core.evaluation import ScoreTable, score_predictions
from pricer.core.metrics import Metric, measure_all, wilson_interval
from tests.builders import an_item, predictions_of

FALLBACK = 150.0


def scores(prices: Sequence[float], answers: Sequence[float | None]) -> ScoreTable:
    items = [an_item(key=str(key), price=price) for key, price in enumerate(prices)]
    return score_predictions(predictions_of(items, answers), items, FALLBACK)


def metrics(prices: Sequence[float], answers: Sequence[float | None]) -> dict[str, Metric]:
    return {metric.name: metric for metric in measure_all(scores(prices, answers))}


def value(name: str, prices: Sequence[float], answers: Sequence[float | None]) -> float | None:
    return metrics(prices, answers)[name].value


@pytest.mark.parametrize(
    ("name", "good", "bad", "silent"),
    [
        # Prices 100, 200, 300. Good answers 110, 190, 310; bad 300, 200, 100 and off by 200, 0, 200; silent: all are
        # charged as 150 and off by 50, 50, 150.
        ("mae", 10.0, 400 / 3, 250 / 3),
        ("median_ae", 10.0, 200.0, 50.0),
        # The root of the mean of: ln(111/101)² = 0.008913, ln(191/201)² = 0.002604, ln(311/301)² = 0.001068; twice
        # ln(301/101)² = 1.192442, and 0; ln(151/101)² = 0.161732, ln(151/201)² = 0.081810, ln(151/301)² = 0.475866
        ("rmsle", 0.064770, 0.891606, 0.489697),
        # Σ(price − 200)² = 20,000. 1 − 300/20,000; 1 − 80,000/20,000; 1 − (2,500 + 2,500 + 22,500)/20,000
        ("r2", 0.985, -3.0, -0.375),
        # (10/100 + 10/200 + 10/300)/3; (200/100 + 0 + 200/300)/3; (50/100 + 50/200 + 150/300)/3
        ("mape", 0.0611111, 0.8888889, 0.4166667),
        ("hit_rate", 1.0, 1 / 3, 0.0),
        ("no_price", 0.0, 0.0, 1.0),
    ],
)
def test_a_metric_tells_a_good_model_from_a_bad_and_from_a_silent_one(
    name: str, good: float, bad: float, silent: float
) -> None:
    prices = [100.0, 200.0, 300.0]

    assert value(name, prices, [110.0, 190.0, 310.0]) == pytest.approx(good, abs=5e-6)
    assert value(name, prices, [300.0, 200.0, 100.0]) == pytest.approx(bad, abs=5e-6)
    assert value(name, prices, [None, None, None]) == pytest.approx(silent, abs=5e-6)


def test_a_silent_answer_is_counted_among_the_others() -> None:
    found = metrics([100.0, 100.0, 100.0, 100.0], [100.0, None, 110.0, 300.0])

    assert found["no_price"].value == 0.25
    assert found["hit_rate"].value == 0.5  # 100 and 110; not the silent one, not 300
    assert found["mae"].value == 65.0  # (0 + 50 + 10 + 200) / 4
    assert {metric.n for metric in found.values()} == {4}


def test_every_metric_says_which_way_is_better() -> None:
    assert {name: metric.better for name, metric in metrics([1.0], [1.0]).items()} == {
        "mae": "lower",
        "median_ae": "lower",
        "rmsle": "lower",
        "r2": "higher",
        "mape": "lower",
        "hit_rate": "higher",
        "no_price": "lower",
    }


def test_the_interval_of_the_mean_error_is_worked_out_from_its_spread() -> None:
    # Errors 10, 20, 30: mean 20, s = √((100 + 0 + 100)/2) = 10, 1.959964 × 10 / √3 = 11.315857
    interval = metrics([100.0, 100.0, 100.0], [110.0, 120.0, 130.0])["mae"].interval

    assert interval == pytest.approx((8.684143, 31.315857), abs=1e-6)


def test_equal_large_errors_have_an_interval_of_no_width() -> None:
    # The textbook E[x²] − E[x]² rounds to below zero here; its root would be NaN.
    interval = metrics([1.0] * 3, [1e8 + 1.1] * 3)["mae"].interval

    assert interval == pytest.approx((1e8 + 0.1, 1e8 + 0.1), abs=1e-5)


def test_one_score_has_no_interval_of_the_mean() -> None:
    assert metrics([100.0], [110.0])["mae"].interval is None


@pytest.mark.parametrize("price", [100.0, 0.1])  # 0.1: the mean of three is 0.10000000000000002
def test_r2_is_undefined_where_all_prices_are_equal(price: float) -> None:
    r2 = metrics([price] * 3, [1.0, 2.0, 3.0])["r2"]

    assert (r2.value, r2.interval, r2.n) == (None, None, 3)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        measure_all(scores([], []))


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
        # table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # the mirror image of 0 of 20
        (20, 20, 0.8389, 1.0),
        # z²/(n + z²) = 3.841459/4.841459
        (0, 1, 0.0, 0.7935),
    ],
)
def test_the_wilson_interval_agrees_with_published_values(count: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(count, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 250, 10_000])
def test_the_wilson_interval_stays_within_zero_and_one(n: int) -> None:
    for count in (0, n):
        low, high = wilson_interval(count, n)
        assert 0 <= low < high <= 1
        assert low <= count / n <= high or count / n == pytest.approx(low) or count / n == pytest.approx(high)


def test_a_share_of_answers_has_the_wilson_interval() -> None:
    found = metrics([100.0] * 20, [100.0] * 20)

    assert found["hit_rate"].interval == wilson_interval(20, 20)
    assert found["no_price"].interval == wilson_interval(0, 20)
