"""Intervals: the price range that a model gives, corrected on validation items, and how often it holds the price.

The correction is conformalised quantile regression (Romano, Patterson & Candès 2019, arXiv 1905.03222, §4). If
validation and test items are exchangeable, as a random split makes them, a corrected interval holds the price of a test
item with at least the probability asked for, however wrong the raw intervals are. This holds on average over items and
validation sets: with n validation items, the share that one calibration reaches varies by about √(c(1 − c)/n). Nothing
is promised for cheap or for dear items alone, nor for what choosing the checkpoint on the same items was worth.

Ends are multiplied by a factor (on price + 1) and not moved by dollars, because errors grow with the price: in
tests/core/test_intervals.py both hold 80 %, but by dollars it is 98 % of the cheapest fifth and 50 % of the dearest.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pricer.core.evaluation import EvalSpec, ScoreTable
from pricer.core.items import Split
from pricer.core.metrics import mean_interval, wilson_interval
from pricer.core.predictions import Prediction

# The lowest and the highest price, in dollars; both belong to it.
Interval = tuple[float, float]

# The shares of prices that intervals are made to hold.
LEVELS = (0.8, 0.95)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How raw intervals are corrected, so that a share `coverage` of them hold the price.

    At the upper end price + 1 is multiplied by `factor`, at the lower end it is divided. It comes from `n` validation
    items; `no_price` others had no interval, so the promise is for items that have one.
    """

    coverage: float
    factor: float
    n: int
    no_price: int

    def apply(self, raw: Interval | None) -> Interval | None:
        """The corrected interval, of at least $0 and in whole cents; None (no price) stays None. Ends that would cross
        meet half-way between the raw ones, in ln(price + 1).
        """
        if raw is None:
            return None
        low, high = (raw[0] + 1) / self.factor - 1, (raw[1] + 1) * self.factor - 1
        if low > high:
            low = high = math.sqrt((raw[0] + 1) * (raw[1] + 1)) - 1
        # Outwards: prices and raw ends repeat, so a price often lies exactly on an end, where the last bit of a float
        # would decide.
        return max(0.0, math.floor(low * 100) / 100), math.ceil(high * 100) / 100


def calibrate(raw: Sequence[Interval | None], prices: Sequence[float], coverage: float) -> Calibration | None:
    """Learn the correction from raw intervals of validation items and their prices, in the same order.

    The conformity score of an item is max(ln(low + 1) − ln(price + 1), ln(price + 1) − ln(high + 1)); the correction is
    the ⌈(n + 1) · coverage⌉-th lowest of n scores. None where there is no such score (fewer than 4 intervals at 0.8, or
    19 at 0.95). An invalid interval is a ValueError.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage of {coverage} is not between 0 and 1")
    pairs = _with_interval(raw, prices)
    # By the level as it is written: in floats 100 × 0.55 is 55.00000000000001, and would be rounded up to 56.
    rank = math.ceil((len(pairs) + 1) * Fraction(str(coverage)))
    if rank > len(pairs):
        return None
    low, high, price = np.array(pairs).T + 1
    # The scores are the logarithms of these ratios, and sort alike.
    scores = np.sort(np.maximum(low / price, price / high))
    return Calibration(coverage, float(scores[rank - 1]), len(pairs), len(raw) - len(pairs))


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of items whose price lies in their interval, with the share's 95 % interval (Wilson). An item without
    an interval is not covered. Widths are in dollars, over items that have an interval; None: no item has one.
    """

    share: float
    interval: tuple[float, float]
    mean_width: float | None
    median_width: float | None


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """The intervals of `n` test items that should hold a share `level` of prices, as the model gives them and
    corrected.

    `no_price` items have no interval and count as not covered, so that saying nothing does not look like knowledge.
    `calibration` and `conformal` are None where there were too few validation items.
    """

    level: float
    n: int
    no_price: int
    calibration: Calibration | None
    raw: Coverage
    conformal: Coverage | None


