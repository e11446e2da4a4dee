"""The DataSummary of a prepared data set, with warnings about what would waste a run or falsify its result."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pricer.config import DataConfig
from pricer.core.data_summary import DataSummary, count_bands
from pricer.core.items import Split
from pricer.data.acceptance import Tally
from pricer.data.column_facts import CURRENCY_CODES
from pricer.data.layouts import Layout
from pricer.data.rejects import Rejects
from pricer.data.splits import NUMBERS, Assignment
from pricer.data.spool import NO_CATEGORY, Accepted

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_MAX_CATEGORIES = 20
# A price this many times the median is most likely a placeholder.
_OUTLIER = 10_000
# Maximum share of all items in one group of near-duplicates.
_MAX_GROUP = 0.1
# Minimum share of prices such as 1.299 that makes one ask for the decimal mark.
_MIN_AMBIGUOUS = 0.05


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows that became items: their indices, split numbers, groups of near-duplicates (None: not looked for), and
    whether each is held out and has a near-copy among the training items.
    """

    rows: np.ndarray
    assignment: Assignment
    groups: np.ndarray | None
    near_copy: np.ndarray


def summarize(
    accepted: Accepted,
    chosen: Chosen,
    tally: Tally,
    rejects: Rejects,
    layout: Layout,
    config: DataConfig,
    revision: str | None,
) -> DataSummary:
    """The summary of a data set."""
    numbers, prices = chosen.assignment.numbers, accepted.price[chosen.rows]
    train = prices[numbers == NUMBERS[Split.TRAIN]]
    sizes = np.zeros(0, np.int64) if chosen.groups is None else np.bincount(chosen.groups)
    sizes = sizes[sizes > 1]
    near = {str(split): int(chosen.near_copy[numbers == number].sum()) for split, number in NUMBERS.items()}
    items = {str(split): int((numbers == number).sum()) for split, number in NUMBERS.items()}
    summary = DataSummary(
        rows=tally.rows,
        rejected=dict(rejects.rejected),
        dropped=dict(rejects.dropped),
        items=items,
        own_splits=tuple(str(split) for split in chosen.assignment.own),
        revision=revision,
        near_duplicate_groups=len(sizes),
        items_in_groups=int(sizes.sum()),
        largest_group=int(sizes.max(initial=0)),
        near_copies={split: near[split] for split in (str(Split.VAL), str(Split.TEST))},
        price_in_description=tally.shows_price,
        train_median=float(np.median(train)) if len(train) else 0.0,
        min_price=float(prices.min(initial=np.inf)) if len(prices) else 0.0,
        max_price=float(prices.max(initial=0.0)),
        max_train_price=float(train.max(initial=0.0)),
        price_quantiles=tuple(np.quantile(prices, _QUANTILES).tolist()) if len(prices) else (),
        price_bands=count_bands(prices),
        categories=_largest_categories(accepted, chosen.rows),
        by_time=config.time_column is not None,
        divided=chosen.assignment.divided,
        layout=layout.name,
        markup_removed=tally.had_markup,
    )
    return replace(summary, warnings=tuple(_warnings(summary, prices, tally, config)))


def _largest_categories(accepted: Accepted, rows: np.ndarray) -> Mapping[str, int]:
    numbers = accepted.category[rows]
    counts = np.bincount(numbers[numbers != NO_CATEGORY], minlength=len(accepted.categories))
    largest = np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES]
    return {accepted.categories[number]: int(counts[number]) for number in largest.tolist() if counts[number]}


def _warnings(summary: DataSummary, prices: np.ndarray, tally: Tally, config: DataConfig) -> Iterator[str]:
    total = len(prices)
    if tally.ambiguous > 1 and tally.ambiguous >= _MIN_AMBIGUOUS * tally.accepted:
        example, other = ("1.299", ",") if config.decimal_mark == "." else ("1,299", ".")
        yield (
            f"{tally.ambiguous:,} prices are written like {example}, and are read as less than 1,000; "
            f'if they are thousands, set data.decimal_mark: "{other}"'
        )
    yield from _warn_of_currencies(tally, config)
    if total and (outliers := int((prices > _OUTLIER * np.median(prices)).sum())):
        are = "price is" if outliers == 1 else "prices are"
        yield (
            f"{outliers:,} {are} over {_OUTLIER:,} times the median of {np.median(prices):,.2f}, up to "
            f"{summary.max_price:,.2f}; data.max_price leaves such items out"
        )
    if summary.price_in_description:
        yield (
            f"{summary.price_in_description:,} of {tally.accepted:,} descriptions contain their own price; "
            "data.price_in_description: drop leaves these items out"
        )
    if summary.largest_group > max(_MAX_GROUP * total, 9):
        yield (
            f"{summary.largest_group:,} of {total:,} items are near-duplicates of each other and in one group; "
            "if the texts only share a template, set data.near_duplicates: ignore"
        )
    for split, count in summary.near_copies.items():
        if count:
            yield f"{count:,} of {summary.items[split]:,} {split} items have a near-copy among the training items"


def _warn_of_currencies(tally: Tally, config: DataConfig) -> Iterator[str]:
    found: Counter[str] = Counter()
    for currency, count in tally.currencies.items():
        found[CURRENCY_CODES.get(currency.upper(), currency)] += count
    if len(found) > 1:
        listed = ", ".join(f"{currency} {n:,}" for currency, n in found.most_common(5))
        yield f"prices are in several currencies ({listed}) and are not converted"
    known = {*CURRENCY_CODES.values(), *CURRENCY_CODES}
    if len(found) == 1 and (currency := next(iter(found))) in known and config.unit in known:
        unit = CURRENCY_CODES.get(config.unit, config.unit)
        if currency != unit:
            yield f"{found[currency]:,} prices are written in {currency}, and data.unit is {config.unit}"
