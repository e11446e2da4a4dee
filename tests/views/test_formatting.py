"""Values as text: each in its unit, and nothing in a text that changes how others look."""

import pytest

from pricer.core.metrics import METRICS, Metric, ScoreRule
from pricer.core.units import DOLLARS, PriceUnit
from pricer.views.formatting import (
    confidence_set,
    description,
    difference,
    difference_to_best,
    duration,
    error,
    half_width,
    hit_limits,
    interval,
    local_time,
    looks,
    newest_line,
    ordinal,
    price,
    shorten,
    size,
    utc_time,
    value,
    visible,
    with_half_width,
    with_interval,
)
from tests.builders import a_comparison, a_difference, an_evaluation

BEST = a_difference(300, -0.03, (-0.07, 0.01), 0.875, is_best=True)
WORSE, ALIKE = a_difference(100, 0.1, (0.04, 0.16), 0.0), a_difference(200, 0.03, (-0.01, 0.07), 0.125)


@pytest.mark.parametrize(
    ("metric", "of_half", "amount", "beside", "ends"),
    [
        ("mae", "$0.50", "−$0.50", "$0.03 (−0.01 to 0.07)", "0.25 to 0.75"),
        ("median_ae", "$0.50", "−$0.50", "$0.03 (−0.01 to 0.07)", "0.25 to 0.75"),
        ("hit_rate", "50.0%", "−50.00 points", "3.00 points (−1.00 to 7.00)", "25.0 to 75.0"),
        ("mape", "50.0%", "−50.00 points", "3.00 points (−1.00 to 7.00)", "25.0 to 75.0"),
        ("no_price", "50.0%", "−50.00 points", "3.00 points (−1.00 to 7.00)", "25.0 to 75.0"),
        ("rmsle", "0.500", "−0.5000", "0.0300 (−0.0100 to 0.0700)", "0.250 to 0.750"),
        ("r2", "0.500", "−0.5000", "0.0300 (−0.0100 to 0.0700)", "0.250 to 0.750"),
    ],
)
def test_each_metric_has_its_unit(metric: str, of_half: str, amount: str, beside: str, ends: str) -> None:
    assert (value(0.5, metric, DOLLARS), difference(-0.5, metric, DOLLARS)) == (of_half, amount)
    assert difference_to_best(ALIKE, metric, DOLLARS) == beside
    assert interval((0.25, 0.75), metric, DOLLARS) == ends


def test_the_line_of_the_newest_checkpoint_says_how_far_it_is_from_the_best() -> None:
    newest, measured = an_evaluation(300, 41.2), "step-000300  MAE $41.20 ± 1.00  without a price 0.0%  n 50"
    better = a_difference(200, -0.1, (-0.16, -0.04), 1.0, is_best=True)
    worse = a_difference(300, 0.1, (0.04, 0.16), 0.0)

    assert newest_line(newest, None) == measured
    assert newest_line(newest, a_comparison(WORSE, BEST)) == f"{measured}  the best so far, by $0.03 (−0.01 to 0.07)"
    assert newest_line(newest, a_comparison(better, worse)) == (
        f"{measured}  $0.10 (0.04 to 0.16) worse than step-000200"
    )


@pytest.mark.parametrize(
    ("name", "amount", "ends", "with_half", "in_brackets"),
    [
        ("mae", 1234.5, (1200.0, 1269.0), "$1,234.50 ± 34.50", "$1,234.50 (1,200.00 to 1,269.00)"),
        ("median_ae", 3.0, None, "$3.00", "$3.00"),
        ("r2", None, None, "–", "–"),
        ("rmsle", 0.38, None, "0.380", "0.380"),
        ("hit_rate", 0.708, (0.6, 0.8), "70.8%", "70.8% (60.0 to 80.0)"),
    ],
)
def test_intervals_stand_behind_their_metric(
    name: str, amount: float | None, ends: tuple[float, float] | None, with_half: str, in_brackets: str
) -> None:
    metric = Metric(name, amount, ends, 10, "lower")

    assert (with_half_width(metric, DOLLARS), with_interval(metric, DOLLARS)) == (with_half, in_brackets)


def test_the_best_is_better_than_the_best_of_the_others() -> None:
    assert difference_to_best(BEST, "mae", DOLLARS) == "−$0.03 (−0.07 to 0.01)"


@pytest.mark.parametrize(
    ("more", "end"), [(None, ""), (1_234, "; about 1,234 more items would rule out the runner-up")]
)
def test_the_set_that_may_be_the_best_is_counted_with_the_best(more: int | None, end: str) -> None:
    comparison = a_comparison(WORSE, ALIKE, BEST, more_items=more)

    assert confidence_set(comparison, "hit_rate", DOLLARS) == (
        "2 of 3 checkpoints may be the truly best (95 % confidence); the chosen one is worse than it by at most "
        f"50.00 points{end}"
    )


