"""Calibration: corrects the model's intervals on validation items, separately for groups of items.

The correction is conformalised quantile regression (Romano, Patterson & Candès 2019, arXiv 1905.03222, §4), by group
(Vovk, Lindsay, Nouretdinov & Gammerman 2003, "Mondrian confidence machine"). A random split makes validation and test
items exchangeable. Then the intervals of each group contain the price with the requested probability c, however wrong
the raw intervals are. This holds on average over items and validation sets. With n validation items in a group, its
coverage varies by about √(c(1 − c)/n) from one calibration to the next. The promise ignores that the checkpoint was
chosen on the same items, and that the tilt (see `_Scores`) and the bands were found on them.

The group of an item must be known before its price: it is the category, and the band of the estimate. No method that
sees only the text can promise anything for items of a certain true price. Nothing is promised for a category with too
few items either: its items are corrected like all items together.

The correction multiplies the ends (plus one step of the unit, $1 by default) by factors instead of adding amounts,
because errors grow with the price. In simulations both methods cover 80 % of all items. With an added amount, however,
the coverage is 98 % for the cheapest fifth and 50 % for the most expensive fifth. A fixed $1 acts like an added amount
where most prices are below it: 96 % and 64 % of goods of about $0.60 (tests/core/test_calibration.py).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from pricer.core.evaluation import EvalSpec
from pricer.core.intervals import LEVELS, Interval, pair_with_prices, raw_interval
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.core.units import PriceUnit

# The fewest validation items that make a group of their own.
GROUP_MIN = 100
# More bands would have fewer items each, and vary more.
_MOST_BANDS = 5
# Above any quotient of two prices, and far enough below infinity.
_HIGHEST_FACTOR = 1e100


@dataclass(frozen=True, slots=True)
class Correction:
    """The correction of the intervals of one `level`: the lower end + one step is divided by `low`, and the upper end +
    one step is multiplied by `high`.
    """

    level: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < min(self.low, self.high) <= max(self.low, self.high) < _HIGHEST_FACTOR:
            raise ValueError(f"{self.low} and {self.high} cannot be factors of a correction")

    def apply(self, raw: Interval, median: float, unit: PriceUnit) -> Interval:
        """The corrected interval, at least 0 and in whole hundredths of a step. It contains the median of the
        distribution: an end that a factor below 1 would move beyond the median stays there.
        """
        step = unit.step
        low = min(median, max(0.0, (raw[0] + step) / self.low - step))
        high = max(median, (raw[1] + step) * self.high - step)
        # Round outwards. A price often lies exactly on an end; without rounding, the last bit of a float would decide
        # whether the interval contains it.
        return unit.round_down(low), unit.round_up(high)


@dataclass(frozen=True, slots=True)
class CalibrationGroup:
    """The items of a `category` (None: of all) whose estimate is higher than `above` and at most `up_to` (None: no
    limit), and the `corrections` that the `n` validation items among them gave. A level for which they were too few has
    no correction. The estimate is the median of the model's distribution, whatever `eval.estimator` is.
    """

    category: str | None
    above: float | None
    up_to: float | None
    n: int
    corrections: tuple[Correction, ...]

    def holds(self, category: str | None, estimate: float) -> bool:
        """Whether an item of this category, with this estimate, belongs to it."""
        is_in_band = (self.above is None or estimate > self.above) and (self.up_to is None or estimate <= self.up_to)
        return is_in_band and self.category in (None, category)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The corrections of a checkpoint's intervals. An item is corrected by the first of the `groups` that holds it:
    those of categories come first, those of all items last.

    They were computed from `n` validation items. Another `no_price` items had no interval, so the promise applies only
    to items with one. A step of the prices is 10^-`decimals`; a ValueError for impossible decimals.
    """

    n: int
    no_price: int
    decimals: int
    groups: tuple[CalibrationGroup, ...]

    def __post_init__(self) -> None:
        PriceUnit(decimals=self.decimals)

    @property
    def validation_items(self) -> int:
        """The number of validation items, with and without an interval."""
        return self.n + self.no_price

    def find_group(self, prediction: Prediction, category: str | None) -> CalibrationGroup | None:
        """The group that corrects the interval of an item of this category; None if the item has no interval."""
        distribution = prediction.distribution
        if distribution is None or distribution.is_silent:
            return None
        return next((group for group in self.groups if group.holds(category, distribution.median)), None)

    def correct(self, prediction: Prediction, category: str | None) -> dict[float, Interval | None]:
        """The intervals of an item by level, corrected if its group has a correction; None if it has no interval. Each
        level's interval contains those of the lower levels: the levels are corrected one by one, so it is widened where
        it does not.
        """
        distribution = prediction.distribution
        if distribution is None or distribution.is_silent:
            return dict.fromkeys(LEVELS)
        group = self.find_group(prediction, category)
        corrections = {correction.level: correction for correction in group.corrections} if group else {}
        unit = PriceUnit(decimals=self.decimals)
        found: dict[float, Interval | None] = {}
        inner = distribution.median, distribution.median
        for level in LEVELS:
            ends = distribution.interval(level)
            if level in corrections:
                ends = corrections[level].apply(ends, distribution.median, unit)
            found[level] = inner = min(ends[0], inner[0]), max(ends[1], inner[1])
        return found


