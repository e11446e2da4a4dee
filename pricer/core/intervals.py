"""Intervals: the model's price ranges, and how often they contain the true price. calibration.py corrects them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.evaluation import ScoreTable
from pricer.core.metrics import mean_interval, wilson_interval
from pricer.core.predictions import Prediction

# The lowest and the highest price, both included.
Interval = tuple[float, float]

# The shares of prices that intervals should contain, in ascending order.
LEVELS = (0.8, 0.95)


def raw_interval(prediction: Prediction, level: float) -> Interval | None:
    """The uncorrected interval of a prediction; None if the prediction has no distribution or no price."""
    distribution = prediction.distribution
    return None if distribution is None or distribution.is_silent else distribution.interval(level)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The `share` of items whose price lies in their interval, with the 95 % `interval` of the share (Wilson).

    An item without an interval counts as not covered, so a model gains nothing by withholding a price. Widths are means
    and medians over the items that have an interval, and None if no item has one.
    """

    share: float
    interval: tuple[float, float]
    mean_width: float | None
    median_width: float | None


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """The coverage of intervals on `n` test items, which should contain a share `level` of the prices: `raw` from the
    model, and `conformal` after the correction. `conformal` is None if nothing corrected them. `no_price` items have no
    interval.
    """

    level: float
    n: int
    no_price: int
    raw: Coverage
    conformal: Coverage | None


def report_coverage(
    level: float, raw: Sequence[Interval | None], corrected: Sequence[Interval | None] | None, prices: Sequence[float]
) -> CoverageReport:
    """Compare the intervals of a level with the prices of the same items, in the same order. `corrected` is None if
    nothing corrected them. A correction must come from other items.
    """
    conformal = None if corrected is None else measure_coverage(corrected, prices)
    no_price = sum(ends is None for ends in raw)
    return CoverageReport(level, len(raw), no_price, measure_coverage(raw, prices), conformal)


def measure_coverage(intervals: Sequence[Interval | None], prices: Sequence[float]) -> Coverage:
    """The coverage of intervals, which are in the order of the prices. A ValueError for an invalid interval."""
    pairs = pair_with_prices(intervals, prices)
    covered = sum(low <= price <= high for low, high, price in pairs)
    widths = np.array([high - low for low, high, _ in pairs])
    return Coverage(
        share=covered / len(intervals),
        interval=wilson_interval(covered, len(intervals)),
        mean_width=float(widths.mean()) if pairs else None,
        median_width=float(np.median(widths)) if pairs else None,
    )


def pair_with_prices(intervals: Sequence[Interval | None], prices: Sequence[float]) -> list[tuple[float, float, float]]:
    """Low, high and price of the items that have an interval. A ValueError for an invalid interval."""
    pairs = [(*ends, price) for ends, price in zip(intervals, prices, strict=True) if ends is not None]
    for low, high, _ in pairs:
        if not 0 <= low <= high < math.inf:  # NaN also fails this comparison
            raise ValueError(f"{low} to {high} is no interval")
    return pairs


@dataclass(frozen=True, slots=True)
class AbstentionPoint:
    """The mean absolute error on the `n` items of which the model is most certain, a `share` of all items, with a
    95 % `interval` (None for a single item).
    """

    share: float
    n: int
    mae: float
    interval: tuple[float, float] | None


def abstention_curve(table: ScoreTable, intervals: Sequence[Interval | None]) -> tuple[AbstentionPoint, ...]:
    """The errors of the most certain 10, 20, …, 100 % of items, each rounded up to whole items.

    An item is more certain the narrower its corrected interval is, relative to the estimate + one step. Items without a
    price or an interval come last and are scored with the imputed price, so the last point is the MAE of all items.
    """
    step = table.rule.unit.step
    uncertainty = [
        math.inf if ends is None or not has_price else (ends[1] - ends[0]) / (imputed + step)
        for ends, has_price, imputed in zip(intervals, table.has_price.tolist(), table.imputed.tolist(), strict=True)
    ]
    abs_errors = table.abs_error[np.lexsort((table.item_id, np.array(uncertainty)))]
    points = []
    for tenth in range(1, 11):
        n = math.ceil(len(abs_errors) * tenth / 10)
        kept = abs_errors[:n]
        points.append(AbstentionPoint(tenth / 10, n, float(kept.mean()), mean_interval(kept)))
    return tuple(points)
