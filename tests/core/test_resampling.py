"""Losses on resamples: what is drawn, that they are those of the items drawn, and what means nothing."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.core import resampling
from pricer.core.evaluation import ScoreTable
from pricer.core.metrics import METRICS, Z95, choosing_metrics
from pricer.core.resampling import bootstrap_t_quantiles, compute_losses, resample
from tests.builders import a_score_table

CHOOSING = choosing_metrics()


def some(checkpoints: int, items: int, seed: int = 0) -> list[ScoreTable]:
    rng = np.random.default_rng(seed)
    price = rng.lognormal(4, 1, items).round(2) + 1
    return [
        a_score_table((price * np.exp(0.3 * rng.standard_normal(items))).round(), price, rng.random(items) > 0.1)
        for _ in range(checkpoints)
    ]


def value(table: ScoreTable, metric: str) -> float | None:
    """The metric as an evaluation has it."""
    return METRICS[metric].measure(table).value


@pytest.mark.parametrize("metric", CHOOSING)
def test_a_loss_is_the_metric_or_one_minus_it(metric: str) -> None:
    scores = some(3, 40)
    metrics = np.array([value(one, metric) for one in scores])

    expected = 1 - metrics if metric in ("r2", "hit_rate") else metrics
    np.testing.assert_allclose(compute_losses(scores, metric), expected, rtol=1e-12)


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
            drawn.append(compute_losses([one.rows(inside) for one in scores], metric))
            left_out.append(compute_losses([one.rows(outside) for one in scores], metric))

    whole = np.isfinite(np.array(drawn)).all(axis=1) & np.isfinite(np.array(left_out)).all(axis=1)
    exact = metric == "median_ae"
    np.testing.assert_allclose(resampled.drawn.T, np.array(drawn)[whole], rtol=0 if exact else 1e-5)
    np.testing.assert_allclose(resampled.left_out.T, np.array(left_out)[whole], rtol=0 if exact else 1e-5)


def test_the_same_seed_gives_the_same_resamples() -> None:
    scores = some(3, 30)
    first, second = (resample(scores, "mae", 0, resamples=40) for _ in range(2))
    other = resample(scores, "mae", 0, resamples=40, seed=1)

    assert np.array_equal(first.drawn, second.drawn)
    assert not np.array_equal(first.drawn, other.drawn)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 5_000), min_size=3, max_size=30), st.sampled_from(CHOOSING))
def test_equals_are_equal_to_the_last_bit_in_every_resample(imputed: list[float], metric: str) -> None:
    price = [100.0 + index for index in range(len(imputed))]
    twins = [a_score_table(imputed, price), a_score_table(imputed, price)]

    resampled = resample(twins, metric, leader=0, resamples=30)

    assert np.array_equal(resampled.drawn[0], resampled.drawn[1])
    assert np.array_equal(resampled.left_out[0], resampled.left_out[1])


def test_a_resample_that_draws_or_leaves_out_nothing_is_not_among_them() -> None:
    # Of two items one is drawn and the other left out: 2 · (1 − 1/e) / e = 46.5 % of the resamples.
    resampled = resample([a_score_table([110.0, 130.0])], "mae", 0, resamples=2_000)

    assert set(np.unique(resampled.drawn)) == {10.0, 30.0}
    assert np.array_equal(resampled.drawn + resampled.left_out, np.full(resampled.drawn.shape, 40.0))
    assert resampled.drawn.shape[1] / 2_000 == pytest.approx(0.465, abs=0.03)


def test_r2_where_all_prices_drawn_are_equal_means_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = resample([a_score_table([110.0, 130.0])], "r2", 0, resamples=50)

    assert none.drawn.shape == (1, 0)


def test_a_resampled_t_is_wider_to_the_right_of_skewed_errors_and_normal_for_many_even_ones() -> None:
    skewed = a_score_table([100.0 + error for error in np.random.default_rng(0).lognormal(3, 1.2, 100)])
    even = a_score_table([100.0 + error for error in np.linspace(0, 100, 2_000)])

    low, high = bootstrap_t_quantiles(skewed, "mae")
    assert low < -2.2  # the mean may be much higher than it looks
    assert 1.2 < high < Z95
    assert bootstrap_t_quantiles(even, "mae") == pytest.approx((-Z95, Z95), abs=0.15)
    assert bootstrap_t_quantiles(even, "median_ae") == (-Z95, Z95)


@pytest.mark.parametrize("metric", CHOOSING)
def test_where_nothing_varies_there_is_a_t_all_the_same(metric: str) -> None:
    assert bootstrap_t_quantiles(a_score_table([150.0, 152.0], [100.0, 102.0]), metric) == (-Z95, Z95)
