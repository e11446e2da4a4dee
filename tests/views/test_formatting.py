"""Metrics, differences and who is not significantly different, as text."""

import pytest

from pricer.views.formatting import difference, measured, not_significant, worse_by
from tests.builders import a_comparison, a_difference

BEST = a_difference(300, 0.0, None, 0.875)
WORSE, ALIKE = a_difference(100, 0.1, (0.04, 0.16), 0.0), a_difference(200, 0.03, (-0.01, 0.07), 0.125)


@pytest.mark.parametrize(
    ("metric", "value", "amount", "beside"),
    [
        ("mae", "$0.50", "−$0.50", "$0.03 (−0.01 to 0.07)"),
        ("median_ae", "$0.50", "−$0.50", "$0.03 (−0.01 to 0.07)"),
        ("hit_rate", "50.0%", "−50.00 points", "3.00 points (−1.00 to 7.00)"),
        ("mape", "50.0%", "−50.00 points", "3.00 points (−1.00 to 7.00)"),
        ("no_price", "50.0%", "−50.00 points", "3.00 points (−1.00 to 7.00)"),
        ("rmsle", "0.500", "−0.5000", "0.0300 (−0.0100 to 0.0700)"),
        ("r2", "0.500", "−0.5000", "0.0300 (−0.0100 to 0.0700)"),
    ],
)
def test_each_metric_has_its_unit(metric: str, value: str, amount: str, beside: str) -> None:
    assert (measured(0.5, metric), difference(-0.5, metric), worse_by(ALIKE, metric)) == (value, amount, beside)


def test_the_best_is_worse_than_nobody() -> None:
    assert worse_by(BEST, "mae") == "–"


@pytest.mark.parametrize(("more", "end"), [(None, ""), (1_234, "; the runner-up could be on about 1,234 more items")])
def test_who_is_not_significantly_different_is_counted_without_the_best(more: int | None, end: str) -> None:
    comparison = a_comparison(WORSE, ALIKE, BEST, more_items=more)

    assert not_significant(comparison) == f"1 of the 2 others is not significantly different from the best{end}"
    assert not_significant(a_comparison(WORSE, BEST)).startswith("0 of the 1 others are not")
