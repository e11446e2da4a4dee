"""Breakdowns: where the error of an evaluation comes from, by price, by category, and item by item."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.evaluation import ScoreTable
from pricer.core.intervals import (
    LEVELS,
    AbstentionPoint,
    Calibration,
    CoverageReport,
    abstention_curve,
    raw_interval,
    report_coverage,
)
from pricer.core.items import Item
from pricer.core.metrics import mean_interval, wilson_interval
from pricer.core.predictions import Prediction

_BANDS = 5


@dataclass(frozen=True, slots=True)
class Group:
    """The scores of items that have something in common; `name` is None for items without a category.

    `lowest`, `median` and `highest` are their true prices in dollars. `mae` and `bias` are the means of |error| and of
    error (imputed − price) in dollars. Intervals are 95 %, None for a mean over one item. `no_price` is the number of
    items without an estimate.
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


@dataclass(frozen=True, slots=True)
class Tail:
    """The worst items, with their share of the absolute error of all items; None where there is no error."""

    n: int
    share_of_items: float
    share_of_error: float | None


@dataclass(frozen=True, slots=True)
class Miss:
    """One item and how far off its answer was, in dollars: `error` is the estimate − price, with the fallback in place
    of an `estimate` of None. `text` is all that the model was told.
    """

    item_id: str
    text: str
    price: float
    estimate: float | None
    error: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One evaluation taken apart.

    `price_bands` are from cheap to dear, `categories` from most items to fewest (empty if no item has one). `worst` has
    the largest error first. `coverage` has a report for each level of intervals; it and `abstention` are empty without
    distributions. `calibrated_on` is the number of validation items that corrected the intervals, None: they are raw.
    """

    overall: Group
    price_bands: tuple[Group, ...]
    categories: tuple[Group, ...]
    tail: Tail
    worst: tuple[Miss, ...]
    coverage: tuple[CoverageReport, ...] = ()
    abstention: tuple[AbstentionPoint, ...] = ()
    calibrated_on: int | None = None


def break_down(
    table: ScoreTable,
    items: Sequence[Item],
    predictions: Sequence[Prediction] = (),
    calibrations: Mapping[float, Calibration | None] | None = None,
    worst: int = 10,
) -> Breakdown:
    """Take apart the scores of items, which are in the same order, as are the `predictions` that have the intervals.
    `calibrations` correct the intervals of each level; `worst` items are listed.

    No scores, or scores that do not match the items, are a ValueError.
    """
    if not len(table):
        raise ValueError("nothing to break down")
    if table.item_id.tolist() != [item.id for item in items]:
        raise ValueError(f"{len(table)} scores do not match {len(items)} items")
    # The largest error first; equal ones by id, so that the order in which they came does not show.
    ranked = np.lexsort((table.item_id, -table.abs_error))
    coverage: tuple[CoverageReport, ...] = ()
    abstention: tuple[AbstentionPoint, ...] = ()
    calibrations = calibrations or {}
    if any(prediction.distribution for prediction in predictions):
        raw = {level: [raw_interval(prediction, level) for prediction in predictions] for level in LEVELS}
        prices = table.price.tolist()
        coverage = tuple(report_coverage(raw[level], prices, level, calibrations.get(level)) for level in LEVELS)
        surest = calibrations.get(LEVELS[0])
        abstention = abstention_curve(table, [surest.apply(one) if surest else one for one in raw[LEVELS[0]]])
    used = next((one for one in calibrations.values() if one), None)
    return Breakdown(
        overall=_group("all", table),
        price_bands=_by_price(table),
        categories=_by_category(table, items),
        tail=_tail(table.abs_error[ranked]),
        worst=tuple(_miss(table, items, index) for index in ranked[: max(0, worst)].tolist()),
        coverage=coverage,
        abstention=abstention,
        calibrated_on=used.n + used.no_price if used and coverage else None,
    )


def _by_price(table: ScoreTable) -> tuple[Group, ...]:
    """The scores in five bands of the true price, from cheap to dear, each of about a fifth of the items. Equal prices
    share a band.

    Even an unbiased estimate lies above the price in the cheap band and below it in the dear one (regression to the
    mean), so only the overall bias speaks for itself.
    """
    prices = np.sort(table.price)
    # The last price of each fifth.
    edges = np.unique([prices[math.ceil(len(prices) * fifth / _BANDS) - 1] for fifth in range(1, _BANDS + 1)])
    band_of = np.searchsorted(edges, table.price)
    # No band is empty: each holds the price at its edge.
    bands = [table.rows(band_of == band) for band in range(len(edges))]
    ends = [(band.price.min(), band.price.max()) for band in bands]
    names = [f"${low:,.2f}" if low == high else f"${low:,.2f}–{high:,.2f}" for low, high in ends]
    return tuple(map(_group, names, bands))


def _by_category(table: ScoreTable, items: Iterable[Item]) -> tuple[Group, ...]:
    rows: dict[str | None, list[int]] = {}
    for index, item in enumerate(items):
        rows.setdefault(item.category, []).append(index)
    if rows.keys() == {None}:
        return ()
    # Items without a category come after the categories of the same size.
    names = sorted(rows, key=lambda name: (-len(rows[name]), name is None, name or ""))
    return tuple(_group(name, table.rows(np.array(rows[name]))) for name in names)


def _group(name: str | None, table: ScoreTable) -> Group:
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
    )


def _tail(abs_errors: np.ndarray) -> Tail:
    """The worst 5 %, rounded up to whole items, of absolute errors, the largest first."""
    n, total = math.ceil(len(abs_errors) / 20), float(abs_errors.sum())
    return Tail(n, n / len(abs_errors), float(abs_errors[:n].sum()) / total if total > 0 else None)


def _miss(table: ScoreTable, items: Sequence[Item], index: int) -> Miss:
    item, estimate = items[index], float(table.imputed[index]) if table.has_price[index] else None
    return Miss(item.id, item.text, item.price, estimate, float(table.error[index]))
