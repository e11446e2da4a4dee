"""Curves made fit for drawing."""

import numpy as np
import pytest

from pricer.views.report.curves import NO_CURVE, Curve, epoch_ends, round_prices, smoothed, thinned


def test_a_curve_that_fits_stays_as_it_is() -> None:
    few = thinned(Curve.of([(10, 3.0), (20, 2.0)]), most=2)

    assert (few.per, few.step.tolist(), few.mean.tolist()) == (1, [10, 20], [3.0, 2.0])


def test_a_long_curve_becomes_means_with_the_lowest_and_the_highest_beside_them() -> None:
    # 5 values in at most 2 buckets are 3 and 2 of them.
    few = thinned(Curve.of([(1, 6.0), (2, 1.0), (3, 2.0), (4, 5.0), (5, 3.0)]), most=2)

    assert (few.per, few.step.tolist()) == (3, [2.0, 4.5])
    assert few.mean.tolist() == [3.0, 4.0]
    assert (few.lowest.tolist(), few.highest.tolist()) == ([1.0, 3.0], [6.0, 5.0])


def test_what_is_no_number_is_left_out_of_a_mean_and_never_zero() -> None:
    few = thinned(Curve.of([(1, None), (2, 4.0), (3, None), (4, None)]), most=2)

    np.testing.assert_equal([few.mean, few.lowest, few.highest], [[4.0, np.nan]] * 3)


def test_a_curve_without_a_point_is_thinned_to_none() -> None:
    assert len(thinned(NO_CURVE).step) == 0


def test_smoothing_weighs_the_past_down_by_the_same_share_each_step() -> None:
    # 1; (2 + ½·1)/1½; (3 + ½·2 + ¼·1)/1¾.
    assert smoothed(np.array([1.0, 2.0, 3.0]), 0.5) == pytest.approx([1, 2.5 / 1.5, 4.25 / 1.75])


def test_no_smoothing_leaves_the_values_as_they_are() -> None:
    assert smoothed(np.array([3.0, 1.0]), 0.0).tolist() == [3.0, 1.0]


def test_a_gap_stays_one_and_counts_for_nothing() -> None:
    found = smoothed(np.array([1.0, np.nan, 3.0]), 0.5)

    # (3 + ½·1)/1½
    np.testing.assert_allclose(found, [1.0, np.nan, 3.5 / 1.5])


def test_the_ends_of_epochs_lie_between_logged_steps() -> None:
    epoch = Curve.of([(10, 0.8), (20, 1.6), (30, 2.4)])

    # 1 is a quarter of the way from 0.8 to 1.6, 2 half of that from 1.6 to 2.4.
    numbers, steps = zip(*epoch_ends(epoch), strict=True)
    assert numbers == (1, 2)
    assert steps == pytest.approx((12.5, 25.0))


def test_of_many_epochs_every_second_has_a_line() -> None:
    epoch = Curve.of([(step, step / 10) for step in range(0, 201, 10)])

    assert [number for number, _ in epoch_ends(epoch)] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


def test_an_epoch_that_was_rounded_down_is_whole() -> None:
    ((number, step),) = epoch_ends(Curve.of([(1, 0.5), (2, 0.999999999)]))

    assert number == 1
    assert step == pytest.approx(2.0)
    assert epoch_ends(NO_CURVE) == []


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.5, 1000, [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]),
        (900, 6000, [1000, 1500, 2000, 3000, 4000, 5000]),
        (1, 100_000, [1, 10, 100, 1000, 10_000, 100_000]),
    ],
)
def test_ticks_are_round_and_neither_few_nor_many(low: float, high: float, ticks: list[float]) -> None:
    found = round_prices(low, high)

    assert found == ticks if len(ticks) <= 6 else len(found) <= 12
