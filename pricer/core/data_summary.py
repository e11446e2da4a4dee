"""What the preparation of a data set did: rows read, rejected and dropped, and the items that are left."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Counts of a prepared data set. A reason is a short phrase, such as `no price` or `duplicate`.

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
