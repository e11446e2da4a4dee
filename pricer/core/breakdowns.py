"""Breakdowns: the error of an evaluation by price band, by category, and for the worst items."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.calibration import Calibration, CalibrationGroup
from pricer.core.evaluation import ScoreTable
from pricer.core.intervals import (
    LEVELS,
    AbstentionPoint,
    Coverage,
    CoverageReport,
    Interval,
    abstention_curve,
    measure_coverage,
    raw_interval,
    report_coverage,
)
from pricer.core.items import Item
from pricer.core.metrics import mean_interval, wilson_interval
from pricer.core.predictions import Prediction

_BANDS = 5


@dataclass(frozen=True, slots=True)
class Group:
    """The scores of a group of items. `name` is None for the items without a category.

    `lowest`, `median` and `highest` describe the true prices. `mae` is the mean of |error|, and `bias` the mean of the
    error (imputed − price). Intervals are 95 % intervals, None for a single item. `no_price` is
    the number of items without an estimate. `coverage` is how often the intervals of LEVELS contain the price,
    corrected if possible; empty without distributions.
    """

    name: str | None
    n: int
    lowest: float
    median: float
    highest: float
    mae: float
    mae_interval: tuple[float, float] | None
    bias: float
    bias_interval: tuple[float, float] | None
    hit_rate: float
    hit_rate_interval: tuple[float, float]
    no_price: int
    coverage: tuple[Coverage, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupCoverage:
    """How often the corrected intervals of LEVELS contain the price of the `n` items that one `group` corrects."""

    group: CalibrationGroup
    n: int
    coverage: tuple[Coverage, ...]


@dataclass(frozen=True, slots=True)
class Tail:
    """The `n` worst items, and their share of the total absolute error. It is None if the total error is zero."""

    n: int
    share_of_items: float
    share_of_error: float | None


@dataclass(frozen=True, slots=True)
class Miss:
    """One item and the error of its answer. `error` is estimate − price; the fallback replaces an
    `estimate` of None. `text` is the description that the model got.
    """

    item_id: str
    text: str
    price: float
    estimate: float | None
    error: float


@dataclass(frozen=True, slots=True)
class NearCopies:
    """The `n` items with a near-copy among the training items, and the errors of the others (None: there are none). A
    model can remember the price of a near-copy, so only the others say what it does with a new product.
    """

    n: int
    others: Group | None


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The breakdown of one evaluation.

    `price_bands` are in ascending order of price, `categories` in descending order of size (empty if no item has a
    category). `worst` has the largest error first. `coverage` has one report for each level of intervals. `coverage`
    and `abstention` are empty without distributions. `calibrated_on` is the number of validation items that corrected
    the intervals, None if the intervals are raw. `corrected_by` has the groups that corrected them, without those that
    corrected none. `near_copies` is None if no item has a near-copy among the training items.
    """

    overall: Group
    price_bands: tuple[Group, ...]
    categories: tuple[Group, ...]
    tail: Tail
    worst: tuple[Miss, ...]
    coverage: tuple[CoverageReport, ...] = ()
    abstention: tuple[AbstentionPoint, ...] = ()
    calibrated_on: int | None = None
    corrected_by: tuple[GroupCoverage, ...] = ()
    near_copies: NearCopies | None = None


def break_down(
    table: ScoreTable,
    items: Sequence[Item],
    predictions: Sequence[Prediction] = (),
    calibration: Calibration | None = None,
    worst: int = 10,
    near_copies: Collection[str] = (),
) -> Breakdown:
    """Break down the scores in `table`. `items` and `predictions` are in the same order as the table. `predictions` are
    only needed for intervals, which `calibration` corrects. `worst` is the number of items to list.
    `near_copies` has the ids of items with a near-copy among the training items; other ids in it do not matter.

    Raises a ValueError if the table is empty or does not match the items.
    """
    if not len(table):
        raise ValueError("nothing to break down")
    if table.item_id.tolist() != [item.id for item in items]:
        raise ValueError(f"{len(table)} scores do not match {len(items)} items")
    # The largest error first, ties by id.
    ranked = np.lexsort((table.item_id, -table.abs_error))
    has_intervals = any(prediction.distribution for prediction in predictions)
    raw = [[raw_interval(p, level) for p in predictions] for level in LEVELS] if has_intervals else []
    shown = raw
    if has_intervals and calibration:
        pairs = [calibration.correct(p, item.category) for p, item in zip(predictions, items, strict=True)]
        shown = [[intervals[level] for intervals in pairs] for level in LEVELS]
    answers = _Answers(table, shown)
    return Breakdown(
        overall=_group("all", answers),
        price_bands=_by_price(answers),
        categories=_by_category(answers, items),
        tail=_tail(table.abs_error[ranked]),
        worst=tuple(_miss(table, items, index) for index in ranked[: max(0, worst)].tolist()),
        coverage=tuple(
            report_coverage(level, ends, shown[index] if calibration else None, table.price.tolist())
            for index, (level, ends) in enumerate(zip(LEVELS, raw, strict=False))
        ),
        abstention=abstention_curve(table, shown[0]) if shown else (),
        calibrated_on=calibration.validation_items if calibration and shown else None,
        corrected_by=_by_correction(answers, items, predictions, calibration) if calibration and shown else (),
        near_copies=_near_copies(answers, near_copies),
    )


