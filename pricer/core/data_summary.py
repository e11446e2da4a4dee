"""What the preparation of a data set did: rows read, rejected and dropped, and the items that are left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Counts of a prepared data set. A reason is a short phrase, such as `no price` or `duplicate`.

    `layout` is `columns`, `prompts` or `messages`. `markup_removed` counts the items whose texts had markup or control
    characters. `by_time`: what the source did not split was cut by time and not by a hash. `divided`: it was cut from
    the source's other held-out split and not from its training items.

    `rejected` rows could not be used, and `dropped` rows were left out by a rule of the config. `items` counts the
    items of each split. `own_splits` are the splits that the source had. `revision` is the commit of a Hub data set.

    A near-duplicate group has at least two items. `near_copies` counts the held-out items of each split that have a
    near-copy in the training split. `price_in_description` counts the items whose description contains their price.
    `warnings` are sentences about data that would waste a run or falsify its result.
    """

    rows: int
    rejected: Mapping[str, int]
    dropped: Mapping[str, int]
    items: Mapping[str, int]
    own_splits: tuple[str, ...]
    revision: str | None
    near_duplicate_groups: int
    items_in_groups: int
    largest_group: int
    near_copies: Mapping[str, int]
    price_in_description: int
    train_median: float
    min_price: float
    max_price: float
    max_train_price: float
    price_quantiles: tuple[float, ...]
    """The 1, 5, 25, 50, 75, 95 and 99 % quantiles of all prices."""
    price_bands: tuple[tuple[float, float, int], ...]
    """Bands between 1, 2 and 5 times powers of ten: lowest, highest, number of items."""
    categories: Mapping[str, int] = field(default_factory=dict)
    """The number of items of each of the 20 largest categories; empty if there are none."""
    warnings: tuple[str, ...] = ()
    by_time: bool = False
    divided: bool = False
    layout: str = "columns"
    markup_removed: int = 0

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "DataSummary":
        """The summary from the JSON of its `asdict`. A KeyError, TypeError or ValueError if it is none."""
        tuples = ("own_splits", "price_quantiles", "warnings")
        bands = tuple((low, high, count) for low, high, count in record["price_bands"])
        return cls(**{**record, **{name: tuple(record[name]) for name in tuples}, "price_bands": bands})


def explain_summary(summary: DataSummary | None, folder: Path | None) -> list[str]:
    """What a user should know before the items of a data folder are used: what was left out, and the warnings."""
    if summary is None:
        return []
    reasons = {**summary.rejected, **summary.dropped}
    listed = ", ".join(f"{reason} {n:,}" for reason, n in reasons.items())
    count = f"{sum(reasons.values()):,} of {summary.rows:,} rows"
    left_out = [f"left out: {count} ({listed}); {folder}/rejected.jsonl lists them"] if reasons else []
    return [*left_out, *summary.warnings]


# 1, 2 and 5 times the powers of ten that prices can have.
BAND_EDGES = np.array([float(f"{digit}e{power}") for power in range(-12, 19) for digit in (1, 2, 5)])


def band_of(prices: np.ndarray) -> np.ndarray:
    """The number of the band of each price: band n begins at BAND_EDGES[n]. A price on an edge belongs to the band that
    begins there.
    """
    return np.searchsorted(BAND_EDGES, prices, side="right") - 1


def count_bands(prices: np.ndarray) -> tuple[tuple[float, float, int], ...]:
    """The bands from the lowest to the highest price: lowest, highest, number of prices."""
    if not len(prices):
        return ()
    counts = np.bincount(np.clip(band_of(prices), 0, len(BAND_EDGES) - 2))
    first = int(np.flatnonzero(counts)[0])
    edges = BAND_EDGES.tolist()
    return tuple((edges[n], edges[n + 1], int(counts[n])) for n in range(first, len(counts)))