def report_coverage(
    raw: Sequence[Interval | None], prices: Sequence[float], level: float, calibration: Calibration | None
) -> CoverageReport:
    """Measure intervals of test items against their prices, in the same order. The calibration must come from other
    items; one for another level is a ValueError.
    """
    if calibration is not None and calibration.coverage != level:
        raise ValueError(f"intervals of {level} cannot be corrected by a calibration for {calibration.coverage}")
    return CoverageReport(
        level=level,
        n=len(raw),
        no_price=sum(interval is None for interval in raw),
        calibration=calibration,
        raw=_coverage(raw, prices),
        conformal=None if calibration is None else _coverage([calibration.apply(one) for one in raw], prices),
    )


def _coverage(intervals: Sequence[Interval | None], prices: Sequence[float]) -> Coverage:
    pairs = _with_interval(intervals, prices)
    covered = sum(low <= price <= high for low, high, price in pairs)
    widths = np.array([high - low for low, high, _ in pairs])
    return Coverage(
        share=covered / len(intervals),
        interval=wilson_interval(covered, len(intervals)),
        mean_width=float(widths.mean()) if pairs else None,
        median_width=float(np.median(widths)) if pairs else None,
    )


def _with_interval(intervals: Sequence[Interval | None], prices: Sequence[float]) -> list[tuple[float, float, float]]:
    """Low, high and price of the items that have an interval."""
    pairs = [(*ends, price) for ends, price in zip(intervals, prices, strict=True) if ends is not None]
    for low, high, _ in pairs:
        if not 0 <= low <= high < math.inf:  # NaN fails it too
            raise ValueError(f"{low} to {high} dollars is no interval")
    return pairs


@dataclass(frozen=True, slots=True)
class AbstentionPoint:
    """The mean absolute error in dollars, with its 95 % interval (None for one item), if the model answers only the `n`
    items it is most certain of, a `share` of all.
    """

    share: float
    n: int
    mae: float
    interval: tuple[float, float] | None


def abstention_curve(table: ScoreTable, intervals: Sequence[Interval | None]) -> tuple[AbstentionPoint, ...]:
    """The errors of the most certain 10, 20, …, 100 % of items, each rounded up to whole items.

    The narrower an item's corrected interval is, relative to the estimate + $1, the more certain is the item. Items
    without a price or an interval come last, with the imputed price: the last point is the MAE of all items.
    """
    uncertainty = [
        math.inf if ends is None or not has_price else (ends[1] - ends[0]) / (imputed + 1)
        for ends, has_price, imputed in zip(intervals, table.has_price.tolist(), table.imputed.tolist(), strict=True)
    ]
    abs_errors = table.abs_error[np.lexsort((table.item_id, np.array(uncertainty)))]
    points = []
    for tenth in range(1, 11):
        n = math.ceil(len(abs_errors) * tenth / 10)
        kept = abs_errors[:n]
        points.append(AbstentionPoint(tenth / 10, n, float(kept.mean()), mean_interval(kept)))
    return tuple(points)


def raw_interval(prediction: Prediction, level: float) -> Interval | None:
    """The interval of a prediction as the model gives it; None where it has no distribution or no price."""
    distribution = prediction.distribution
    return None if distribution is None or distribution.is_silent else distribution.interval(level)


def calibration_spec(specs: Iterable[EvalSpec], spec: EvalSpec) -> EvalSpec | None:
    """The spec whose evaluation calibrates the intervals of the same checkpoint under `spec`: of those that differ from
    it in the items alone, the one with the most validation items. None where there is none, and for validation items,
    which must not calibrate themselves.
    """
    if spec.split is not Split.TEST:
        return None
    alike = [
        one for one in specs if one.split is Split.VAL and replace(one, split=spec.split, limit=spec.limit) == spec
    ]
    return max(alike, key=lambda one: math.inf if one.limit is None else one.limit, default=None)
