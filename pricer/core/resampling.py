"""Resampling: the loss of every checkpoint on thousands of resamples of the items. All share the resamples."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.evaluation import ScoreTable
from pricer.core.metrics import METRICS, Z95, MetricDefinition, price_spread

RESAMPLES = 10_000
SEED = 0

# Number of weights in memory at a time: two megabytes, which fit into the cache of a CPU core.
_CELLS = 2**19
# Half the width of the window that is searched for a median, in standard deviations of the median's rank.
_REACH = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """The loss of each checkpoint on each resample: on the items `drawn`, and on the items `left_out`. Both arrays are
    (checkpoints, resamples). Within a resample, all checkpoints are scored on the same items.
    """

    drawn: np.ndarray
    left_out: np.ndarray


def compute_losses(tables: Sequence[ScoreTable], metric: str) -> np.ndarray:
    """The metric of each checkpoint as a loss (checkpoints,). If higher is better, the loss is 1 − metric. All tables
    must have the same items.
    """
    definition = METRICS[metric]
    if definition.formula == "median":
        return np.array([np.median(definition.per_item(table)) for table in tables])
    parts = np.stack([_parts(table, definition) for table in tables])
    spread = price_spread(tables[0].price) or math.nan
    return _loss_of_sums(parts.sum(axis=1), definition, float(len(tables[0])), spread)


def resample(
    tables: Sequence[ScoreTable], metric: str, leader: int, resamples: int = RESAMPLES, seed: int = SEED
) -> Resampled:
    """Losses on resamples of the items, by a paired bootstrap.

    A resample is skipped if the loss is undefined on it: no item is drawn, no item is left out, or the metric is R² and
    all prices are equal.

    The number of draws of each item follows a Poisson distribution with mean 1 (Chamandy et al. 2012, "Estimating
    uncertainty for massive data streams"). This is faster than drawing items one by one. A checkpoint with the same
    errors as checkpoint number `leader` gets exactly the same losses, to the last bit.
    """
    definition, prices = METRICS[metric], tables[0].price
    loss_of: _Medians | _Sums
    if definition.formula == "median":
        loss_of = _Medians(np.stack([definition.per_item(table) for table in tables]))
    else:
        loss_of = _Sums(np.stack([_parts(table, definition) for table in tables]), prices, definition, leader)
    drawn, left_out = [], []
    for weights in _weights(len(prices), resamples, np.random.default_rng(seed)):
        drawn.append(loss_of(weights))
        left_out.append(loss_of((weights == 0).astype(np.float32)))
    inside, outside = np.concatenate(drawn, axis=1), np.concatenate(left_out, axis=1)
    defined = np.isfinite(inside[0]) & np.isfinite(outside[0])
    return Resampled(inside[:, defined], outside[:, defined])


def bootstrap_t_quantiles(
    table: ScoreTable, metric: str, resamples: int = 2_000, seed: int = SEED
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of the bootstrap-t statistic (Efron & Tibshirani 1993, section 12.5).

    The statistic is the difference between the loss on a resample and the loss on all items, divided by the resample's
    standard error. The result is ∓ 1.96 for medians, which have no simple standard error, and if the errors of more
    than half of the resamples do not vary.
    """
    definition = METRICS[metric]
    if definition.formula == "median":
        return -Z95, Z95
    parts = _parts(table, definition)
    if definition.formula == "explained":  # a ratio of sums, linearised
        squared = (table.price - table.price.mean()) ** 2
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
    """Blocks of resamples: the number of draws of each item, (items, resamples in the block). Single precision
    represents these counts exactly.
    """
    # Poisson(1) from 16 random bits: mean 1 and variance 0.99997.
    share = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(9)])
    table = np.searchsorted(np.round(share * 2**16), np.arange(2**16), side="right").astype(np.float32)
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        bits = rng.integers(0, 2**16, (n, min(block, resamples - start)), dtype=np.uint16)
        yield table[bits]


def _parts(table: ScoreTable, metric: MetricDefinition) -> np.ndarray:
    """Each item's contribution to the loss."""
    values = np.asarray(metric.per_item(table), dtype=np.float64)
    return 1.0 - values if metric.formula == "mean" and metric.better == "higher" else values


def _loss_of_sums(
    total: np.ndarray, metric: MetricDefinition, count: float | np.ndarray, spread: float | np.ndarray
) -> np.ndarray:
    """Losses from `total`, the sum of contributions, and the items' `count` and price `spread`."""
    if metric.formula == "explained":
        return total / spread
    mean: np.ndarray = total / count
    return np.sqrt(mean) if metric.formula == "root_mean" else mean


class _Sums:
    """Losses from sums over items, for weights (items, resamples), by a matrix product."""

    def __init__(self, parts: np.ndarray, prices: np.ndarray, metric: MetricDefinition, leader: int) -> None:
        centred = prices - prices.mean()
        # Differences to the leader: equal checkpoints sum to exactly 0, whatever order the matrix product uses.
        above = parts - parts[leader]
        self._rows = np.vstack([above, parts[leader], np.ones(len(prices)), centred, centred**2]).astype(np.float32)
        self._metric = metric

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        *above, leader, count, first, second = (self._rows @ weights).astype(np.float64)
        count[count == 0] = math.nan
        spread = second - first**2 / count
        # The prices are equal, within the rounding of single precision.
        spread[spread <= 1e-5 * second] = math.nan
        # Rounding may turn a sum near zero negative.
        return _loss_of_sums(np.maximum(leader + np.stack(above), 0.0), self._metric, count, spread)


class _Medians:
    """Exact medians of `errors` (checkpoints, items) for weights (items, resamples).

    The median of a resample has a rank near the middle of all items. A matrix product counts the weights below a window
    of ranks, and only the weights inside the window are added up one by one. If the window misses the median, the
    weights of all ranks are added up.
    """

    def __init__(self, errors: np.ndarray) -> None:
        self._order = np.argsort(errors, axis=1, kind="stable")
        self._sorted = np.take_along_axis(errors, self._order, axis=1)
        self._ranks = np.argsort(self._order, axis=1)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        n, half = len(weights), weights.sum(axis=0) / np.float32(2)
        half[half == 0] = math.nan
        # The standard deviation of the median's rank is √(n · variance) / (2 · mean).
        mean = float(weights.mean()) or 1.0
        reach = math.ceil(_REACH * math.sqrt(n * float(weights.var())) / (2 * mean))
        low, high = max(0, n // 2 - reach), min(n, n // 2 + reach + 1)
        below = (self._ranks < low).astype(np.float32) @ weights
        return np.stack([self._median(k, weights, below[k], half, low, high) for k in range(len(self._order))])

    def _median(
        self, k: int, weights: np.ndarray, below: np.ndarray, half: np.ndarray, low: int, high: int
    ) -> np.ndarray:
        # One resample per row: a sum along columns is four times as slow.
        counted = np.cumsum(weights[self._order[k, low:high]].T.copy(), axis=1)
        wanted = (half - below)[:, None]
        inside = (wanted > 0) & (wanted < counted[:, -1:])
        if high - low < len(weights) and not np.all(inside | np.isnan(wanted)):
            return self._median(k, weights, np.zeros_like(below), half, 0, len(weights))
        last = high - low - 1
        # For an even number of draws, the median is the mean of the two middle values, which may belong to two items.
        first, second = np.count_nonzero(counted < wanted, axis=1), np.count_nonzero(counted <= wanted, axis=1)
        values = self._sorted[k, low:high]
        median: np.ndarray = (values[np.minimum(first, last)] + values[np.minimum(second, last)]) / 2
        return np.where(np.isnan(half), math.nan, median)
