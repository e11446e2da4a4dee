"""Intervals: a model's price ranges, corrected on validation items, and how often they contain the true price.

The correction is conformalised quantile regression (Romano, Patterson & Candès 2019, arXiv 1905.03222, §4). A random
split makes validation and test items exchangeable. Then a corrected interval contains the price of a test item with at
least the requested probability c, however wrong the raw intervals are. This holds on average over items and validation
sets. With n validation items, the coverage of a single calibration varies by about √(c(1 − c)/n). There is no guarantee
for cheap or expensive items alone. The guarantee also ignores that the checkpoint was chosen on the same items.

The correction multiplies the ends (plus one step of the unit, $1 by default) by a factor instead of adding an amount,
because errors grow with the price. In simulations both methods cover 80 % of all items. With an added amount, however,
the coverage is 98 % for the cheapest fifth and 50 % for the most expensive fifth. A fixed $1 acts like an added amount
where most prices are below it: 96 % and 64 % of goods of about $0.60 (tests/core/test_intervals.py).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pricer.core.evaluation import EvalSpec, ScoreTable
from pricer.core.items import Split
from pricer.core.metrics import mean_interval, wilson_interval
from pricer.core.predictions import Prediction
from pricer.core.units import PriceUnit

# The lowest and the highest price, both included.
Interval = tuple[float, float]

# The shares of prices that intervals should contain.
LEVELS = (0.8, 0.95)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The correction of raw intervals. After it, a share `coverage` of the intervals should contain the price.

    The upper end + one step is multiplied by `factor`, and the lower end + one step is divided by it. A step is
    10^-`decimals`. The factor was computed from `n` validation items. Another `no_price` items had no interval, so
    `coverage` applies only to items with one.
    """

    coverage: float
    factor: float
    n: int
    no_price: int
    decimals: int = 0

    @property
    def validation_items(self) -> int:
        """The number of validation items, with and without an interval."""
        return self.n + self.no_price

    def apply(self, raw: Interval | None) -> Interval | None:
        """The corrected interval, at least 0 and in whole hundredths of a step; None (no price) stays None. If the
        corrected ends would cross, both become the midpoint of the raw ends in ln(price + step).
        """
        if raw is None:
            return None
        unit = PriceUnit(decimals=self.decimals)
        step = unit.step
        low, high = (raw[0] + step) / self.factor - step, (raw[1] + step) * self.factor - step
        if low > high:
            low = high = math.sqrt((raw[0] + step) * (raw[1] + step)) - step
        # Round outwards. A price often lies exactly on an end; without rounding, the last bit of a float would decide
        # whether the interval contains it.
        return max(0.0, unit.round_down(low)), unit.round_up(high)


def calibrate(
    raw: Sequence[Interval | None], prices: Sequence[float], coverage: float, decimals: int = 0
) -> Calibration | None:
    """Learn the correction from raw intervals of validation items and their prices, in the same order.

    With s, a step of 10^-`decimals`, the conformity score of an item is the larger of ln(low + s) − ln(price + s) and
    ln(price + s) − ln(high + s). The correction is the ⌈(n + 1) · coverage⌉-th lowest of n scores. Returns None if
    there are too few scores: fewer than 4 intervals for 0.8, or 19 for 0.95. Raises a ValueError for an invalid
    interval.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage of {coverage} is not between 0 and 1")
    pairs = _with_interval(raw, prices)
    # An exact fraction: in floats, 100 × 0.55 is 55.00000000000001 and would be rounded up to 56.
    rank = math.ceil((len(pairs) + 1) * Fraction(str(coverage)))
    if rank > len(pairs):
        return None
    low, high, price = np.array(pairs).T + PriceUnit(decimals=decimals).step
    # The scores are the logarithms of these ratios. Ratios have the same order.
    scores = np.sort(np.maximum(low / price, price / high))
    return Calibration(coverage, float(scores[rank - 1]), len(pairs), len(raw) - len(pairs), decimals)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The `share` of items whose price lies in their interval, with the 95 % `interval` of the share (Wilson).

    An item without an interval counts as not covered. Widths are means and medians over the items
    that have an interval, and None if no item has one.
    """

    share: float
    interval: tuple[float, float]
    mean_width: float | None
    median_width: float | None


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """The coverage of intervals on `n` test items, which should contain a share `level` of the prices: `raw` from the
    model, and `conformal` after the correction.

    `no_price` items have no interval and count as not covered, so a model gains nothing by withholding a price.
    `calibration` and `conformal` are None if there were too few validation items.
    """

    level: float
    n: int
    no_price: int
    calibration: Calibration | None
    raw: Coverage
    conformal: Coverage | None


def correct(
    raw: Mapping[float, Interval | None], calibrations: Mapping[float, Calibration | None]
) -> dict[float, Interval | None]:
    """The intervals of one item by level, corrected where there is a Calibration. Each level's interval contains those
    of the lower levels: the levels are corrected one by one, so it is widened where it does not.
    """
    corrected: dict[float, Interval | None] = {}
    inner: Interval | None = None
    for level in sorted(raw):
        calibration = calibrations.get(level)
        ends = raw[level] if calibration is None else calibration.apply(raw[level])
        if ends and inner:
            ends = min(ends[0], inner[0]), max(ends[1], inner[1])
        corrected[level] = inner = ends
    return corrected


def report_coverage(
    raw: Sequence[Interval | None],
    prices: Sequence[float],
    level: float,
    calibration: Calibration | None,
    corrected: Sequence[Interval | None] | None = None,
) -> CoverageReport:
    """Compare the intervals of test items with their prices, in the same order. The calibration must come from other
    items. `corrected` are the intervals after `correct`; None: corrected by this calibration alone. Raises a ValueError
    if it is for another level.
    """
    if calibration is not None and calibration.coverage != level:
        raise ValueError(f"intervals of {level} cannot be corrected by a calibration for {calibration.coverage}")
    return CoverageReport(
        level=level,
        n=len(raw),
        no_price=sum(interval is None for interval in raw),
        calibration=calibration,
        raw=_coverage(raw, prices),
        conformal=None if calibration is None else _coverage(corrected or [calibration.apply(r) for r in raw], prices),
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


def raw_interval(prediction: Prediction, level: float) -> Interval | None:
    """The uncorrected interval of a prediction; None if the prediction has no distribution or no price."""
    distribution = prediction.distribution
    return None if distribution is None or distribution.is_silent else distribution.interval(level)


def calibration_spec(specs: Iterable[EvalSpec], spec: EvalSpec) -> EvalSpec | None:
    """The validation spec that calibrates the intervals of the same checkpoint under `spec`, which is for test items or
    for other data.

    It differs from `spec` only in its items. Of several such specs, it is the one with the most items. None if there is
    no such spec, or if `spec` is itself for validation items: they must not calibrate themselves.
    """
    if spec.split is Split.VAL:
        return None
    # Other data have a fingerprint of their own.
    same_data = spec.split is Split.TEST
    alike = [
        one
        for one in specs
        if one.split is Split.VAL
        and (one.data_fingerprint == spec.data_fingerprint or not same_data)
        and replace(one, split=spec.split, limit=spec.limit, data_fingerprint=spec.data_fingerprint) == spec
    ]
    return max(alike, key=lambda one: math.inf if one.limit is None else one.limit, default=None)
