"""Which accepted rows become items: without repeated ones, and at most as many of a kind as the config allows."""

import numpy as np

from pricer.config import DataConfig
from pricer.core.data_summary import band_of
from pricer.core.items import Split
from pricer.data.splits import NO_SPLIT, NUMBERS
from pricer.data.spool import NO_CATEGORY, Accepted

DUPLICATE, CATEGORY_CAP, BAND_CAP = "duplicate", "category cap", "price band cap"


def select_rows(rows: Accepted, config: DataConfig) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The rows that become items, and by reason the rows that do not, each in the order in which they were read.

    Caps leave held-out splits of the source as they are, so that results on them stay comparable.
    """
    kept = np.arange(len(rows))
    left_out: dict[str, np.ndarray] = {}
    if config.duplicates == "drop":
        kept, left_out[DUPLICATE] = _split_off(kept, _is_repeated(rows))
    is_own = np.isin(rows.split, [NUMBERS[Split.VAL], NUMBERS[Split.TEST]])
    if config.max_per_category is not None:
        is_beyond = _is_beyond(rows.category, rows.second, kept, config.max_per_category)
        kept, left_out[CATEGORY_CAP] = _split_off(kept, is_beyond & ~is_own & (rows.category != NO_CATEGORY))
    if config.max_per_price_band is not None:
        is_beyond = _is_beyond(band_of(rows.price), rows.second, kept, config.max_per_price_band)
        kept, left_out[BAND_CAP] = _split_off(kept, is_beyond & ~is_own)
    return kept, {reason: found for reason, found in left_out.items() if len(found)}


def _split_off(kept: np.ndarray, is_left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return kept[~is_left_out[kept]], kept[is_left_out[kept]]


def _is_repeated(rows: Accepted) -> np.ndarray:
    """Whether an earlier row of the same split of the source has the same text and the same price. Between splits of
    the source nothing is dropped: its test split stays whole.
    """
    split = np.where(rows.split == NO_SPLIT, NUMBERS[Split.TRAIN], rows.split)
    order = np.lexsort((rows.price, rows.key, split))  # stable: equal rows stay in their order
    ordered = [column[order] for column in (rows.price, rows.key, split)]
    found = np.zeros(len(rows), np.bool_)
    found[order[1:]] = np.logical_and.reduce([column[1:] == column[:-1] for column in ordered])
    return found


def _is_beyond(kind: np.ndarray, second: np.ndarray, kept: np.ndarray, maximum: int) -> np.ndarray:
    """Whether a row is beyond the first `maximum` rows of its kind. The second place orders them, which says nothing
    about the split: by the first place, all rows that stay would be test items.
    """
    order = kept[np.lexsort((second[kept], kind[kept]))]
    found = np.zeros(len(kind), np.bool_)
    found[order] = count_before(kind[order]) >= maximum
    return found


def count_before(sorted_values: np.ndarray) -> np.ndarray:
    """For each value of a sorted array, how many equal ones stand before it."""
    places = np.arange(len(sorted_values))
    is_first = np.ones(len(sorted_values), np.bool_)
    is_first[1:] = sorted_values[1:] != sorted_values[:-1]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


def number_copies(rows: Accepted, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The beginning of each kept row's text hash that is its id, and how many rows with that id come before it: in
    ascending order of price, whatever the order of the file.
    """
    ids = rows.key[kept] >> np.uint64(16)
    order = np.lexsort((rows.price[kept], ids))
    copies = np.empty(len(kept), np.int64)
    copies[order] = count_before(ids[order])
    return ids, copies