@dataclass(frozen=True, eq=False)
class _Answers:
    """Scored answers, and their intervals for each of LEVELS. `intervals` is empty without distributions."""

    table: ScoreTable
    intervals: Sequence[Sequence[Interval | None]]

    def rows(self, chosen: np.ndarray) -> "_Answers":
        """The answers that a mask or an array of indices chooses."""
        indices = np.arange(len(self.table))[chosen].tolist()
        return _Answers(self.table.rows(chosen), [[ends[index] for index in indices] for ends in self.intervals])

    @property
    def coverage(self) -> tuple[Coverage, ...]:
        """How often the intervals of each level contain the price."""
        return tuple(measure_coverage(ends, self.table.price.tolist()) for ends in self.intervals)


def _near_copies(answers: _Answers, ids: Collection[str]) -> NearCopies | None:
    is_copy = np.array([item_id in ids for item_id in answers.table.item_id.tolist()])
    if not is_copy.any():
        return None
    others = None if is_copy.all() else _group("without near-copies", answers.rows(~is_copy))
    return NearCopies(int(is_copy.sum()), others)


def _by_price(answers: _Answers) -> tuple[Group, ...]:
    """The scores in five bands of the true price, in ascending order. Each band has about a fifth of the items. Equal
    prices are in the same band.

    Even unbiased estimates are too high in the cheapest band and too low in the most expensive band (regression to the
    mean). Only the overall bias can be interpreted by itself.
    """
    table, unit = answers.table, answers.table.rule.unit
    prices = np.sort(table.price)
    # The last price of each fifth.
    edges = np.unique([prices[math.ceil(len(prices) * fifth / _BANDS) - 1] for fifth in range(1, _BANDS + 1)])
    band_of = np.searchsorted(edges, table.price)
    # No band is empty: each contains the price at its upper edge.
    bands = [answers.rows(band_of == band) for band in range(len(edges))]
    ends = [(band.table.price.min(), band.table.price.max()) for band in bands]
    names = [unit.price(low) if low == high else unit.price_range(low, high) for low, high in ends]
    return tuple(map(_group, names, bands))


def _by_category(answers: _Answers, items: Iterable[Item]) -> tuple[Group, ...]:
    rows: dict[str | None, list[int]] = {}
    for index, item in enumerate(items):
        rows.setdefault(item.category, []).append(index)
    if rows.keys() == {None}:
        return ()
    # Items without a category come after categories of the same size.
    names = sorted(rows, key=lambda name: (-len(rows[name]), name is None, name or ""))
    return tuple(_group(name, answers.rows(np.array(rows[name]))) for name in names)


def _by_correction(
    answers: _Answers, items: Sequence[Item], predictions: Sequence[Prediction], calibration: Calibration
) -> tuple[GroupCoverage, ...]:
    group_of = [calibration.find_group(p, item.category) for p, item in zip(predictions, items, strict=True)]
    found = []
    for group in calibration.groups:
        chosen = np.array([one is group for one in group_of])
        if chosen.any():
            found.append(GroupCoverage(group, int(chosen.sum()), answers.rows(chosen).coverage))
    return tuple(found)


def _group(name: str | None, answers: _Answers) -> Group:
    table = answers.table
    hits, n = int(table.hit.sum()), len(table)
    return Group(
        name=name,
        n=n,
        lowest=float(table.price.min()),
        median=float(np.median(table.price)),
        highest=float(table.price.max()),
        mae=float(table.abs_error.mean()),
        mae_interval=mean_interval(table.abs_error),
        bias=float(table.error.mean()),
        bias_interval=mean_interval(table.error),
        hit_rate=hits / n,
        hit_rate_interval=wilson_interval(hits, n),
        no_price=int((~table.has_price).sum()),
        coverage=answers.coverage,
    )


def _tail(abs_errors: np.ndarray) -> Tail:
    """The tail of the worst 5 % of items, rounded up. `abs_errors` has the largest error first."""
    n, total = math.ceil(len(abs_errors) / 20), float(abs_errors.sum())
    return Tail(n, n / len(abs_errors), float(abs_errors[:n].sum()) / total if total > 0 else None)


def _miss(table: ScoreTable, items: Sequence[Item], index: int) -> Miss:
    item, estimate = items[index], float(table.imputed[index]) if table.has_price[index] else None
    return Miss(item.id, item.text, item.price, estimate, float(table.error[index]))
