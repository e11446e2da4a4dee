"""Scores and metrics: how far off a Prediction is, and what that sums up to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pricer.core.items import Item
from pricer.core.predictions import Prediction

Better = Literal["lower", "higher"]

# 0.975 quantile of the standard normal distribution: two-sided 95 % intervals.
_Z95 = 1.959963984540054

# What an evaluation has, in the order it is shown.
METRICS = ("mae", "median_ae", "rmsle", "r2", "mape", "hit_rate", "no_price")


@dataclass(frozen=True, slots=True)
class Score:
    """One Prediction judged against its Item.

    `charged` is the price in dollars that the errors are computed from: the estimate, or, where there was none, the
    fallback. `hit` is an error below $40 or below 20 % of the price; an answer without a price is never one.
    `log_error` is ln(charged + 1) − ln(price + 1).
    """

    item_id: str
    price: float
    charged: float
    answered: bool
    abs_error: float
    log_error: float
    hit: bool


@dataclass(frozen=True, slots=True)
class Metric:
    """Scores summed up. `interval` is the 95 % interval, None where none is computed; `value` is None if undefined."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    n: int
    better: Better


def score(prediction: Prediction, item: Item, fallback: float, estimator: str = "greedy") -> Score:
    """Judge one Prediction by one estimator. One without a price is charged as `fallback` dollars, the train median:
    the answer that costs nothing to give, so silence neither pays ($0 would flatter cheap items) nor vanishes.
    """
    estimate = prediction.estimate(estimator)
    charged = fallback if estimate is None else estimate
    abs_error = abs(charged - item.price)
    return Score(
        item_id=item.id,
        price=item.price,
        charged=charged,
        answered=estimate is not None,
        abs_error=abs_error,
        log_error=math.log1p(charged) - math.log1p(item.price),
        hit=estimate is not None and (abs_error < 40 or abs_error < 0.2 * item.price),
    )


def summarise(scores: Sequence[Score]) -> tuple[Metric, ...]:
    """All metrics of these Scores, in the order they are shown. No scores is a ValueError."""
    if not scores:
        raise ValueError("nothing to score")
    n = len(scores)
    abs_errors = np.array([s.abs_error for s in scores])
    log_errors = np.array([s.log_error for s in scores])
    prices = np.array([s.price for s in scores])
    hits = sum(s.hit for s in scores)
    silent = sum(not s.answered for s in scores)
    spread = float(np.sum((prices - prices.mean()) ** 2)) if prices.min() < prices.max() else 0.0
    squared = float(np.sum(abs_errors**2))
    return (
        Metric("mae", float(abs_errors.mean()), mean_interval(abs_errors), n, "lower"),
        Metric("median_ae", float(np.median(abs_errors)), None, n, "lower"),
        Metric("rmsle", float(np.sqrt(np.mean(log_errors**2))), None, n, "lower"),
        # Equal prices leave nothing to explain: R² is undefined there, not 0 and not -inf. (Their mean may be rounded,
        # so they are compared themselves: three prices of 0.10 have a mean of 0.10000000000000002.)
        Metric("r2", 1 - squared / spread if spread > 0 else None, None, n, "higher"),
        Metric("mape", float(np.mean(abs_errors / prices)), None, n, "lower"),
        Metric("hit_rate", hits / n, wilson_interval(hits, n), n, "higher"),
        Metric("no_price", silent / n, wilson_interval(silent, n), n, "lower"),
    )


def mean_abs_error(scores: Sequence[Score], name: str) -> Metric:
    """The mean absolute error of these Scores under another name, for figures of one kind side by side."""
    abs_errors = np.array([s.abs_error for s in scores])
    return Metric(name, float(abs_errors.mean()), mean_interval(abs_errors), len(scores), "lower")


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Mean ± 1.96 s/√n (s with n − 1), from deviations, so that no variance rounds to below zero. n = 1: None."""
    if len(values) < 2:
        return None
    half = _Z95 * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return mean - half, mean + half


def wilson_interval(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), which stays within 0 and 1 even for 0 of n."""
    share, z2 = count / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
