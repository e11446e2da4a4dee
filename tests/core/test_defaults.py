"""Golden tables of the defaults that look at the data: each value shows the rule that decides it."""

import pytest

from pricer.core.defaults import held_out_fractions


@pytest.mark.parametrize(
    ("items", "val", "test"),
    [
        (0, 0.2, 0.2),
        (30, 0.2, 0.2),  # a fifth each: 6 and 6 of 30
        (499, 0.2, 0.2),  # a fifth is 99.8 items, so 100 are too many
        (500, 0.25, 0.2),  # a fifth is 100: the validation split aims at 130, but takes a quarter at most
        (929, 0.14, 0.11),  # 130 / 929 = 0.140; 100 / 929 = 0.108
        (1_300, 0.1, 0.1),  # 10 % are 130
        (5_013, 0.1, 0.1),
        (20_000, 0.1, 0.1),
        (40_000, 0.05, 0.1),  # 2,000 / 40,000
        (400_000, 0.005, 0.025),  # 2,000 / 400,000; 10,000 / 400,000
        (800_000, 0.0025, 0.013),  # 10,000 / 800,000 = 0.0125, with two digits 0.013
    ],
)
def test_the_shares_of_the_held_out_splits_follow_from_the_number_of_items(items: int, val: float, test: float) -> None:
    assert held_out_fractions(items, "auto", "auto") == (val, test)


def test_a_share_that_is_given_stays_and_leaves_room_for_training() -> None:
    assert held_out_fractions(929, 0.3, "auto") == (0.3, 0.11)
    assert held_out_fractions(929, "auto", 0.0) == (0.14, 0.0)
    assert held_out_fractions(929, 0.3, 0.4) == (0.3, 0.4)
    # 0.9 is for testing: half of the other 0.1 for validation.
    assert held_out_fractions(929, "auto", 0.9) == (pytest.approx(0.05), 0.9)
