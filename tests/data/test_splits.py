"""Which split an item goes to."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.items import Split
from pricer.data.splits import (
    NO_SPLIT,
    NUMBERS,
    assign_splits,
    find_near_copies,
    list_trained,
    parse_time,
    place_groups,
)

TRAIN, VAL, TEST = (NUMBERS[split] for split in (Split.TRAIN, Split.VAL, Split.TEST))


def assign(own: list[int], places: list[float], val: Any = 0.2, test: Any = 0.3, times: Any = None) -> list[int]:
    found = assign_splits(np.array(own), np.array(places), val, test, None if times is None else np.array(times, float))
    return list(found.numbers)


def test_without_splits_of_its_own_the_place_decides() -> None:
    found = assign([NO_SPLIT] * 5, [0.0, 0.29, 0.31, 0.49, 0.51])

    assert found == [TEST, TEST, VAL, VAL, TRAIN]


def test_own_splits_are_kept_and_what_is_missing_is_cut_from_train() -> None:
    own = [TRAIN, TRAIN, TEST, NO_SPLIT, TEST]

    # There is a test split, so only the 20 % for validation are cut off, from places below 0.2.
    assert assign(own, [0.1, 0.9, 0.1, 0.15, 0.9]) == [VAL, TRAIN, TEST, VAL, TEST]


def test_of_a_source_with_all_splits_none_is_cut() -> None:
    found = assign_splits(np.array([TRAIN, VAL, TEST]), np.array([0.1, 0.9, 0.9]), 0.2, 0.3)

    assert found.numbers.tolist() == [TRAIN, VAL, TEST]
    assert (found.own, dict(found.fractions)) == ((Split.TRAIN, Split.VAL, Split.TEST), {})


def test_the_shares_that_were_cut_are_said() -> None:
    found = assign_splits(np.full(1000, NO_SPLIT), np.linspace(0, 1, 1000), "auto", 0.3)

    assert found.fractions[Split.TEST] == 0.3
    assert found.fractions[Split.VAL] > 0


def test_the_newest_items_are_for_testing_and_those_before_them_for_validation() -> None:
    found = assign([NO_SPLIT] * 10, [0.5] * 10, times=[3, 9, 1, 8, 2, 7, 0, 6, 4, 5])

    # 30 % of ten items: 9, 8, 7; and 20 %: 6, 5.
    assert found == [TRAIN, TEST, TRAIN, TEST, TRAIN, TEST, TRAIN, VAL, TRAIN, VAL]


def not_held_out(own: list[int], trained: list[Split], val: Any = "auto", times: Any = None) -> list[int]:
    """The splits of items at the places 0.1, 0.3, 0.5 …"""
    times = None if times is None else np.array(times, float)
    places = np.arange(len(own)) / 5 + 0.1
    return list(assign_splits(np.array(own), places, val, "auto", times, trained).numbers)


@pytest.mark.parametrize(
    ("own", "trained", "expected"),
    [
        ([VAL, TRAIN, TEST], [Split.TRAIN], [VAL, TRAIN, TEST]),
        # What is missing is the half of the other split with the lower places.
        ([TEST, TEST, TEST, TEST, TRAIN], [Split.TRAIN], [VAL, VAL, TEST, TEST, TRAIN]),
        ([VAL, VAL, NO_SPLIT, TRAIN, VAL], [Split.TRAIN], [TEST, TEST, TRAIN, TRAIN, VAL]),
        ([TEST, TEST, TRAIN, TEST, VAL], [Split.TRAIN, Split.VAL], [VAL, VAL, TRAIN, TEST, TRAIN]),
        # There is nothing to hold out.
        ([TRAIN, NO_SPLIT, TEST], [Split.TRAIN, Split.TEST], [TRAIN, TRAIN, TRAIN]),
        ([NO_SPLIT] * 3, [Split.TRAIN], [TRAIN] * 3),
    ],
)
def test_what_was_trained_on_is_not_held_out(own: list[int], trained: list[Split], expected: list[int]) -> None:
    assert not_held_out(own, trained) == expected


def test_a_split_that_was_trained_on_is_no_held_out_split_of_the_source() -> None:
    own, places = np.array([TRAIN, VAL, TEST, TEST]), np.array([0.1, 0.1, 0.1, 0.9])

    found = assign_splits(own, places, "auto", "auto", trained=[Split.TRAIN, Split.VAL])

    assert found.numbers.tolist() == [TRAIN, TRAIN, VAL, TEST]
    assert (found.own, dict(found.fractions), found.divided) == ((Split.TRAIN, Split.TEST), {Split.VAL: 0.5}, True)


def test_the_share_of_a_divided_split_may_be_given() -> None:
    own = [TEST, TEST, TEST, TEST, TRAIN]

    # Places below 0.2.
    assert not_held_out(own, [Split.TRAIN], val=0.2) == [VAL, TEST, TEST, TEST, TRAIN]
    assert not_held_out(own, [Split.TRAIN], val=0.0) == own


def test_what_is_missing_is_cut_from_training_items_that_were_not_trained_on() -> None:
    # 20 % of the items of train are those below 0.2. The items of val were trained on.
    assert not_held_out([TRAIN, VAL, TEST, TRAIN, TRAIN], [Split.VAL], val=0.2) == [VAL, TRAIN, TEST, TRAIN, TRAIN]


def test_of_a_divided_split_the_newest_items_are_for_testing() -> None:
    times = [2020, 2023, 2021, 2022, 2019]

    assert not_held_out([TEST, TEST, TEST, TEST, TRAIN], [Split.TRAIN], times=times) == [VAL, TEST, VAL, TEST, TRAIN]
    assert not_held_out([VAL, VAL, VAL, VAL, TRAIN], [Split.TRAIN], times=times) == [VAL, TEST, VAL, TEST, TRAIN]


def test_an_unknown_training_split_is_train_where_there_is_another() -> None:
    assert list_trained("unknown", np.array([TRAIN, TEST, NO_SPLIT])) == (Split.TRAIN,)
    assert list_trained("unknown", np.array([TRAIN, NO_SPLIT])) == ()
    assert list_trained(["val", "train"], np.array([TRAIN])) == (Split.VAL, Split.TRAIN)
    assert list_trained(None, np.array([TRAIN, TEST])) == list_trained([], np.array([TRAIN, TEST])) == ()


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("2023-12-31", "2024-01-01"), ("2024-01-01", "2024-01-01T00:00:01"), (2023, "2024"), (1.5, 2),
     ("2024-01-01T12:00+02:00", "2024-01-01T11:00Z")],
)  # fmt: skip
def test_times_are_dates_or_numbers(earlier: Any, later: Any) -> None:
    first, second = parse_time(earlier), parse_time(later)

    assert first is not None
    assert second is not None
    assert first < second


@pytest.mark.parametrize("value", [None, "", "soon", "31/12/2023", True, "nan", float("inf"), [1]])
def test_what_is_no_time_is_none(value: Any) -> None:
    assert parse_time(value) is None


def test_a_group_has_the_place_of_the_member_with_the_smallest_second_place() -> None:
    places, second = np.array([0.1, 0.9, 0.5, 0.4]), np.array([0.7, 0.2, 0.3, 0.8])

    assert place_groups(places, second, np.array([0, 0, 1, 0])).tolist() == [0.9, 0.9, 0.5, 0.9]
    assert place_groups(places, second, None).tolist() == places.tolist()


def test_large_groups_are_not_more_often_for_testing_than_single_items() -> None:
    random = np.random.default_rng(1)
    places, second, groups = random.random(40_000), random.random(40_000), np.repeat(np.arange(4000), 10)

    # 3 standard deviations of a share of 0.1 in 4,000 groups: 3 × √(0.1 × 0.9 / 4000) = 0.014
    assert (place_groups(places, second, groups) < 0.1).mean() == pytest.approx(0.1, abs=0.014)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_no_group_is_in_two_splits(items: list[tuple[float, float, int]]) -> None:
    places, second, labels = (np.array(column) for column in zip(*items, strict=True))
    groups = np.unique(labels, return_inverse=True)[1]

    numbers = assign_splits(np.full(len(items), NO_SPLIT), place_groups(places, second, groups), 0.2, 0.3).numbers

    assert all(len(set(numbers[groups == group])) == 1 for group in set(groups))


def test_a_held_out_item_with_a_member_of_its_group_in_train_is_a_near_copy() -> None:
    numbers, groups = np.array([TRAIN, TEST, VAL, TEST, TRAIN]), np.array([0, 0, 1, 1, 2])

    assert find_near_copies(numbers, groups).tolist() == [False, True, False, False, False]
