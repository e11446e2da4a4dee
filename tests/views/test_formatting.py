"""Metrics, differences and who is told apart, as text."""

import pytest

from pricer.core.comparison import Evidence, Standing
from pricer.views.formatting import behind, difference, measured, told_apart

BEST = Standing(300, 0.0, None, True, 0.875)
STANDINGS = (Standing(100, 0.1, (0.04, 0.16), False, 0.0), Standing(200, 0.03, (-0.01, 0.07), True, 0.125), BEST)


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
    assert (measured(0.5, metric), difference(-0.5, metric), behind(STANDINGS[1], metric)) == (value, amount, beside)


def test_the_best_is_behind_nobody() -> None:
    assert behind(BEST, "mae") == "–"


@pytest.mark.parametrize(("more", "end"), [(None, ""), (1_234, "; the runner-up could be on about 1,234 more items")])
def test_who_cannot_be_told_apart_is_counted_without_the_best(more: int | None, end: str) -> None:
    evidence = Evidence(STANDINGS, 5.0, 41.25, (36.0, 48.5), more, 10_000, 0)

    assert told_apart(evidence) == f"1 of the 2 others cannot be told apart from the best{end}"