def calibrate(predictions: Sequence[Prediction], items: Sequence[Item], decimals: int = 0) -> Calibration | None:
    """Learn the corrections from one Prediction per validation item, in the same order. None if too few items have an
    interval: fewer than 4.

    Each category of at least GROUP_MIN items is divided into bands of the estimate, see `find_edges`. So are all items
    together, for the items of other categories. First each end is moved by a factor from all items, which makes
    intervals asymmetric if errors are. Then both ends of a group's intervals are moved by one more factor, which
    contains the share of the level of its items. Raises a ValueError for an invalid interval.
    """
    pairs = list(zip(predictions, items, strict=True))
    kept = [(p, p.distribution, item) for p, item in pairs if p.distribution and not p.distribution.is_silent]
    prices, estimates = np.array([(item.price, d.median) for _, d, item in kept]).reshape(-1, 2).T
    scores = {
        level: _score([raw_interval(p, level) for p, _, _ in kept], prices, estimates, level, decimals)
        for level in LEVELS
    }
    sizes = Counter(item.category for _, _, item in kept)
    own = sorted(name for name, n in sizes.items() if name is not None and n >= GROUP_MIN)
    groups = []
    for category in (*own, None):
        in_category = np.array([category in (None, item.category) for _, _, item in kept], dtype=np.bool_)
        edges = find_edges(estimates[in_category])
        for above, up_to in pairwise((None, *edges, None)):
            band = CalibrationGroup(category, above, up_to, 0, ())
            chosen = np.array([band.holds(item.category, d.median) for _, d, item in kept], dtype=np.bool_)
            factors = {level: find_rank(scores[level].factor[chosen], level) for level in LEVELS}
            corrections = [
                Correction(level, *(scores[level].tilt * factor).tolist())
                for level, factor in factors.items()
                if factor is not None
            ]
            groups.append(replace(band, n=int(chosen.sum()), corrections=tuple(corrections)))
    if not groups[-1].corrections:  # the last group is the largest
        return None
    return Calibration(len(kept), len(items) - len(kept), decimals, tuple(groups))


def find_edges(estimates: np.ndarray) -> tuple[float, ...]:
    """The estimates that separate at most five bands, of about equally many estimates and at least GROUP_MIN each. An
    edge belongs to the band below it, and so do all estimates equal to it.
    """
    ordered, edges, start = np.sort(estimates), list[float](), 0
    size = max(GROUP_MIN, len(ordered) // _MOST_BANDS)
    while len(ordered) - start >= size + GROUP_MIN:
        edge = ordered[start + size - 1]
        start = int(np.searchsorted(ordered, edge, side="right"))
        if len(ordered) - start >= GROUP_MIN:
            edges.append(float(edge))
    return tuple(edges)


@dataclass(frozen=True)
class _Scores:
    """How far each price lies outside its interval of a level. `tilt` (2,) are the factors that leave a share of
    (1 − level) / 2 of all prices outside the lower and the upper end; 1 with fewer than GROUP_MIN items. `factor`
    (items,) is one more factor for both ends, at which the interval just contains the price. One factor for each group
    varies less than two. All factors apply to the ends + one step.
    """

    tilt: np.ndarray
    factor: np.ndarray


def _score(
    raw: Sequence[Interval | None], prices: np.ndarray, estimates: np.ndarray, level: float, decimals: int
) -> _Scores:
    step = PriceUnit(decimals=decimals).step
    low, high, price = np.array(pair_with_prices(raw, prices.tolist())).reshape(-1, 3).T + step
    ratios = np.stack([low / price, price / high])
    tilt = np.ones(2)
    if len(price) >= GROUP_MIN:
        tilt = np.array([find_rank(side, round((1 + level) / 2, 6)) for side in ratios])
    # A corrected interval contains the median, so only the end on the price's side of the median can exclude the price.
    is_beyond = np.stack([prices <= estimates, prices >= estimates])
    return _Scores(tilt, np.where(is_beyond, ratios / tilt[:, None], 0).max(axis=0))


def find_rank(scores: np.ndarray, share: float) -> float | None:
    """The ⌈(n + 1) · share⌉-th lowest of n scores, which a further score does not exceed with at least that
    probability. None if there are too few scores: fewer than 4 for 0.8, or 19 for 0.95.
    """
    # An exact fraction: in floats, 100 × 0.55 is 55.00000000000001 and would be rounded up to 56.
    rank = math.ceil((len(scores) + 1) * Fraction(str(share)))
    return None if rank > len(scores) else float(np.sort(scores)[rank - 1])


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
