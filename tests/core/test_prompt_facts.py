"""Lengths of prompts: quantiles, the share that is cut, and the bands of a histogram."""

import pytest

from pricer.core.prompt_facts import measure_lengths


def test_a_few_lengths_worked_out_by_hand() -> None:
    found = measure_lengths([30, 41, 42, 43, 44, 45, 46, 47, 48, 95], max_length=48)

    # The 5th, 10th and 10th of ten; one of ten is above 48. 95 / 10 = 9.5, so a band has 10 lengths.
    assert (found.items, found.median, found.q95, found.q99, found.longest, found.cut) == (10, 44, 95, 95, 95, 0.1)
    assert found.bands == ((30, 39, 1), (40, 49, 8), (50, 59, 0), (60, 69, 0), (70, 79, 0), (80, 89, 0), (90, 95, 1))


def test_the_longest_texts_share_the_last_band() -> None:
    found = measure_lengths([20] * 999 + [5_000], max_length=5_000)

    # 99 % have 20 tokens: bands of two, and the last one is open.
    assert found.bands == ((20, 21, 999), (22, 5_000, 1))
    assert found.cut == 0


@pytest.mark.parametrize("length", [1, 9, 10, 11, 100, 101, 49_999, 1_000_000])
def test_every_length_is_in_a_band(length: int) -> None:
    found = measure_lengths([1, length], max_length=length)

    assert sum(count for _, _, count in found.bands) == 2
    assert found.bands[0][0] <= 1
    assert found.bands[-1][1] >= length
