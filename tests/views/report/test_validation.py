"""What the report says of how sure a choice is: the chart, the columns of the ranking, and the tile."""

from dataclasses import replace

import pytest

from pricer.core.comparison import Difference
from pricer.views.report.page import tiles
from pricer.views.report.validation import difference_chart, difference_scale
from pricer.views.report.values import HeldOut, RunReport
from pricer.views.tables import ranking
from tests.builders import a_comparison, a_difference, an_evaluation

DIFFERENCES = (
    a_difference(100, 10.0, (4.0, 16.0), 0.0),
    a_difference(200, 3.5, (-0.5, 7.5), 0.125),
    a_difference(300, -3.5, (-7.5, 0.5), 0.875, is_best=True),
)


def held_out(metric: str = "mae", differences: tuple[Difference, ...] = DIFFERENCES) -> HeldOut:
    """Checkpoints at steps 100, 200 and 300 with errors of $50, $43.50 and $40, and a baseline."""
    checkpoints = (an_evaluation(100, 50.0), an_evaluation(200, 43.5), an_evaluation(300, 40.0))
    comparison = a_comparison(*differences, corrected=0.4125, corrected_interval=(0.36, 0.485))
    return HeldOut(checkpoints, (an_evaluation(None, 60.0),), checkpoints[-1], True, metric, comparison=comparison)


def test_differences_stand_around_zero_by_whether_they_may_be_the_best() -> None:
    chart = difference_chart(held_out())

    assert chart is not None
    curve, alike, apart, best = chart.traces
    assert (curve["x"], curve["y"]) == ([100, 200, 300], [10.0, 3.5, -3.5])
    assert (alike["name"], alike["x"], alike["y"].tolist()) == ("may be the best", [200], [3.5])
    assert (apart["name"], apart["x"], apart["y"].tolist()) == ("not the best", [100], [10.0])
    assert (alike["marker"]["color"], apart["marker"]["color"]) == ("amber", "blue")
    # 7.5 − 3.5 and 16 − 10.
    assert (alike["error_y"]["array"].tolist(), apart["error_y"]["array"].tolist()) == ([4.0], [6.0])
    assert alike["text"] == ["step 200: $3.50 (−0.50 to 7.50)<br>probability best 12.5%"]
    assert (best["name"], best["x"], best["y"].tolist()) == ("chosen: step 300", [300], [-3.5])
    assert [(line["y0"], line["y1"]) for line in chart.layout["shapes"]] == [(0, 0)]
    # From −7.5 to 16, and 6 % of that on either side.
    assert chart.layout["yaxis"]["range"] == pytest.approx([-8.91, 17.41])
    assert chart.note.startswith("How much worse by MAE each checkpoint is than the best of all others, on the same")
    assert "Above the picture" not in chart.note


@pytest.mark.parametrize(
    ("metric", "title", "ticks", "differences"),
    [
        ("median_ae", "median error, worse by ($)", ",~f", [10.0, 3.5, -3.5]),
        ("hit_rate", "hits, worse by, points", None, [1000.0, 350.0, -350.0]),
        ("rmsle", "RMSLE, worse by", None, [10.0, 3.5, -3.5]),
    ],
)
def test_the_axis_is_in_the_unit_of_the_metric(
    metric: str, title: str, ticks: str | None, differences: list[float]
) -> None:
    chart = difference_chart(held_out(metric))

    assert chart is not None
    yaxis = chart.layout["yaxis"]
    assert (yaxis["title"]["text"], yaxis.get("tickformat"), chart.traces[0]["y"]) == (title, ticks, differences)


def test_what_is_far_behind_is_named_and_does_not_press_the_rest_flat() -> None:
    far = (a_difference(50, 90.0, (80.0, 100.0), 0.0), a_difference(60, 80.0, (70.0, 90.0), 0.0))
    best = a_difference(300, -1.0, (-3.0, 1.0), 0.7, is_best=True)
    near = (a_difference(100, 2.0, (-2.0, 6.0), 0.1), a_difference(200, 1.0, (-1.0, 3.0), 0.2))

    chart = difference_chart(held_out(differences=(*far, *near, best)))

    assert chart is not None
    # Half-intervals of the nearer half are 2 and 4: 6 times 3 is 18. From −3 to 6, and 6 % of that on either side.
    assert chart.layout["yaxis"]["range"] == pytest.approx([-3.54, 6.54])
    assert chart.note.endswith("Above the picture (double-click shows all): step 60 by $80.00, step 50 by $90.00.")


def test_at_least_the_nearer_half_is_drawn() -> None:
    best = a_difference(300, -50.0, (-51.0, -49.0), 1.0, is_best=True)
    comparison = a_comparison(a_difference(100, 50.0, (49.0, 51.0), 0.0), best)

    # From −51 to 51.
    scale, beyond = difference_scale(comparison)
    assert scale == pytest.approx([-57.12, 57.12])
    assert beyond == []


def test_differences_of_nothing_have_an_axis() -> None:
    comparison = a_comparison(*(a_difference(step, 0.0, (0.0, 0.0), 0.5, is_best=step == 100) for step in (100, 200)))

    assert difference_scale(comparison) == ([-1.0, 1.0], [])


def test_without_a_comparison_nothing_is_said_of_differences(report: RunReport) -> None:
    assert report.held_out is not None
    without = replace(report.held_out, comparison=None)
    table = ranking(without)

    assert difference_chart(without) is None
    assert "worse than the best other" not in table.columns
    assert (table.kinds, table.note) == (["chosen", "", "", "baseline"], "")
    assert {tile.more for tile in tiles(replace(report, held_out=without))} == {""}


def test_the_ranking_says_how_much_worse_each_is_and_marks_what_may_be_the_best() -> None:
    table = ranking(held_out())

    assert table.columns[2:5] == ["MAE", "worse than the best other", "probability best"]
    assert [[cell.replace("\u00a0", " ") for cell in row[3:5]] for row in table.rows] == [
        ["−$3.50 (−7.50 to 0.50)", "87.5%"],
        ["$3.50 (−0.50 to 7.50)", "12.5%"],
        ["$10.00 (4.00 to 16.00)", "0.0%"],
        ["", ""],
    ]
    assert table.kinds == ["chosen", "alike", "", "baseline"]
    assert table.note == (
        "2 of 3 checkpoints may be the truly best (95 % confidence); the chosen one is worse than it by at most $0.50; "
        "about 1,234 more items would rule out the runner-up."
    )


def test_the_columns_stand_beside_the_metric_of_the_choice() -> None:
    # All have the same share of hits: the earliest comes first.
    table = ranking(held_out("hit_rate"))

    assert table.columns[7:10] == ["hits", "worse than the best other", "probability best"]
    assert table.rows[1][8].replace("\u00a0", " ") == "350.00 points (−50.00 to 750.00)"


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mae", "corrected for the choice: $0.41 (0.36 to 0.48)"),
        ("hit_rate", "hits corrected for the choice: 41.2% (36.0 to 48.5)"),
        ("rmsle", "RMSLE corrected for the choice: 0.412 (0.360 to 0.485)"),
    ],
)
def test_the_tile_says_what_the_error_would_be_on_other_items(report: RunReport, metric: str, said: str) -> None:
    found = {tile.what: tile.more for tile in tiles(replace(report, held_out=held_out(metric)))}

    assert found["Validation error"].replace("\u00a0", " ") == said
