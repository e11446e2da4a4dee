"""Resampling: the error of every checkpoint on the same thousands of resamples of the items they share."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.scores import Scores

RESAMPLES = 10_000
SEED = 0
# 0.975 quantile of the standard normal distribution: two-sided 95 % intervals.
Z95 = 1.959963984540054

# Weights that are held at once: two megabytes of them, which stay in a core's cache.
_CELLS = 2**19
# Half of the ranks among which a median is looked for, in standard deviations of its rank.
_REACH = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Losses of checkpoints by resample, each (checkpoints, resamples): on the items drawn, and on those left out.
    Every checkpoint meets the same items.
    """

    drawn: np.ndarray
    left_out: np.ndarray


def losses(scores: Sequence[Scores], metric: str) -> np.ndarray:
    """The metric of each of these Scores, which share their items, as a loss, of which less is better: of `r2` and
    `hit_rate`, 1 minus it. (checkpoints,)
    """
    if metric == "median_ae":
        return np.array([np.median(one.abs_error) for one in scores])
    parts = np.stack([_parts(one, metric) for one in scores])
    return _summed(parts.sum(axis=1), metric, float(len(scores[0])), _spread_of(scores[0].price))


def resample(
    scores: Sequence[Scores], metric: str, leader: int, resamples: int = RESAMPLES, seed: int = SEED
) -> Resampled:
    """Losses on resamples of the items, by a paired bootstrap: deterministic, and one that means nothing (no item is
    drawn or left out, or all prices are equal and the metric is R²) is not among them.

    How often an item is drawn is a Poisson number with mean 1 (Chamandy et al. 2012, "Estimating uncertainty for
    massive data streams"). Of as many draws as that makes in all it is the usual bootstrap, for Poisson numbers with a
    given sum are multinomial, and a table of them is faster than counting draws. Losses that are equal to those of
    number `leader` are equal to the last bit.
    """
    prices = scores[0].price
    summed: _Medians | _Sums
    if metric == "median_ae":
        summed = _Medians(np.stack([one.abs_error for one in scores]))
    else:
        summed = _Sums(np.stack([_parts(one, metric) for one in scores]), prices, metric, leader)
    drawn, left_out = [], []
    for weights in _weights(len(prices), resamples, np.random.default_rng(seed)):
        drawn.append(summed(weights))
        left_out.append(summed((weights == 0).astype(np.float32)))
    inside, outside = np.concatenate(drawn, axis=1), np.concatenate(left_out, axis=1)
    defined = np.isfinite(inside[0]) & np.isfinite(outside[0])
    return Resampled(inside[:, defined], outside[:, defined])


def studentised(scores: Scores, metric: str, resamples: int = 2_000, seed: int = SEED) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of how far a resampled loss is from the loss, in the resample's own standard
    errors: what ∓ 1.96 would be if the loss were normal (bootstrap-t: Efron & Tibshirani 1993, section 12.5). ∓ 1.96
    for medians, which have no simple standard error, and where resamples vary in too few ways.
    """
    if metric == "median_ae":
        return -Z95, Z95
    parts = _parts(scores, metric)
    if metric == "r2":  # a ratio of sums, linearised
        squared = (scores.price - scores.price.mean()) ** 2
        parts = parts - parts.sum() / squared.sum() * squared
    parts = parts - parts.mean()
    rows = np.vstack([np.ones(len(parts)), parts, parts**2]).astype(np.float32)
    sums = [rows @ weights for weights in _weights(len(parts), resamples, np.random.default_rng(seed))]
    count, first, second = np.concatenate(sums, axis=1).astype(np.float64)
    spread = second - first**2 / np.maximum(count, 1)
    varied = spread > 1e-5 * second
    if varied.mean() < 0.5:
        return -Z95, Z95
    # A mean is first / count, its standard error √(spread) / count.
    low, high = np.quantile(first[varied] / np.sqrt(spread[varied]), [0.025, 0.975])
    return float(low), float(high)


def _weights(n: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each item is drawn, (items, resamples of the block), in single precision: counts are exact."""
    # Poisson(1) from 16 random bits: mean 1 and variance 0.99997.
    share = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(9)])
    table = np.searchsorted(np.round(share * 2**16), np.arange(2**16), side="right").astype(np.float32)
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        bits = rng.integers(0, 2**16, (n, min(block, resamples - start)), dtype=np.uint16)
        yield table[bits]


