"""What the charts draw, and what they say about it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pricer.core.breakdowns import break_down
from pricer.core.evaluation import Evaluation, score_predictions
from pricer.core.items import Item
from pricer.core.metrics import ScoreRule
from pricer.core.units import DOLLARS, PriceUnit
from pricer.views.report.curves import Curve
from pricer.views.report.figures import as_figure, as_json, hover_text, plotly_text
from pricer.views.report.page import run_page
from pricer.views.report.predictions import scatter_chart
from pricer.views.report.training import loss_chart, loss_scale, training_charts
from pricer.views.report.validation import error_chart, error_scale, overtraining_chart
from pricer.views.report.values import HeldOut, PredictionDetails, RunReport, TrainingLog
from tests.builders import an_evaluation, an_item, predictions_of

LOG = TrainingLog(
    epoch=Curve.of([(1, 0.5), (2, 1.0)]),
    loss=Curve.of([(1, 2.0), (2, 1.0)]),
    val_loss=Curve.of([(2, 1.2)]),
    val_mae=Curve.of([(2, 60.0)]),
    val_items=8,
)


def held_out(*maes: float, baselines: tuple[Evaluation, ...] = (), picked: bool = True) -> HeldOut:
    """Checkpoints at steps 10, 20, … with these errors; the lowest is chosen."""
    checkpoints = tuple(an_evaluation(10 * (place + 1), mae) for place, mae in enumerate(maes))
    chosen = min(checkpoints, key=lambda e: e.metric("mae").value or 0.0)
    return HeldOut(checkpoints, baselines, chosen, picked, "mae")


def names(traces: Any) -> list[str]:
    return [trace["name"] for trace in traces if trace.get("showlegend", True)]


def details(
    prices: list[float], answers: list[float | None], texts: tuple[str, ...] | None = None
) -> PredictionDetails:
    items = [Item(str(index), "A lamp", price) for index, price in enumerate(prices)]
    table = score_predictions(predictions_of(items, answers), items, 100.0)
    return PredictionDetails(an_evaluation(10, 5.0), table, texts, break_down(table, items))


def test_the_loss_is_drawn_with_its_values_behind_it() -> None:
    chart = loss_chart(LOG)

    assert names(chart.traces) == [
        "training loss, smoothed",
        "validation loss, 8 items",
        "1.5, rule of thumb: below it, look again",
    ]
    assert chart.note == "Faint dots: every logged value. Vertical lines: ends of epochs."
    assert [line["x0"] for line in chart.layout["shapes"]] == [2.0]


def test_a_long_curve_says_that_it_is_thinned() -> None:
    log = TrainingLog(loss=Curve(np.arange(100_000), np.ones(100_000)))

    chart = loss_chart(log)

    # In at most 1,000 buckets: 100 each.
    assert chart.note.startswith("Thinned: 100,000 logged values, drawn as the means of 100 at a time;")
    assert [len(trace["x"]) for trace in chart.traces] == [2000, 1000, 2]


def test_a_loss_that_diverged_is_said_and_drawn_as_a_gap() -> None:
    chart = loss_chart(TrainingLog(loss=Curve.of([(1, 2.0), (2, None), (3, None)])))

    assert "At 2 steps, the first 2, the loss was no number: training had diverged." in chart.note


def test_first_steps_do_not_press_the_rest_flat() -> None:
    loss = Curve.of([(1, 12.0), *((step, 2.0) for step in range(2, 101))])

    # All but two of 101 values are 2: the axis ends at 2.5; the rule of thumb, 1.5, is the lowest.
    scale, beyond = loss_scale([loss])
    assert scale == pytest.approx([1.38, 2.5])
    assert beyond == 12.0
    scale, beyond = loss_scale([Curve.of([(1, 2.0)])])
    assert scale == pytest.approx([1.38, 2.1])
    assert beyond is None


def test_a_validation_loss_that_rises_is_not_cut_off() -> None:
    loss = Curve.of([(step, 0.5) for step in range(1, 101)])

    # 5 % above 4.
    scale, beyond = loss_scale([loss], Curve.of([(50, 1.0), (100, 4.0)]))

    assert scale == pytest.approx([0.46, 4.2])
    assert beyond is None


def test_what_was_not_logged_has_no_chart() -> None:
    assert [chart.name for chart in training_charts(LOG)] == ["training-loss"]
    assert training_charts(TrainingLog()) == []
    whole = replace(LOG, memory_used=Curve.of([(1, 2e9)]), gpu_utilisation=Curve.of([(1, 87.0)]))
    assert [chart.name for chart in training_charts(whole)] == ["training-loss", "memory", "gpu-utilisation"]


def test_the_chosen_checkpoint_is_marked_among_checkpoints_and_baselines() -> None:
    chart = error_chart(held_out(30.0, 20.0, 25.0, baselines=(an_evaluation(None, 40.0), an_evaluation(None, 300.0))))

    assert names(chart.traces) == ["constant $40.00", "checkpoints", "chosen by MAE: step 20, $20.00"]
    assert chart.note.endswith("Above the picture: constant $300.00.")
    errors = chart.traces[1]["error_y"]
    assert (errors["array"].tolist(), errors["arrayminus"].tolist()) == ([1.0] * 3, [1.0] * 3)


def test_a_checkpoint_that_is_not_picked_is_not_called_chosen() -> None:
    chart = error_chart(held_out(30.0, 20.0, picked=False))

    assert names(chart.traces)[-1] == "lowest so far, not picked yet: step 20, $20.00"


def test_the_axis_of_errors_holds_all_intervals() -> None:
    scale, beyond = error_scale(held_out(20.0, 30.0).checkpoints)

    # 19 to 31, and 6 % of that on either side.
    assert scale == pytest.approx([18.28, 31.72])
    assert beyond == []


def test_over_training_is_shown_on_one_axis_of_steps() -> None:
    chart = overtraining_chart(LOG, held_out(30.0, 20.0, 25.0), DOLLARS)

    assert chart is not None
    assert [trace.get("yaxis") for trace in chart.traces] == [None, None, None, "y2", "y2"]
    assert {trace.get("xaxis") for trace in chart.traces} == {None}
    assert "learned by heart" in chart.note


def test_without_evaluations_the_error_is_that_of_training() -> None:
    chart = overtraining_chart(LOG, None, DOLLARS)

    assert chart is not None
    assert names(chart.traces)[-1] == "validation error while training"
    assert "greedy answers about 8 items" in chart.note
    assert overtraining_chart(replace(LOG, val_mae=Curve.of([])), None, DOLLARS) is None
    assert overtraining_chart(TrainingLog(), held_out(20.0), DOLLARS) is None


def test_dots_are_green_orange_or_red_by_how_far_off_they_are() -> None:
    # Off by 39.99 and by 19 %; by 79.99 and by 39 %; by 80 of 100; and no answer, for which $100 is imputed.
    found = details([50, 1000, 50, 1000, 100, 100], [89.99, 1190, 129.99, 1390, 180, None])

    chart = scatter_chart(found)

    assert names(chart.traces) == [
        "hit: within $40 or 20 % (33.3%)",
        "within $80 or 40 % (33.3%)",
        "further off (16.7%)",
        "no price said (16.7%)",
    ]
    assert [len(trace["x"]) for trace in chart.traces[1:]] == [2, 2, 1, 1]
    assert chart.note.endswith("1 without a price: $100.00 is imputed.")


def test_the_colours_of_dots_follow_the_limits_of_the_rule() -> None:
    # Off by 0.05 of 0.50, by 0.15 of 0.50, and by 0.30 of 0.50, with limits of 20 % and 40 %.
    items = [an_item(key, 0.5) for key in "abc"]
    rule = ScoreRule(PriceUnit("€", 2), hit_error=None)
    table = score_predictions(predictions_of(items, [0.55, 0.65, 0.8]), items, 0.5, rule=rule)

    chart = scatter_chart(PredictionDetails(an_evaluation(10, 0.1), table, None, break_down(table, items)))

    assert [name.rsplit(" (")[0] for name in names(chart.traces)] == ["hit: within 20 %", "within 40 %", "further off"]
    assert chart.traces[1]["hovertemplate"] == "true €%{x:,.2f}<br>predicted €%{customdata:,.2f}<extra></extra>"
    assert all(tick.startswith("€0.") for tick in chart.layout["xaxis"]["ticktext"])


def test_a_predicted_price_of_nothing_has_a_place_on_the_logarithmic_axis() -> None:
    chart = scatter_chart(details([10.0, 20.0], [0.0, 20.0]))

    (hits,) = chart.traces[1:]
    assert hits["customdata"].tolist() == [0.0, 20.0]
    assert 0 < hits["y"][0] < hits["y"][1] == 20.0


def test_of_many_items_a_part_is_drawn_and_said() -> None:
    chart = scatter_chart(details([100.0] * 4000, [100.0] * 4000, ("<b>lamp</b>",) * 4000))

    assert len(chart.traces[1]["x"]) == 3000
    assert "3,000 of them are drawn" in chart.note
    assert chart.traces[1]["text"][0] == "&lt;b&gt;lamp&lt;/b&gt;<br>"


def test_plotly_takes_every_chart(report: RunReport) -> None:
    _, charts = run_page(report)

    assert [chart.name for chart in charts] == [
        "training-loss",
        "learning-rate",
        "tokens-per-second",
        "memory",
        "validation-error",
        "difference-to-best",
        "overtraining",
        "predicted-against-true",
        "error-by-price",
        "coverage",
    ]
    assert [len(as_figure(chart).data) for chart in charts] == [len(chart.traces) for chart in charts]


def test_nothing_in_the_json_ends_a_script() -> None:
    text = as_json([], dark={"</script>": "<!-- & \u2028"})

    assert text == '{"charts":{},"dark":{"\\u003c/script\\u003e":"\\u003c!-- \\u0026 \\u2028"}}'


def test_what_plotly_would_make_bold_or_a_link_is_neither() -> None:
    assert plotly_text('<b>5" & <a href="x">y</a> &lt;') == '&lt;b&gt;5" &amp; &lt;a href="x"&gt;y&lt;/a&gt; &amp;lt;'


def test_a_hover_box_has_the_beginning_in_lines_that_fit_a_phone() -> None:
    lines = hover_text("A lamp <b> " + "of many words " * 20).split("<br>")

    # 110 characters before escaping, the mark for more among them, in lines of 44.
    assert lines[0] == "A lamp &lt;b&gt; of many words of many words of"
    assert [len(line) <= 50 for line in lines] == [True, True, True]
    assert lines[-1].endswith("…")
    assert [len(line) for line in hover_text("x" * 200).split("<br>")] == [44, 44, 22]