def test_a_best_without_a_rival_is_said_to_be_alone() -> None:
    assert confidence_set(a_comparison(WORSE, BEST, more_items=None), "mae", DOLLARS) == (
        "of 2 checkpoints, only the chosen one may be the truly best (95 % confidence)"
    )


def test_amounts() -> None:
    assert (price(3.5, DOLLARS), price(None, DOLLARS)) == ("$3.50", "–")
    assert (error(-3.5, DOLLARS), error(None, DOLLARS)) == ("−$3.50", "–")
    assert (half_width(None, DOLLARS), half_width((1.0, 4.0), DOLLARS)) == ("", " ± 1.50")


@pytest.mark.parametrize(
    ("unit", "mae", "half", "beside"),
    [
        (
            PriceUnit("kWh", 1),
            "1,234.50 kWh (1,200.00 to 1,269.00)",
            "1,234.50 ± 34.50 kWh",
            "0.03 kWh (−0.01 to 0.07)",
        ),
        (PriceUnit("€", -2), "€1,234 (1,200 to 1,269)", "€1,234 ± 34", "€0 (−0 to 0)"),
        (
            PriceUnit("US$", 3),
            "US$1,234.5000 (1,200.0000 to 1,269.0000)",
            "US$1,234.5000 ± 34.5000",
            "US$0.0300 (−0.0100 to 0.0700)",
        ),
    ],
)
def test_a_unit_other_than_dollars_is_written_once_per_amount(
    unit: PriceUnit, mae: str, half: str, beside: str
) -> None:
    metric = Metric("mae", 1234.5, (1200.0, 1269.0), 10, "lower")

    assert (with_interval(metric, unit), with_half_width(metric, unit)) == (mae, half)
    assert difference_to_best(ALIKE, "mae", unit) == beside
    assert value(0.5, "hit_rate", unit) == "50.0%"


def test_a_metric_says_the_unit_and_the_limits_that_it_was_measured_with() -> None:
    cents = ScoreRule(PriceUnit("€", 2), hit_error=None, hit_share=0.1)
    hours = ScoreRule(PriceUnit("hours", 0), hit_error=2.5)

    assert description("mae", ScoreRule()) == "MAE: mean absolute error in dollars"
    assert description("hit_rate", ScoreRule()) == "hits: answers off by less than $40 or 20% of the price"
    assert description("rmsle", ScoreRule()) == "RMSLE: root mean squared error of ln(price + 1)"
    assert description("mae", cents) == "MAE: mean absolute error in euros"
    assert description("hit_rate", cents) == "hits: answers off by less than 10% of the price"
    assert description("rmsle", cents) == "RMSLE: root mean squared error of ln(price + €0.01)"
    assert description("hit_rate", hours) == "hits: answers off by less than 2.50 hours or 20% of the price"
    assert (hit_limits(hours), hit_limits(hours, 2)) == ("2.50 hours or 20 %", "5 hours or 40 %")
    assert not any("{" in description(name, cents) for name in METRICS)


def test_sizes_times_and_numbers_in_order() -> None:
    assert (size(1_999_999_999), size(2_000_000_000)) == ("2,000.0 MB", "2.00 GB")
    assert [duration(seconds) for seconds in (59.6, 192.4, 2 * 3600 + 61)] == ["1:00", "3:12", "2:01:01"]
    assert (utc_time("2026-01-02T03:04:05+01:00"), utc_time("soon"), utc_time(None)) == (
        "2026-01-02 02:04 UTC",
        None,
        None,
    )
    assert (local_time("soon"), local_time(None)) == ("soon", "")
    assert [ordinal(number) for number in (1, 2, 3, 11, 23, 112)] == ["1st", "2nd", "3rd", "11th", "23rd", "112th"]


def test_looks_at_the_test_split_are_counted_and_each_checkpoint_is_named_once() -> None:
    assert looks([]) == "looked at once"
    assert looks(["a", "a", "b"]) == "looked at 4 times, also for a, b"


def test_marks_that_turn_text_around_are_shown_as_unknown_and_blanks_stay() -> None:
    assert visible("a\u202eb\x1b[0m") == "a�b�[0m"
    assert visible("27\u00a0inch\u3000screen") == "27\u00a0inch\u3000screen"


def test_short_is_short_and_on_one_line() -> None:
    assert shorten("a\n b", 5) == "a b"
    assert shorten("abcdef", 5) == "abcd…"
