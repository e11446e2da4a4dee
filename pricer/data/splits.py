"""The split of every item: its own, by time, or by the hash of its words. Near-duplicates stay together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pricer.core.defaults import held_out_fractions
from pricer.core.items import Split

# The number of a split in an array. An item without a split of its own has NO_SPLIT.
NUMBERS = {Split.TRAIN: 0, Split.VAL: 1, Split.TEST: 2}
NO_SPLIT = -1


@dataclass(frozen=True, slots=True)
class Assignment:
    """The split number of each item. `own` are the splits that the source had, and that were kept. `fractions` are the
    shares that were cut off, by split: from the training items, or if `divided`, from the other held-out split.
    """

    numbers: np.ndarray
    own: tuple[Split, ...]
    fractions: Mapping[Split, float]
    divided: bool = False


def parse_time(value: Any) -> float | None:
    """A number that grows with time, from a number or an ISO date; None if the cell has neither."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return number
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_date(value: Any) -> bool:
    """Whether a time that can be parsed is a date. Numbers and dates have no common order."""
    try:
        return not math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return True


def place_groups(places: np.ndarray, second: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The place that decides each item's split. A group has the place of the member with the smallest second place:
    with the smallest place itself, large groups would gather in the test split.
    """
    if groups is None:
        return places
    order = np.lexsort((places, second, groups))
    first = np.flatnonzero(np.diff(groups[order], prepend=-1))
    place_of = np.empty(int(groups.max(initial=-1)) + 1)
    place_of[groups[order][first]] = places[order][first]
    return place_of[groups]  # type: ignore[no-any-return]


def assign_splits(
    own: np.ndarray,
    places: np.ndarray,
    val_fraction: Any,
    test_fraction: Any,
    times: np.ndarray | None = None,
    trained: Sequence[Split] = (),
) -> Assignment:
    """The split of every item. `own` has its own split number, or NO_SPLIT. If no item has one, all splits are cut off;
    otherwise items without one are for training. Only splits that no item has are cut off: from the training items, or
    with `trained` from the items of the other splits, because no item of the splits in `trained` may be held out.

    The newest items by `times` are for testing; without times, the items with the lowest `places`. A fraction is a
    share of the items that can be cut, or `auto`.
    """
    present = tuple(split for split, number in NUMBERS.items() if (own == number).any())
    named = np.where(own == NO_SPLIT, NUMBERS[Split.TRAIN], own)
    is_trained = np.isin(named, [NUMBERS[split] for split in trained])
    numbers = np.where(is_trained, NUMBERS[Split.TRAIN], named)
    missing = [split for split in (Split.TEST, Split.VAL) if not (numbers == NUMBERS[split]).any()]
    candidates = np.flatnonzero((named == NUMBERS[Split.TRAIN]) & ~is_trained)
    shares = {Split.VAL: val_fraction, Split.TEST: test_fraction}
    divided = bool(trained) and not len(candidates) and len(missing) == 1
    if divided:  # the only split that may be held out is divided
        candidates = np.flatnonzero(~is_trained)
        shares = {split: 0.5 if share == "auto" else share for split, share in shares.items()}
    given = [shares[split] if split in missing else 0.0 for split in (Split.VAL, Split.TEST)]
    val, test = held_out_fractions(len(candidates), given[0], given[1])
    fractions = {split: share for split, share in ((Split.VAL, val), (Split.TEST, test)) if split in missing}
    ranks = places[candidates] if times is None else _ages(times[candidates], places[candidates])
    if divided and times is not None and missing == [Split.VAL]:
        ranks = 1 - ranks  # the newest items stay in the test split
    test, val = fractions.get(Split.TEST, 0.0), fractions.get(Split.VAL, 0.0)
    numbers[candidates[ranks < test + val]] = NUMBERS[Split.VAL]
    numbers[candidates[ranks < test]] = NUMBERS[Split.TEST]
    own_splits = tuple(split for split in present if split is Split.TRAIN or split not in trained)
    return Assignment(numbers, own_splits, fractions, divided)


def list_trained(setting: Sequence[str] | str | None, own: np.ndarray) -> tuple[Split, ...]:
    """The splits that `data.trained_splits` stands for. `unknown` is `train` if the source has another split, too, and
    otherwise no split: nothing then tells what was held out.
    """
    if setting == "unknown":
        has_other = bool(np.isin(own, [NUMBERS[Split.VAL], NUMBERS[Split.TEST]]).any())
        return (Split.TRAIN,) if has_other else ()
    return tuple(Split(name) for name in setting or ())


def _ages(times: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The share of items that are newer than each item. Of items of the same time, the lower place counts as newer."""
    order = np.lexsort((places, -times))
    ages = np.empty(len(times))
    ages[order] = (np.arange(len(times)) + 0.5) / max(len(times), 1)
    return ages


def find_near_copies(numbers: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Whether each item is held out and has a member of its group among the training items."""
    is_train = numbers == NUMBERS[Split.TRAIN]
    in_train = np.zeros(int(groups.max(initial=-1)) + 1, np.bool_)
    in_train[groups[is_train]] = True
    return ~is_train & in_train[groups]  # type: ignore[no-any-return]