def _parts(scores: Scores, metric: str) -> np.ndarray:
    """What each item adds to the loss."""
    part: np.ndarray
    match metric:
        case "mae":
            part = scores.abs_error
        case "rmsle":
            part = scores.log_error**2
        case "mape":
            part = scores.abs_error / scores.price
        case "r2":
            part = scores.abs_error**2
        case "hit_rate":
            part = 1.0 - scores.hit
        case _:
            raise ValueError(f"{metric} is not a metric that chooses")
    return part


def _summed(total: np.ndarray, metric: str, count: float | np.ndarray, spread: float | np.ndarray) -> np.ndarray:
    """Losses from sums over items."""
    if metric == "r2":
        return total / spread
    mean: np.ndarray = total / count
    return np.sqrt(mean) if metric == "rmsle" else mean


def _spread_of(prices: np.ndarray) -> float:
    return float(np.sum((prices - prices.mean()) ** 2)) if prices.min() < prices.max() else math.nan


class _Sums:
    """Losses that come from sums over items, for weights (items, resamples): a matrix product."""

    def __init__(self, parts: np.ndarray, prices: np.ndarray, metric: str, leader: int) -> None:
        centred = prices - prices.mean()
        # Differences to the leader, so that what is equal sums to exactly 0 in whatever order a product adds it up.
        above = parts - parts[leader]
        self._rows = np.vstack([above, parts[leader], np.ones(len(prices)), centred, centred**2]).astype(np.float32)
        self._metric = metric

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        *above, leader, count, first, second = (self._rows @ weights).astype(np.float64)
        count[count == 0] = math.nan
        spread = second - first**2 / count
        # Within the rounding of single precision: equal prices.
        spread[spread <= 1e-5 * second] = math.nan
        # What is next to nothing may be rounded to below it.
        return _summed(np.maximum(leader + np.stack(above), 0.0), self._metric, count, spread)


class _Medians:
    """Medians of `errors` (checkpoints, items) for weights (items, resamples): exact, as of each item that often.

    A median of a resample has a rank near the middle among all items. So what lies below a window of ranks is counted
    by a matrix product, and only within it are weights added up one by one; where a median is not in it, over all.
    """

    def __init__(self, errors: np.ndarray) -> None:
        self._order = np.argsort(errors, axis=1, kind="stable")
        self._sorted = np.take_along_axis(errors, self._order, axis=1)
        self._ranks = np.argsort(self._order, axis=1)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        n, half = len(weights), weights.sum(axis=0) / np.float32(2)
        half[half == 0] = math.nan
        # The middle of the weights lies √(n · variance) / (2 · mean) ranks from the middle of the items, give or take.
        mean = float(weights.mean()) or 1.0
        reach = math.ceil(_REACH * math.sqrt(n * float(weights.var())) / (2 * mean))
        low, high = max(0, n // 2 - reach), min(n, n // 2 + reach + 1)
        below = (self._ranks < low).astype(np.float32) @ weights
        return np.stack([self._median(k, weights, below[k], half, low, high) for k in range(len(self._order))])

    def _median(
        self, k: int, weights: np.ndarray, below: np.ndarray, half: np.ndarray, low: int, high: int
    ) -> np.ndarray:
        # By resample in rows: adding up along a column is four times as slow.
        counted = np.cumsum(weights[self._order[k, low:high]].T.copy(), axis=1)
        wanted = (half - below)[:, None]
        inside = (wanted > 0) & (wanted < counted[:, -1:])
        if high - low < len(weights) and not np.all(inside | np.isnan(wanted)):
            return self._median(k, weights, np.zeros_like(below), half, 0, len(weights))
        last = high - low - 1
        # Of an even number of draws the median is half-way between the two in the middle, which may be two items.
        first, second = np.count_nonzero(counted < wanted, axis=1), np.count_nonzero(counted <= wanted, axis=1)
        values = self._sorted[k, low:high]
        median: np.ndarray = (values[np.minimum(first, last)] + values[np.minimum(second, last)]) / 2
        return np.where(np.isnan(half), math.nan, median)
