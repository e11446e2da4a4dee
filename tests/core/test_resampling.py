"""Losses on resamples: what is drawn, that they are those of the items drawn, and what means nothing."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.core import resampling
from pricer.core.metrics import METRICS, Score, summarise
from pricer.core.resampling import Z95, losses, resample, studentised
from pricer.core.scores import Scores

CHOOSING = [name for name in METRICS if name != "no_price"]


def scores_of(charged: list[float], price: list[float] | None = None) -> Scores:
    return Scores(np.array(price or [100.0] * len(charged)), np.array(charged), np.ones(len(charged), dtype=np.bool_))


def some(checkpoints: int, items: int, seed: int = 0) -> list[Scores]:
    rng = np.random.default_rng(seed)
    price = rng.lognormal(4, 1, items).round(2) + 1
    return [
        Scores(price, (price * np.exp(0.3 * rng.standard_normal(items))).round(), rng.random(items) > 0.1)
        for _ in range(checkpoints)
    ]


def taken(scores: Scores, items: np.ndarray) -> Scores:
    """The Scores of these items, each as often as it is named."""
    return Scores(scores.price[items], scores.charged[items], scores.answered[items])


def value(scores: Scores, metric: str) -> float | None:
    """The metric as an evaluation has it."""
    columns = (scores.price, scores.charged, scores.answered, scores.abs_error, scores.log_error, scores.hit)
    rows = [Score("", *row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return {m.name: m.value for m in summarise(rows)}[metric]


@pytest.mark.parametrize("metric", CHOOSING)
def test_a_loss_is_the_metric_or_one_minus_it(metric: str) -> None:
    scores = some(3, 40)
    metrics = np.array([value(one, metric) for one in scores])

    expected = 1 - metrics if metric in ("r2", "hit_rate") else metrics
    np.testing.assert_allclose(losses(scores, metric), expected, rtol=1e-12)


@pytest.mark.parametrize("metric", CHOOSING)
@pytest.mark.parametrize("items", [5, 60, 301])
def test_a_resample_has_the_loss_of_the_items_that_were_drawn(metric: str, items: int) -> None:
    scores = some(3, items)
    (weights,) = resampling._weights(items, 20, np.random.default_rng(7))
    resampled = resample(scores, metric, leader=1, resamples=20, seed=7)

    drawn, left_out = [], []
    for times in weights.T.astype(int):
        inside, outside = np.repeat(np.arange(items), times), np.flatnonzero(times == 0)
        if len(inside) and len(outside):
            drawn.append(losses([taken(one, inside) for one in scores], metric))
            left_out.append(losses([taken(one, outside) for one in scores], metric))

    whole = np.isfinite(np.array(drawn)).all(axis=1) & np.isfinite(np.array(left_out)).all(axis=1)
    exact = metric == "median_ae"
    np.testing.assert_allclose(resampled.drawn.T, np.array(drawn)[whole], rtol=0 if exact else 1e-5)
    np.testing.assert_allclose(resampled.left_out.T, np.array(left_out)[whole], rtol=0 if exact else 1e-5)


def test_a_median_outside_the_window_of_ranks_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = some(2, 200)
    expected = resample(scores, "median_ae", 0, resamples=50)

    monkeypatch.setattr(resampling, "_REACH", 0.1)  # one rank or two: hardly a median is among them
    found = resample(scores, "median_ae", 0, resamples=50)

    assert np.array_equal(found.drawn, expected.drawn)
    assert np.array_equal(found.left_out, expected.left_out)


def test_items_are_drawn_as_often_as_by_a_poisson_number_of_mean_1() -> None:
    weights = np.concatenate(list(resampling._weights(100, 20_000, np.random.default_rng(0))), axis=1)

    assert weights.shape == (100, 20_000)
    # Of two million counts: a share varies by √(p (1 − p) / 2e6) < 0.00036.
    for count in range(4):
        assert np.mean(weights == count) == pytest.approx(math.exp(-1) / math.factorial(count), abs=0.0015)
    assert weights.mean() == pytest.approx(1.0, abs=0.003)
    assert weights.var() == pytest.approx(1.0, abs=0.006)


def test_the_same_seed_gives_the_same_resamples() -> None:
    scores = some(3, 30)
    first, second = (resample(scores, "mae", 0, resamples=40) for _ in range(2))
    other = resample(scores, "mae", 0, resamples=40, seed=1)

    assert np.array_equal(first.drawn, second.drawn)
    assert not np.array_equal(first.drawn, other.drawn)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 5_000), min_size=3, max_size=30), st.sampled_from(CHOOSING))
def test_equals_are_equal_to_the_last_bit_in_every_resample(charged: list[float], metric: str) -> None:
    price = [100.0 + index for index in range(len(charged))]
    twins = [scores_of(charged, price), scores_of(charged, price)]

    resampled = resample(twins, metric, leader=0, resamples=30)

    assert np.array_equal(resampled.drawn[0], resampled.drawn[1])
    assert np.array_equal(resampled.left_out[0], resampled.left_out[1])


def test_a_resample_that_draws_or_leaves_out_nothing_is_not_among_them() -> None:
    # Of two items one is drawn and the other left out: 2 · (1 − 1/e) / e = 46.5 % of the resamples.
    resampled = resample([scores_of([110.0, 130.0])], "mae", 0, resamples=2_000)

    assert set(np.unique(resampled.drawn)) == {10.0, 30.0}
    assert np.array_equal(resampled.drawn + resampled.left_out, np.full(resampled.drawn.shape, 40.0))
    assert resampled.drawn.shape[1] / 2_000 == pytest.approx(0.465, abs=0.03)


def test_r2_where_all_prices_drawn_are_equal_means_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = resample([scores_of([110.0, 130.0])], "r2", 0, resamples=50)

    assert none.drawn.shape == (1, 0)


def test_a_resampled_t_is_wider_to_the_right_of_skewed_errors_and_normal_for_many_even_ones() -> None:
    skewed = scores_of([100.0 + error for error in np.random.default_rng(0).lognormal(3, 1.2, 100)])
    even = scores_of([100.0 + error for error in np.linspace(0, 100, 2_000)])

    low, high = studentised(skewed, "mae")
    assert low < -2.2  # the mean may be much higher than it looks
    assert 1.2 < high < Z95
    assert studentised(even, "mae") == pytest.approx((-Z95, Z95), abs=0.15)
    assert studentised(even, "median_ae") == (-Z95, Z95)


@pytest.mark.parametrize("metric", CHOOSING)
def test_where_nothing_varies_there_is_a_t_all_the_same(metric: str) -> None:
    assert studentised(scores_of([150.0, 152.0], [100.0, 102.0]), metric) == (-Z95, Z95)


def test_a_metric_that_does_not_choose_is_refused() -> None:
    with pytest.raises(ValueError, match="no_price is not a metric that chooses"):
        losses([scores_of([100.0])], "no_price")
