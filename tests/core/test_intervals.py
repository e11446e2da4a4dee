"""Intervals: what the correction is, that it holds whatever the raw ones are, and what abstaining buys."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.evaluation import ScoreTable, score_predictions
from pricer.core.intervals import (
    LEVELS,
    AbstentionPoint,
    Calibration,
    Coverage,
    Interval,
    abstention_curve,
    calibrate,
    calibration_spec,
    correct,
    report_coverage,
)
from pricer.core.items import Split
from pricer.core.metrics import METRICS, ScoreRule, wilson_interval
from pricer.core.units import PriceUnit
from tests.builders import a_spec, an_item, predictions_of

# Of price + 1: from 100 to 200.
RAW = (99.0, 199.0)


def a_calibration(factor: float = 2.0, coverage: float = 0.8) -> Calibration:
    return Calibration(coverage, factor, n=100, no_price=0)


def scores(*rows: tuple[str, float, float | None]) -> ScoreTable:
    """The scores of items of these ids, prices and estimates."""
    items = [an_item(key, price) for key, price, _ in rows]
    return score_predictions(predictions_of(items, [estimate for _, _, estimate in rows]), items, fallback=150.0)


# --- the correction ---


def test_the_factor_is_the_score_whose_rank_the_level_asks_for() -> None:
    # Scores: max(100/200, 200/200) = 1; max(100/80, 80/200) = 1.25; max(100/125, 125/200) = 0.8; 300/200 = 1.5.
    # ⌈5 × 0.8⌉ = 4th lowest of 0.8, 1, 1.25, 1.5; ⌈5 × 0.6⌉ = 3rd; ⌈5 × 0.41⌉ = 3rd; ⌈5 × 0.4⌉ = 2nd
    prices = [199.0, 79.0, 124.0, 299.0]

    found = {coverage: calibrate([RAW] * 4, prices, coverage) for coverage in (0.8, 0.6, 0.41, 0.4)}

    assert found == {
        0.8: Calibration(0.8, 1.5, n=4, no_price=0),
        0.6: Calibration(0.6, 1.25, n=4, no_price=0),
        0.41: Calibration(0.41, 1.25, n=4, no_price=0),
        0.4: Calibration(0.4, 1.0, n=4, no_price=0),
    }


# ⌈4 × 0.8⌉ = 4 > 3, ⌈5 × 0.8⌉ = 4; ⌈19 × 0.95⌉ = ⌈18.05⌉ = 19 > 18, ⌈20 × 0.95⌉ = 19
@pytest.mark.parametrize(("coverage", "enough"), [(0.8, 4), (0.95, 19)])
def test_too_few_items_for_a_level_have_no_correction(coverage: float, enough: int) -> None:
    assert calibrate([RAW] * enough, [150.0] * enough, coverage) is not None
    assert calibrate([RAW] * (enough - 1), [150.0] * (enough - 1), coverage) is None
    assert calibrate([], [], coverage) is None


def test_a_rank_that_is_whole_is_not_rounded_up_by_floats() -> None:
    # 100 × 0.55 = 55 (55.00000000000001 by floats). The i-th of 99 scores is (200 + i)/200.
    found = calibrate([RAW] * 99, [199.0 + i for i in range(1, 100)], 0.55)

    assert found is not None
    assert found.factor == 255 / 200


def test_items_without_an_interval_teach_nothing_and_are_counted() -> None:
    found = calibrate([RAW, None, RAW, RAW, None, RAW], [199.0, 1.0, 79.0, 124.0, 999.0, 299.0], 0.8)

    assert found == Calibration(0.8, 1.5, n=4, no_price=2)
    assert calibrate([RAW, None, RAW, RAW], [199.0, 1.0, 79.0, 124.0], 0.8) is None


@pytest.mark.parametrize(
    ("factor", "raw", "corrected"),
    [
        (2.0, RAW, (49.0, 399.0)),  # 100/2 − 1, 200 × 2 − 1
        (1.0, RAW, RAW),
        (0.8, RAW, (124.0, 159.0)),  # 100/0.8 − 1, 200 × 0.8 − 1
        (0.5, RAW, (140.42, 140.43)),  # 199 to 99 would cross: √(100 × 200) − 1 = 140.42136 instead
        (2.0, (0.0, 9.0), (0.0, 19.0)),  # 1/2 − 1 is below $0
        (0.5, (0.0, 0.0), (0.0, 0.0)),
        (3.0, (99.0, 99.0), (32.33, 299.0)),  # 100/3 − 1 = 32.3333, in whole cents outwards
        (1.01, (19.0, 24.0), (18.8, 24.25)),  # 20/1.01 − 1 = 18.80198, 25 × 1.01 − 1 = 24.25
    ],
)
def test_an_interval_is_widened_or_narrowed_by_the_factor(factor: float, raw: Interval, corrected: Interval) -> None:
    assert a_calibration(factor).apply(raw) == corrected


@pytest.mark.parametrize("raw", [(2.0, 1.0), (-1.0, 1.0), (1.0, math.inf), (math.nan, 1.0), (1.0, math.nan)])
def test_what_is_no_interval_is_refused(raw: Interval) -> None:
    with pytest.raises(ValueError, match="is no interval"):
        calibrate([raw] * 5, [1.0] * 5, 0.8)
    with pytest.raises(ValueError, match="is no interval"):
        report_coverage([raw], [1.0], 0.8, None)


@pytest.mark.parametrize("coverage", [0.0, 1.0, 80.0, math.nan])
def test_a_level_that_is_no_share_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        calibrate([RAW], [1.0], coverage)


def test_intervals_and_prices_of_different_items_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        calibrate([RAW] * 5, [1.0] * 4, 0.8)


CENTS = st.integers(1, 100_000).map(lambda cents: cents / 100)
ENDS = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda ends: (float(min(ends)), float(max(ends))))


@given(st.lists(st.tuples(ENDS, CENTS), min_size=19, max_size=60), st.sampled_from(LEVELS))
def test_corrected_intervals_hold_the_rank_of_the_items_that_taught_them(
    rows: list[tuple[Interval, float]], coverage: float
) -> None:
    raw, prices = [interval for interval, _ in rows], [price for _, price in rows]
    calibration = calibrate(raw, prices, coverage)
    assert calibration is not None

    corrected = [calibration.apply(interval) for interval in raw]

    assert all(interval is not None and 0 <= interval[0] <= interval[1] < math.inf for interval in corrected)
    held = sum(ends is not None and ends[0] <= price <= ends[1] for ends, price in zip(corrected, prices, strict=True))
    assert held >= round(100 * coverage) * (len(rows) + 1) / 100  # whole cents: not one is lost on an end


# --- it holds ---

# Raw ends of a model that is right are the price's own 10 % and 90 % (2.5 % and 97.5 %) points.
Z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054}


def a_market(
    seed: int, n: int, level: float, width: float = 1.0, shift: float = 1.0
) -> tuple[list[Interval], list[float]]:
    """Raw intervals and prices of goods about $60 (most from 10 to 400), priced within 20 to 60 % (one standard
    deviation, different for each item and known to the model) of what the model reads. Its intervals are `width` times
    as wide, on the scale of ln(price), as they should be, and lie `shift` times too high.
    """
    noise = np.random.default_rng(seed)
    middle = np.clip(60 * np.exp(0.95 * noise.standard_normal(n)), 1, 999)
    deviation = noise.uniform(0.2, 0.6, n)
    prices = np.maximum(0.01, np.round(middle * np.exp(deviation * noise.standard_normal(n)), 2))
    reach = np.exp(width * Z[level] * deviation)
    low, high = np.round(shift * middle / reach), np.round(shift * middle * reach)
    return list(zip(low.tolist(), high.tolist(), strict=True)), prices.tolist()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("width", "shift", "wrong"),
    [
        (1.0, 1.0, 0.01),  # right: raw coverage is off by less than this
        (1 / 3, 1.0, 0.4),  # too narrow: off by more than this
        (1.8, 1.0, 0.04),  # too wide
        (1.0, 1.6, 0.15),  # too high
        (1.0, 0.5, 0.4),  # too low
    ],
)
def test_coverage_is_nominal_whatever_the_raw_intervals_are(
    level: float, width: float, shift: float, wrong: float
) -> None:
    raw_shares, shares = [], []
    for seed in range(30):
        calibration = calibrate(*a_market(seed, 199, level, width, shift), level)
        report = report_coverage(*a_market(1000 + seed, 300, level, width, shift), level, calibration)
        assert report.conformal is not None
        raw_shares.append(report.raw.share)
        shares.append(report.conformal.share)

    raw_error = abs(float(np.mean(raw_shares)) - level)
    assert raw_error < 0.015 if wrong == 0.01 else raw_error > wrong
    # Theorem 1: from c to c + 1/200, on average. The standard deviation of the mean of 30, each of 199 items that
    # calibrate and 300 that test, is 0.0067 at 0.8. Rounding raw ends to dollars makes ties: 0.002 more.
    deviation = math.sqrt(level * (1 - level) * (1 / 199 + 1 / 300) / 30)
    assert level - 3 * deviation <= float(np.mean(shares)) <= level + 1 / 200 + 0.002 + 3 * deviation


def in_cents(market: tuple[list[Interval], list[float]]) -> tuple[list[Interval], list[float]]:
    """The same goods at a hundredth of the price."""
    raw, prices = market
    return [(low / 100, high / 100) for low, high in raw], [price / 100 for price in prices]


def test_prices_in_cents_are_corrected_as_the_same_prices_times_a_hundred() -> None:
    market = a_market(0, 199, 0.8, width=1 / 3)

    dollars, cents = calibrate(*market, 0.8), calibrate(*in_cents(market), 0.8, decimals=2)

    assert dollars is not None
    assert cents is not None
    assert cents.factor == pytest.approx(dollars.factor)
    ends = [(dollars.apply(one), cents.apply(other)) for one, other in zip(market[0], in_cents(market)[0], strict=True)]
    # Both are rounded outwards to a hundredth of a step: a last bit can move an end by one of these.
    assert all(a and b and b == pytest.approx((a[0] / 100, a[1] / 100), abs=1.01e-4) for a, b in ends)


@pytest.mark.parametrize(
    ("decimals", "raw", "corrected"),
    [
        (2, (0.99, 1.99), (0.49, 3.99)),  # 1.00/2 − 0.01, 2.00 × 2 − 0.01
        (2, (0.0, 0.09), (0.0, 0.19)),
        (-2, (9_900.0, 19_900.0), (4_900.0, 39_900.0)),  # 10,000/2 − 100, 20,000 × 2 − 100
        (-3, (99_000.0, 100_500.0), (49_000.0, 202_000.0)),  # 100,000/2 − 1,000, 101,500 × 2 − 1,000
    ],
)
def test_the_factor_is_applied_to_the_ends_plus_a_step(decimals: int, raw: Interval, corrected: Interval) -> None:
    calibration = replace(a_calibration(2.0), decimals=decimals)

    assert calibration.apply(raw) == pytest.approx(corrected, abs=1.01 * 10 ** -(decimals + 2))


@pytest.mark.parametrize(("decimals", "cheapest", "dearest"), [(2, 0.82, 0.80), (0, 0.96, 0.64)])
def test_a_step_holds_the_coverage_of_cheap_and_dear_items_and_a_fixed_dollar_does_not(
    decimals: int, cheapest: float, dearest: float
) -> None:
    # Goods about $0.60, most from $0.10 to $4, by fifths of the middle of their raw intervals.
    found = []
    for seed in range(30):
        calibration = calibrate(*in_cents(a_market(seed, 199, 0.8, width=1 / 3)), 0.8, decimals)
        assert calibration is not None
        raw, prices = in_cents(a_market(1000 + seed, 600, 0.8, width=1 / 3))
        corrected = [calibration.apply(ends) or (0.0, 0.0) for ends in raw]
        held = np.array([low <= price <= high for (low, high), price in zip(corrected, prices, strict=True)])
        fifths = np.array_split(np.argsort([low * high for low, high in raw]), 5)
        found.append([held.mean(), held[fifths[0]].mean(), held[fifths[-1]].mean()])

    # The standard deviation of a mean of 30, each of 120 items and another calibration, is below 0.01.
    assert np.mean(found, axis=0) == pytest.approx([0.80, cheapest, dearest], abs=0.03)


def test_a_wider_interval_contains_the_narrower_one() -> None:
    # 99 to 199 is 49 to 399 after a factor of 2. The wider interval is not corrected, and ends within it.
    raw = {0.95: (80.0, 300.0), 0.8: RAW}

    assert correct(raw, {0.8: a_calibration(2.0)}) == {0.8: (49.0, 399.0), 0.95: (49.0, 399.0)}
    assert correct(raw, {}) == raw
    assert correct({0.8: None, 0.95: None}, {0.8: a_calibration(2.0)}) == {0.8: None, 0.95: None}


# --- the report ---


def test_a_report_has_raw_and_corrected_coverage_side_by_side() -> None:
    # Raw 99 to 199, corrected 49 to 399. Of 100, 199, 250, 400, and one without an interval: 2 of 5, and 3 of 5.
    raw = [RAW, RAW, RAW, None, RAW]

    report = report_coverage(raw, [100.0, 199.0, 250.0, 100.0, 400.0], 0.8, a_calibration(2.0))

    assert (report.level, report.n, report.no_price, report.calibration) == (0.8, 5, 1, a_calibration(2.0))
    assert report.raw == Coverage(0.4, wilson_interval(2, 5), mean_width=100.0, median_width=100.0)
    assert report.conformal == Coverage(0.6, wilson_interval(3, 5), mean_width=350.0, median_width=350.0)


def test_a_model_that_says_no_price_covers_nothing() -> None:
    report = report_coverage([None, None], [100.0, 200.0], 0.8, a_calibration())

    assert report.no_price == 2
    assert report.raw == report.conformal == Coverage(0.0, wilson_interval(0, 2), mean_width=None, median_width=None)


def test_a_calibration_for_another_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"intervals of 0.8 cannot be corrected by a calibration for 0.95"):
        report_coverage([RAW], [100.0], 0.8, a_calibration(coverage=0.95))


# --- abstaining ---


def test_the_curve_starts_with_the_most_certain() -> None:
    # Estimates of $99, so widths are relative to 100: 50, 10, 30 → most certain b (off by 1), then c (6), then a (20).
    table = scores(("a", 79.0, 99.0), ("b", 98.0, 99.0), ("c", 105.0, 99.0))

    curve = abstention_curve(table, [(60.0, 110.0), (90.0, 100.0), (80.0, 110.0)])

    # Of 3 items: ⌈0.3⌉ = ⌈0.6⌉ = ⌈0.9⌉ = 1; ⌈1.2⌉ = … = ⌈1.8⌉ = 2; ⌈2.1⌉ = … = 3
    assert [point.n for point in curve] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert [point.share for point in curve] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert [point.mae for point in curve] == [1.0] * 3 + [3.5] * 3 + [9.0] * 4  # (1 + 6)/2, (1 + 6 + 20)/3
    assert curve[0] == AbstentionPoint(0.1, 1, 1.0, None)
    # 3.5 ± 1.959964 × √12.5 / √2 = 1.959964 × 2.5
    assert curve[3].interval == pytest.approx((-1.399910, 8.399910), abs=1e-6)


def test_certainty_is_relative_to_the_estimate() -> None:
    # 20/(999 + 1) = 0.02 is more certain than 5/(9 + 1) = 0.5
    table = scores(("a", 12.0, 9.0), ("b", 990.0, 999.0))

    assert abstention_curve(table, [(8.0, 13.0), (985.0, 1005.0)])[0].mae == 9.0


def test_certainty_is_relative_to_the_estimate_plus_a_step() -> None:
    # With $1 in place of the step, 0.05/1.10 would be more certain than 0.2/2.00.
    items = [an_item("a", 0.15), an_item("b", 1.5)]
    cents = ScoreRule(PriceUnit("$", 2))
    table = score_predictions(predictions_of(items, [0.10, 1.00]), items, fallback=1.0, rule=cents)

    assert abstention_curve(table, [(0.08, 0.13), (0.9, 1.1)])[0].mae == 0.5  # 0.05/0.11 against 0.2/1.01


def test_items_without_a_price_come_last_with_the_imputed_price() -> None:
    # For b and c 150 is imputed: off by 50 and 140. c's interval is that of another estimator.
    table = scores(("a", 89.0, 99.0), ("b", 100.0, None), ("c", 10.0, None))

    curve = abstention_curve(table, [(0.0, 900.0), None, (10.0, 10.0)])

    assert [curve[0].mae, curve[5].mae, curve[9].mae] == [10.0, 30.0, 200 / 3]  # 10; (10 + 50)/2; (10 + 50 + 140)/3


@given(st.lists(st.tuples(CENTS, st.none() | CENTS, st.none() | ENDS), min_size=1, max_size=40), st.randoms())
def test_the_curve_ends_at_the_error_of_all_in_whatever_order_they_come(
    rows: list[tuple[float, float | None, Interval | None]], chance: random.Random
) -> None:
    keyed = [((str(key), price, estimate), ends) for key, (price, estimate, ends) in enumerate(rows)]
    table = scores(*(row for row, _ in keyed))

    curve = abstention_curve(table, [ends for _, ends in keyed])

    assert curve[-1].n == len(rows)
    assert curve[-1].mae == pytest.approx(METRICS["mae"].measure(table).value)
    chance.shuffle(keyed)
    assert abstention_curve(scores(*(row for row, _ in keyed)), [ends for _, ends in keyed]) == curve


# --- what calibrates ---

TEST = a_spec(split=Split.TEST, estimator="median")
VAL = a_spec(split=Split.VAL, estimator="median")


def test_the_most_validation_items_calibrate_all_else_being_equal() -> None:
    few, more = replace(VAL, limit=10), replace(VAL, limit=20)

    assert calibration_spec([few, more, replace(VAL, estimator="greedy"), TEST], TEST) == more
    assert calibration_spec([few, VAL, more], replace(TEST, limit=5)) == VAL
    assert calibration_spec([replace(VAL, base_revision="other")], TEST) is None
    assert calibration_spec([VAL], replace(VAL, limit=10)) is None  # validation items do not calibrate themselves


def test_other_data_are_calibrated_by_the_validation_items_of_the_run() -> None:
    other = replace(TEST, split="data", data_fingerprint="other")

    assert calibration_spec([VAL, TEST], other) == VAL
    assert calibration_spec([replace(VAL, data_fingerprint="other")], TEST) is None
