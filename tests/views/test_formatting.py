"""Values as text: each in its unit, and nothing in a text that changes how others look."""

import pytest

from pricer.core.metrics import Metric
from pricer.views.formatting import (
    difference,
    difference_to_best,
    dollars,
    duration,
    half_width,
    interval,
    local_time,
    looks,
    ordinal,
    shorten,
    significance,
    size,
    utc_time,
    value,
    visible,
    with_half_width,
    with_interval,
)
from tests.builders import a_comparison, a_difference

BEST = a_difference(300, 0.0, None, 0.875)
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
    assert (value(0.5, metric), difference(-0.5, metric)) == (of_half, amount)
    assert (difference_to_best(ALIKE, metric), interval((0.25, 0.75), metric)) == (beside, ends)


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

    assert (with_half_width(metric), with_interval(metric)) == (with_half, in_brackets)


def test_the_best_is_worse_than_nobody() -> None:
    assert difference_to_best(BEST, "mae") == "–"


@pytest.mark.parametrize(
    ("more", "end"), [(None, ""), (1_234, "; about 1,234 more items would separate the runner-up")]
)
def test_what_is_not_significantly_different_is_counted_without_the_best(more: int | None, end: str) -> None:
    comparison = a_comparison(WORSE, ALIKE, BEST, more_items=more)

    assert significance(comparison) == f"1 of the 2 others is not significantly different from the best{end}"


def test_amounts() -> None:
    assert (dollars(-3.5), dollars(3.5, signed=True), dollars(None)) == ("−$3.50", "+$3.50", "–")
    assert (half_width(None), half_width((1.0, 4.0))) == ("", " ± 1.50")


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
