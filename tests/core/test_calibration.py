"""What the correction of intervals is, that it holds whatever the raw ones are, and that it holds for groups."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.calibration import (
    Calibration,
    CalibrationGroup,
    Correction,
    calibrate,
    calibration_spec,
    find_edges,
    find_rank,
)
from pricer.core.intervals import LEVELS, Interval, report_coverage
from pricer.core.items import Item, Split
from pricer.core.predictions import Distribution, Prediction
from pricer.core.units import DOLLARS, PriceUnit
from tests.builders import a_spec, an_item

# Of price + 1: from 100 to 200.
RAW = (99.0, 199.0)


def an_answer(raw: Interval, estimate: float | None = None, *, no_price: float = 0.0) -> Prediction:
    """An answer whose 80 % and 95 % intervals are both `raw`. The estimate is in the middle of it, unless given."""
    low, high = raw
    median = (low + high) / 2 if estimate is None else estimate
    return Prediction(
        "a", "", median, Distribution((low, low, median, high, high), median, True, median, 0, no_price, 0)
    )


def items_of(prices: Sequence[float], category: str | None = None) -> list[Item]:
    return [replace(an_item("a", price), category=category) for price in prices]


def learned(answers: Sequence[Prediction], items: Sequence[Item], decimals: int = 0) -> Calibration:
    calibration = calibrate(answers, items, decimals)
    assert calibration is not None
    return calibration


def covered(calibration: Calibration, answers: Sequence[Prediction], items: Sequence[Item], level: float) -> np.ndarray:
    """Whether each corrected interval has the price, (items,)."""
    ends = [calibration.correct(answer, item.category)[level] for answer, item in zip(answers, items, strict=True)]
    return np.array([one is not None and one[0] <= i.price <= one[1] for one, i in zip(ends, items, strict=True)])


# --- the factors ---


def test_the_rank_counts_one_more_score_than_there_is() -> None:
    # ⌈5 × 0.8⌉ = 4th lowest of 0.8, 1, 1.25, 1.5; ⌈5 × 0.6⌉ = 3rd; ⌈5 × 0.41⌉ = 3rd; ⌈5 × 0.4⌉ = 2nd
    scores = np.array([1.0, 1.25, 0.8, 1.5])

    assert [find_rank(scores, share) for share in (0.8, 0.6, 0.41, 0.4)] == [1.5, 1.25, 1.25, 1.0]
    # 100 × 0.55 = 55 (55.00000000000001 by floats).
    assert find_rank(np.arange(1.0, 100.0), 0.55) == 55


# ⌈4 × 0.8⌉ = 4 > 3, ⌈5 × 0.8⌉ = 4; ⌈19 × 0.95⌉ = ⌈18.05⌉ = 19 > 18, ⌈20 × 0.95⌉ = 19
@pytest.mark.parametrize(("n", "levels"), [(4, [0.8]), (18, [0.8]), (19, [0.8, 0.95])])
def test_a_level_with_too_few_items_has_no_correction(n: int, levels: list[float]) -> None:
    (group,) = learned([an_answer(RAW)] * n, items_of([150.0] * n)).groups

    assert [correction.level for correction in group.corrections] == levels


def test_too_few_items_for_any_level_correct_nothing() -> None:
    assert calibrate([an_answer(RAW)] * 3, items_of([150.0] * 3)) is None
    assert calibrate([], []) is None


def test_few_items_have_one_factor_for_both_ends() -> None:
    # Scores: max(100/200, 200/200) = 1; max(100/80, 80/200) = 1.25; max(100/125, 125/200) = 0.8; 300/200 = 1.5. The
    # 4th lowest is 1.5. The silent answer teaches nothing and is counted.
    answers = [an_answer(RAW)] * 4 + [an_answer(RAW, no_price=0.9)]

    found = learned(answers, items_of([199.0, 79.0, 124.0, 299.0, 999.0]))

    assert found == Calibration(4, 1, 0, (CalibrationGroup(None, None, None, 4, (Correction(0.8, 1.5, 1.5),)),))
    assert found.validation_items == 5


def test_each_end_has_its_own_factor_where_errors_are_asymmetric() -> None:
    # 119 items, of price + 1 from 101 to 219. ⌈120 × 0.9⌉ = 108th lowest: of 100 ÷ price, that of 219 − 107 = 112; of
    # price ÷ 200, that of 101 + 107 = 208. Between these ends are 97 items, and the second step asks for ⌈120 × 0.8⌉ =
    # 96: its factor is 1, the score of both items that lie on an end.
    calibration = learned([an_answer(RAW)] * 119, items_of([100.0 + i for i in range(119)]))

    ((eighty, _),) = [group.corrections for group in calibration.groups]
    assert eighty == Correction(0.8, 100 / 112, 208 / 200)
    assert eighty.apply(RAW, 149.0, DOLLARS) == (111.0, 207.0)


@pytest.mark.parametrize(
    ("correction", "raw", "corrected"),
    [
        ((2.0, 2.0), RAW, (49.0, 399.0)),  # 100/2 − 1, 200 × 2 − 1
        ((1.0, 1.0), RAW, RAW),
        ((2.0, 1.0), RAW, (49.0, 199.0)),
        ((0.8, 0.8), RAW, (124.0, 159.0)),  # 100/0.8 − 1, 200 × 0.8 − 1
        ((0.5, 0.5), RAW, (149.0, 149.0)),  # not 199 to 99, which would exclude the median
        ((2.0, 0.5), RAW, (49.0, 149.0)),
        ((2.0, 2.0), (0.0, 9.0), (0.0, 19.0)),  # 1/2 − 1 is below $0
        ((0.5, 0.5), (0.0, 0.0), (0.0, 0.0)),
        ((3.0, 3.0), (99.0, 99.0), (32.33, 299.0)),  # 100/3 − 1 = 32.3333, in whole cents outwards
        ((1.01, 1.01), (19.0, 24.0), (18.8, 24.25)),  # 20/1.01 − 1 = 18.80198, 25 × 1.01 − 1 = 24.25
    ],
)
def test_an_interval_is_widened_or_narrowed_by_the_factors(
    correction: tuple[float, float], raw: Interval, corrected: Interval
) -> None:
    assert Correction(0.8, *correction).apply(raw, sum(raw) / 2, DOLLARS) == corrected


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
    found = Correction(0.8, 2.0, 2.0).apply(raw, sum(raw) / 2, PriceUnit(decimals=decimals))

    assert found == pytest.approx(corrected, abs=1.01 * 10 ** -(decimals + 2))


@pytest.mark.parametrize("raw", [(2.0, 1.0), (-1.0, 1.0), (1.0, math.inf), (math.nan, 1.0), (1.0, math.nan)])
def test_what_is_no_interval_is_refused(raw: Interval) -> None:
    with pytest.raises(ValueError, match="is no interval"):
        calibrate([an_answer(raw)] * 5, items_of([1.0] * 5))


def test_answers_to_different_items_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        calibrate([an_answer(RAW)] * 5, items_of([1.0] * 4))


def test_a_wider_interval_contains_the_narrower_one() -> None:
    # 99 to 199 is 49 to 399 after a factor of 2. The wider interval is not corrected, and ends within it.
    quantiles = (80.0, 99.0, 150.0, 199.0, 300.0)
    answer = Prediction("a", "", 150.0, Distribution(quantiles, 150.0, True, 150.0, 0.0, 0.0, 0.0))
    calibration = Calibration(9, 0, 0, (CalibrationGroup(None, None, None, 9, (Correction(0.8, 2.0, 2.0),)),))

    assert calibration.correct(answer, None) == {0.8: (49.0, 399.0), 0.95: (49.0, 399.0)}
    assert calibration.correct(an_answer(RAW, no_price=0.9), None) == {0.8: None, 0.95: None}
    assert calibration.correct(Prediction("a", "", 150.0), None) == {0.8: None, 0.95: None}


CENTS = st.integers(1, 100_000).map(lambda cents: cents / 100)
ENDS = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda ends: (float(min(ends)), float(max(ends))))


@given(st.lists(st.tuples(ENDS, CENTS), min_size=19, max_size=60), st.integers(1, 20))
def test_corrected_intervals_hold_the_rank_of_the_items_that_taught_them(
    rows: list[tuple[Interval, float]], times: int
) -> None:
    answers, items = [an_answer(raw) for raw, _ in rows] * times, items_of([price for _, price in rows]) * times
    calibration = learned(answers, items)

    for group in calibration.groups:
        members = [index for index, answer in enumerate(answers) if calibration.find_group(answer, None) is group]
        assert len(members) == group.n
        own = [answers[index] for index in members], [items[index] for index in members]
        for level in LEVELS:  # whole cents: not one is lost on an end
            assert covered(calibration, *own, level).sum() >= round(100 * level) * (group.n + 1) / 100


# --- it holds ---

# Raw ends of a model that is right are the price's own 10 % and 90 % (2.5 % and 97.5 %) points.
Z = {0.8: 1.2815515655446004, 0.95: 1.959963984540054}


def a_market(
    seed: int, n: int, level: float, width: float = 1.0, shift: float = 1.0, *, cents: bool = False
) -> tuple[list[Prediction], list[Item]]:
    """Answers about goods of about $60 (most from 10 to 400), priced within 20 to 60 % (one standard deviation,
    different for each item and known to the model) of what the model reads. Its intervals are `width` times as wide, on
    the scale of ln(price), as they should be, and lie `shift` times too high. `cents`: at a hundredth of the price.
    """
    noise, part = np.random.default_rng(seed), 100 if cents else 1
    middle = np.clip(60 * np.exp(0.95 * noise.standard_normal(n)), 1, 999)
    deviation = noise.uniform(0.2, 0.6, n)
    prices = np.maximum(0.01, np.round(middle * np.exp(deviation * noise.standard_normal(n)), 2))
    reach = np.exp(width * Z[level] * deviation)
    low, high = np.round(shift * middle / reach), np.round(shift * middle * reach)
    rows = zip((low / part).tolist(), (high / part).tolist(), (shift * middle / part).tolist(), strict=True)
    return [an_answer((low, high), min(max(low, e), high)) for low, high, e in rows], items_of((prices / part).tolist())


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
        calibration = learned(*a_market(seed, 199, level, width, shift))
        answers, items = a_market(1000 + seed, 300, level, width, shift)
        raw = [answer.distribution.interval(level) for answer in answers if answer.distribution]
        raw_shares.append(report_coverage(level, raw, None, [item.price for item in items]).raw.share)
        shares.append(covered(calibration, answers, items, level).mean())

    raw_error = abs(float(np.mean(raw_shares)) - level)
    assert raw_error < 0.015 if wrong == 0.01 else raw_error > wrong
    # Theorem 1: from c to c + 1/200, on average. The standard deviation of the mean of 30, each of 199 items that
    # calibrate and 300 that test, is 0.0067 at 0.8. Rounding raw ends to dollars makes ties: 0.002 more.
    deviation = math.sqrt(level * (1 - level) * (1 / 199 + 1 / 300) / 30)
    assert level - 3 * deviation <= float(np.mean(shares)) <= level + 1 / 200 + 0.002 + 3 * deviation


def test_prices_in_cents_are_corrected_as_the_same_prices_times_a_hundred() -> None:
    dollars, cents = (learned(*a_market(0, 199, 0.8, 1 / 3, cents=both), 2 * both) for both in (False, True))

    found = [[(one.low, one.high) for one in each.groups[0].corrections] for each in (dollars, cents)]
    assert np.array(found[0]) == pytest.approx(np.array(found[1]))


@pytest.mark.parametrize(("decimals", "cheapest", "dearest"), [(2, 0.82, 0.80), (0, 0.96, 0.64)])
def test_a_step_holds_the_coverage_of_cheap_and_dear_items_and_a_fixed_dollar_does_not(
    decimals: int, cheapest: float, dearest: float
) -> None:
    # Goods about $0.60, most from $0.10 to $4, by fifths of the middle of their raw intervals.
    found = []
    for seed in range(30):
        calibration = learned(*a_market(seed, 199, 0.8, 1 / 3, cents=True), decimals)
        answers, items = a_market(1000 + seed, 600, 0.8, 1 / 3, cents=True)
        held = covered(calibration, answers, items, 0.8)
        ends = [answer.distribution.interval(0.8) for answer in answers if answer.distribution]
        fifths = np.array_split(np.argsort([low * high for low, high in ends]), 5)
        found.append([held.mean(), held[fifths[0]].mean(), held[fifths[-1]].mean()])

    # The standard deviation of a mean of 30, each of 120 items and another calibration, is below 0.01.
    assert np.mean(found, axis=0) == pytest.approx([0.80, cheapest, dearest], abs=0.03)


# --- groups ---


@pytest.mark.parametrize(
    ("estimates", "edges"),
    [
        (range(199), ()),
        (range(200), (99,)),
        (range(350), (99, 199)),  # the last band has 150
        (range(1_000), (199, 399, 599, 799)),
        ([5.0] * 1_000, ()),
        ([*[1.0] * 150, *[2.0] * 99], ()),  # the rest would be too few
        ([*[1.0] * 150, *[2.0] * 100], (1.0,)),
    ],
)
def test_bands_of_the_estimate_have_a_fifth_of_the_items_and_at_least_a_hundred(
    estimates: Sequence[float], edges: tuple[float, ...]
) -> None:
    chance = np.random.default_rng(0)

    assert find_edges(chance.permutation(np.array(estimates, dtype=np.float64))) == edges


def test_an_item_is_corrected_by_its_category_or_else_by_all_items() -> None:
    lamps = [an_answer(RAW, 100.0)] * 100 + [an_answer(RAW, 101.0)] * 100
    hats = [an_answer(RAW, 300.0)] * 99

    calibration = learned(lamps + hats, items_of([150.0] * 200, "lamp") + items_of([150.0] * 99, "hat"))

    # 299 in bands of at least 100: 200 at most $101, because equal estimates share a band, leave 99.
    assert [(group.category, group.above, group.up_to, group.n) for group in calibration.groups] == [
        ("lamp", None, 100.0, 100),
        ("lamp", 100.0, None, 100),
        (None, None, 100.0, 100),
        (None, 100.0, None, 199),
    ]
    cheap, dear = an_answer(RAW, 100.0), an_answer(RAW, 100.5)
    places = [(cheap, "lamp"), (dear, "lamp"), (cheap, "hat"), (dear, "new"), (dear, None)]
    assert [calibration.groups.index(calibration.find_group(*place)) for place in places] == [0, 1, 2, 3, 3]
    assert calibration.find_group(an_answer(RAW, no_price=0.9), "lamp") is None


def test_coverage_is_nominal_in_each_group_though_their_errors_differ() -> None:
    # The intervals of hats are three times as narrow as they should be, and those of lamps are right.
    def both(seed: int, *, named: bool = True) -> tuple[list[Prediction], list[Item]]:
        hats, lamps = a_market(seed, 200, 0.8, 1 / 3), a_market(5_000 + seed, 200, 0.8)
        named_items = items_of([i.price for i in hats[1]], "hat") + items_of([i.price for i in lamps[1]], "lamp")
        return hats[0] + lamps[0], named_items if named else hats[1] + lamps[1]

    by_group, pooled = [], []
    for seed in range(30):
        answers, items = both(1_000 + seed)
        by_group.append(covered(learned(*both(seed)), answers, items, 0.8).reshape(2, 200).mean(axis=1))
        pooled.append(covered(learned(*both(seed, named=False)), answers, items, 0.8).reshape(2, 200).mean(axis=1))

    # The standard deviation of a mean of 30, each of 200 items that calibrate and 200 that test, is 0.0073. Without
    # the categories, the same items are in bands of the estimate.
    assert np.mean(by_group, axis=0) == pytest.approx([0.8, 0.8], abs=0.025)
    assert np.mean(pooled, axis=0) == pytest.approx([0.68, 0.93], abs=0.025)


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
