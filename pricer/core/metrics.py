"""Metrics: the definitions of everything that an evaluation measures, and the measured values.

This module does not import numpy, because the command line lists the metrics in `--help`.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pricer.core.units import DOLLARS, PriceUnit

if TYPE_CHECKING:
    import numpy as np

    from pricer.core.evaluation import ScoreTable

Unit = Literal["price", "share", "number"]
Better = Literal["lower", "higher"]

# 0.975 quantile of the standard normal distribution, for two-sided 95 % intervals.
Z95 = 1.959963984540054

# The hits of the published models: an error below $40. It suits a data set whose median price is within this range.
_USUAL_HIT_ERROR = 40.0
_USUAL_MEDIANS = (40.0, 4000.0)


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """How answers are judged. An answer is a hit if its error is below `hit_error` (in units; None: there is no such
    limit), or below `hit_share` of the price. Logarithms are of the price plus one step of the unit.
    """

    unit: PriceUnit = DOLLARS
    hit_error: float | None = _USUAL_HIT_ERROR
    hit_share: float = 0.2


DEFAULT_RULE = ScoreRule()


def choose_hit_error(
    wanted: float | Literal["auto"] | None, unit: PriceUnit, train_median: float
) -> tuple[float | None, str]:
    """The error below which an answer is a hit whatever the price is (None: no such error), and the reason."""
    if wanted != "auto":
        return wanted, "set in the config"
    low, high = _USUAL_MEDIANS
    if unit.symbol == "$" and low <= train_median <= high:
        return _USUAL_HIT_ERROR, f"usual for median prices from {unit.exact(low)} to {unit.exact(high)}"
    return None, f"{DOLLARS.exact(_USUAL_HIT_ERROR)} says nothing about a median of {unit.rounded(train_median)}"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric. `label` names it in tables and charts, `meaning` explains it on the model card. In it, `{unit}` is
    the unit of prices, `{step}` its step, and `{limits}` the limits of a hit.

    `per_item` returns each item's contribution, (items,). `formula` combines the contributions into one value.
    `interval` is the kind of 95 % interval, or None. `can_choose`: whether `pricer pick` may choose by this metric.
    `is_essential`: whether narrow tables keep its column. `on_wandb`: whether W&B shows it.
    """

    name: str
    label: str
    meaning: str
    unit: Unit
    per_item: Callable[["ScoreTable"], "np.ndarray"]
    better: Better = "lower"
    formula: Literal["mean", "root_mean", "median", "explained"] = "mean"
    interval: Literal["mean", "wilson"] | None = None
    can_choose: bool = True
    is_essential: bool = False
    on_wandb: bool = True

    def measure(self, table: "ScoreTable") -> "Metric":
        """The value of this metric for one evaluation's scores."""
        values, interval = self.per_item(table), None
        if self.interval == "mean":
            interval = mean_interval(values)
        elif self.interval == "wilson":
            interval = wilson_interval(int(values.sum()), len(table))
        return Metric(self.name, self._value(values, table.price), interval, len(table), self.better)

    def _value(self, values: "np.ndarray", price: "np.ndarray") -> float | None:
        match self.formula:
            case "mean":
                return float(values.mean())
            case "root_mean":
                return math.sqrt(values.mean())
            case "median":
                return float(statistics.median(values.tolist()))
            case "explained":
                # R² is undefined if all prices are equal.
                spread = price_spread(price)
                return 1 - float(values.sum()) / spread if spread > 0 else None


METRICS = {
    metric.name: metric
    for metric in (
        MetricDefinition(
            name="mae",
            label="MAE",
            meaning="mean absolute error in {unit}",
            unit="price",
            per_item=lambda table: table.abs_error,
            interval="mean",
            is_essential=True,
        ),
        MetricDefinition(
            name="median_ae",
            label="median error",
            meaning="median absolute error in {unit}",
            unit="price",
            per_item=lambda table: table.abs_error,
            formula="median",
        ),
        MetricDefinition(
            name="rmsle",
            label="RMSLE",
            meaning="root mean squared error of ln(price + {step})",
            unit="number",
            per_item=lambda table: table.log_error**2,
            formula="root_mean",
        ),
        MetricDefinition(
            name="r2",
            label="R²",
            meaning="share of the price variance explained",
            unit="number",
            better="higher",
            per_item=lambda table: table.abs_error**2,
            formula="explained",
            on_wandb=False,
        ),
        MetricDefinition(
            name="mape",
            label="MAPE",
            meaning="mean absolute error as a share of the price",
            unit="share",
            per_item=lambda table: table.abs_error / table.price,
            on_wandb=False,
        ),
        MetricDefinition(
            name="hit_rate",
            label="hits",
            meaning="answers off by less than {limits} of the price",
            unit="share",
            better="higher",
            per_item=lambda table: table.hit,
            interval="wilson",
            is_essential=True,
        ),
        MetricDefinition(
            name="no_price",
            label="no price",
            meaning="answers without a price in them",
            unit="share",
            per_item=lambda table: ~table.has_price,
            interval="wilson",
            can_choose=False,
            is_essential=True,
        ),
    )
}
"""Every metric by its name, in the order in which tables show them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The value of a metric over `n` items, None if the metric is undefined. `interval` is the 95 % interval, None if
    none is computed.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None
    n: int
    better: Better


def choosing_metrics() -> list[str]:
    """The names of the metrics by which a checkpoint can be chosen."""
    return [name for name, metric in METRICS.items() if metric.can_choose]


def measure_all(table: "ScoreTable") -> tuple[Metric, ...]:
    """The value of every metric, in the order of METRICS. Raises a ValueError if the table is empty."""
    if not len(table):
        raise ValueError("nothing to score")
    return tuple(metric.measure(table) for metric in METRICS.values())


def price_spread(price: "np.ndarray") -> float:
    """The sum of squared deviations of the prices from their mean; exactly 0 if all prices are equal."""
    # The mean of equal prices may be rounded: the mean of 0.10, 0.10 and 0.10 is 0.10000000000000002.
    return float(((price - price.mean()) ** 2).sum()) if price.min() < price.max() else 0.0


def mean_interval(values: "np.ndarray") -> tuple[float, float] | None:
    """Mean ± 1.96 s/√n, where s is the standard deviation with n − 1 degrees of freedom. None for a single value."""
    if len(values) < 2:
        return None
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return mean - half, mean + half


def wilson_interval(count: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927). It stays within 0 and 1, even for a share of 0 or 1."""
    share, z2 = count / n, Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
