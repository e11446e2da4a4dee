"""Breakdowns: where the error of an evaluation comes from, by price, by category, and item by item."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.items import Item
from pricer.core.metrics import Score, mean_interval, summarise

_BANDS = 5


@dataclass(frozen=True, slots=True)
class Group:
    """The Scores of items that have something in common, summed up as an evaluation sums up all.

    `name` is None for items without a category. `lowest` and `highest` are their true prices in dollars. `mae` and
    `bias` are in dollars: the mean of |estimate − price| and of estimate − price (above 0: too dear), an item without
    an estimate charged as everywhere. Intervals are 95 %: of means ± 1.96 s/√n, None for one item; of shares Wilson's.
    `silent` is the number of items without an estimate.
    """

    name: str | None
    n: int
    lowest: float
    highest: float
    mae: float
    mae_interval: tuple[float, float] | None
    bias: float
    bias_interval: tuple[float, float] | None
    hit_rate: float
    hit_rate_interval: tuple[float, float]
    silent: int


@dataclass(frozen=True, slots=True)
class Tail:
    """The worst items: how many they are, what share of the items, and what share of the absolute error of all they
    carry; None where there is no error.
    """

    n: int
    share_of_items: float
    share_of_error: float | None


@dataclass(frozen=True, slots=True)
class Miss:
    """One item and how far off it was. `text` is all that the model was told; `estimate` is in dollars, None where
    there was none; `error` is estimate − price in dollars, an item without an estimate charged as everywhere.
    """

    item_id: str
    text: str
    price: float
    estimate: float | None
    error: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """An evaluation taken apart. `price_bands` are from cheap to dear, `categories` from most items to fewest (empty
    if no item has one): of each, every item is in exactly one. `worst` has the largest error first.
    """

    overall: Group
    price_bands: tuple[Group, ...]
    categories: tuple[Group, ...]
    tail: Tail
    worst: tuple[Miss, ...]


def break_down(scores: Sequence[Score], items: Sequence[Item], worst: int = 10) -> Breakdown:
    """Take apart one Score per Item, in any order; of the worst items, show so many.

    No scores, or scores that do not match the items, are a ValueError.
    """
    if not scores:
        raise ValueError("nothing to break down")
    by_id = {item.id: item for item in items}
    if not len(by_id) == len(items) == len(scores) or by_id.keys() != {score.item_id for score in scores}:
        raise ValueError(f"{len(scores)} scores do not match {len(items)} items")
    # Largest error first; equal ones by id, so that the order they came in does not show.
    ranked = sorted(scores, key=lambda score: (-score.abs_error, score.item_id))
    return Breakdown(
        overall=_group("all", scores),
        price_bands=_by_price(scores),
        categories=_by_category(scores, by_id.values()),
        tail=_tail(ranked),
        worst=tuple(_miss(score, by_id[score.item_id]) for score in ranked[: max(0, worst)]),
    )


def _by_price(scores: Sequence[Score]) -> tuple[Group, ...]:
    """The Scores in five bands of the true price, from cheap to dear, each of about a fifth of the items.

    Bands of equal counts and not of round dollars, because prices of $1–999 and computers of $949–5,399 have no edges
    in common, and so that no band is a handful. A band is named by the lowest and highest price in it. Equal prices
    share a band, so with many of them bands are uneven, and fewer.

    Mind the bias: an estimate that is right on average lies above the price among items picked for being cheap, and
    below it among dear ones, for a cheap item is one whose price turned out low. Only the overall bias speaks for
    itself.
    """
    prices = sorted(score.price for score in scores)
    # The last price of each fifth.
    edges = sorted({prices[math.ceil(len(prices) * fifth / _BANDS) - 1] for fifth in range(1, _BANDS + 1)})
    bands: list[list[Score]] = [[] for _ in edges]
    for score, band in zip(scores, np.searchsorted(edges, [score.price for score in scores]), strict=True):
        bands[band].append(score)
    # None is empty: each holds the price at its edge.
    return tuple(_group(_band_name(band), band) for band in bands)


def _band_name(band: Sequence[Score]) -> str:
    lowest, highest = min(score.price for score in band), max(score.price for score in band)
    return f"${lowest:,.2f}" if lowest == highest else f"${lowest:,.2f}–{highest:,.2f}"


def _by_category(scores: Sequence[Score], items: Iterable[Item]) -> tuple[Group, ...]:
    category_of = {item.id: item.category for item in items}
    groups: dict[str | None, list[Score]] = {}
    for score in scores:
        groups.setdefault(category_of[score.item_id], []).append(score)
    if groups.keys() == {None}:
        return ()
    # Those without a category come after those that have as many items.
    names = sorted(groups, key=lambda name: (-len(groups[name]), name is None, name or ""))
    return tuple(_group(name, groups[name]) for name in names)


def _group(name: str | None, scores: Sequence[Score]) -> Group:
    metrics = {metric.name: metric for metric in summarise(scores)}
    mae, hit_rate = metrics["mae"], metrics["hit_rate"]
    assert mae.value is not None  # of any scores
    assert hit_rate.value is not None
    assert hit_rate.interval is not None
    errors = np.array([score.charged - score.price for score in scores])
    return Group(
        name=name,
        n=len(scores),
        lowest=min(score.price for score in scores),
        highest=max(score.price for score in scores),
        mae=mae.value,
        mae_interval=mae.interval,
        bias=float(errors.mean()),
        bias_interval=mean_interval(errors),
        hit_rate=hit_rate.value,
        hit_rate_interval=hit_rate.interval,
        silent=sum(not score.answered for score in scores),
    )


def _tail(ranked: Sequence[Score]) -> Tail:
    """The worst 5 %, rounded up to whole items; the worst come first in `ranked`."""
    n = math.ceil(len(ranked) / 20)
    abs_errors = np.array([score.abs_error for score in ranked])
    total = float(abs_errors.sum())
    return Tail(n, n / len(ranked), float(abs_errors[:n].sum()) / total if total > 0 else None)


def _miss(score: Score, item: Item) -> Miss:
    estimate = score.charged if score.answered else None
    return Miss(item.id, item.text, item.price, estimate, score.charged - item.price)
