"""How often intervals contain the price, and what abstaining buys."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.evaluation import ScoreTable, score_predictions
from pricer.core.intervals import AbstentionPoint, Coverage, Interval, abstention_curve, report_coverage
from pricer.core.metrics import METRICS, ScoreRule, wilson_interval
from pricer.core.units import PriceUnit
from tests.builders import an_item, predictions_of

RAW, WIDER = (99.0, 199.0), (49.0, 399.0)
CENTS = st.integers(1, 100_000).map(lambda cents: cents / 100)
ENDS = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda ends: (float(min(ends)), float(max(ends))))


def scores(*rows: tuple[str, float, float | None]) -> ScoreTable:
    """The scores of items of these ids, prices and estimates."""
    items = [an_item(key, price) for key, price, _ in rows]
    return score_predictions(predictions_of(items, [estimate for _, _, estimate in rows]), items, fallback=150.0)


# --- the report ---


def test_a_report_has_raw_and_corrected_coverage_side_by_side() -> None:
    # Of 100, 199, 250, 400, and one without an interval: 2 of 5, and 3 of 5.
    raw, corrected = [RAW, RAW, RAW, None, RAW], [WIDER, WIDER, WIDER, None, WIDER]

    report = report_coverage(0.8, raw, corrected, [100.0, 199.0, 250.0, 100.0, 400.0])

    assert (report.level, report.n, report.no_price) == (0.8, 5, 1)
    assert report.raw == Coverage(0.4, wilson_interval(2, 5), mean_width=100.0, median_width=100.0)
    assert report.conformal == Coverage(0.6, wilson_interval(3, 5), mean_width=350.0, median_width=350.0)


def test_a_model_that_says_no_price_covers_nothing() -> None:
    report = report_coverage(0.8, [None, None], [None, None], [100.0, 200.0])

    assert report.no_price == 2
    assert report.raw == report.conformal == Coverage(0.0, wilson_interval(0, 2), mean_width=None, median_width=None)


@pytest.mark.parametrize("raw", [(2.0, 1.0), (-1.0, 1.0), (1.0, math.inf), (math.nan, 1.0), (1.0, math.nan)])
def test_what_is_no_interval_is_refused(raw: Interval) -> None:
    with pytest.raises(ValueError, match="is no interval"):
        report_coverage(0.8, [raw], None, [1.0])


def test_intervals_and_prices_of_different_items_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        report_coverage(0.8, [RAW] * 5, None, [1.0] * 4)


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
