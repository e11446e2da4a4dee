"""Charts of several runs over each other: their losses, and their errors on the same items."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from pricer.views.formatting import scored_items
from pricer.views.report.curves import Curve, thinned
from pricer.views.report.figures import SERIES, STAR, Chart, axis, scatter, steps
from pricer.views.report.training import line, loss_scale, plain_line, points, rule
from pricer.views.report.validation import error_axis, error_scale, errors
from pricer.views.report.values import HeldOut, RunReport


def same_items(reports: Sequence[RunReport]) -> tuple[list[RunReport], list[RunReport]]:
    """The runs that were scored on the same items as the first one that was scored, and those on other items. Items
    are known by their prices; where those were not kept, by data and split, which also differ with the training items.
    """
    scored = [report for report in reports if report.held_out]
    if not scored:
        return [], []
    first = scored[0].held_out
    assert first is not None
    same = [report for report in scored if report.held_out and _of_same_items(report.held_out, first)]
    return same, [report for report in scored if report not in same]


def _of_same_items(one: HeldOut, other: HeldOut) -> bool:
    if one.prices and other.prices:
        return one.prices == other.prices
    a, b = one.chosen.spec, other.chosen.spec
    return (a.data_fingerprint, a.split, a.limit) == (b.data_fingerprint, b.split, b.limit)


def loss_charts(reports: Sequence[RunReport]) -> list[Chart]:
    """Loss, learning rate and speed of the runs that logged them."""
    logged = [(r, color) for r, color in zip(reports, cycle(SERIES), strict=False) if len(r.training.loss)]
    if not logged:
        return []
    thin = [(report, thinned(report.training.loss), color) for report, color in logged]
    longest = max((few for _, few, _ in thin), key=lambda few: float(few.step[-1]))
    scale, beyond = loss_scale([report.training.loss for report, _ in logged])
    traces: list[dict[str, Any]] = [points(few, color) for _, few, color in thin]
    traces += [line(few, report.name, color) for report, few, color in thin]
    traces.append(rule(longest.step))
    layout = {"xaxis": steps("step"), "yaxis": axis("nats per token", range=scale)}
    note = "Faint dots: the logged values"
    if any(few.per > 1 for _, few, _ in thin):
        note += "; where there are many, the lowest and the highest of each bucket, and the line is drawn through means"
    note += "." if beyond is None else f". The highest value, {beyond:.2f}, lies above the picture."
    loss = Chart("training-loss", "Training loss", note, tuple(traces), layout, height=420)
    rates = [(report.name, report.training.learning_rate, color) for report, color in logged]
    speeds = [(report.name, report.training.tokens_per_second, color) for report, color in logged]
    small = [_overlay("learning-rate", "Learning rate", rates, "%{y:.3~g}", exponentformat="e")]
    return [loss, *small, _overlay("tokens-per-second", "Tokens per second", speeds, "%{y:,.0f}", tickformat=",d")]


def _overlay(name: str, title: str, curves: Sequence[tuple[str, Curve, str]], value: str, **yaxis: Any) -> Chart:
    traces = [
        plain_line(thinned(curve), run, color, f"{value}, %{{fullData.name}}")
        for run, curve, color in curves
        if len(curve)
    ]
    layout = {"xaxis": steps(), "yaxis": axis(rangemode="tozero", **yaxis)}
    return Chart(name, title, "", tuple(traces), {**layout, "showlegend": False}, height=230, size="small")


def error_chart(reports: Sequence[RunReport]) -> Chart:
    """The errors of several runs on the same items, by step, each run's chosen checkpoint with a star."""
    colors = dict(zip((report.name for report in reports), cycle(SERIES), strict=False))
    traces: list[dict[str, Any]] = []
    hows = set()
    for report in reports:
        held_out = report.held_out
        assert held_out is not None
        hows.add(held_out.chosen.spec.estimator)
        traces.append(errors(held_out.checkpoints, report.name, colors[report.name]))
        chosen, more = held_out.chosen, {"marker": STAR, "hoverinfo": "skip", "showlegend": False}
        best = [chosen.candidate.step or 0], [chosen.metric("mae").value]
        traces.append(scatter("markers", *best, colors[report.name], **more))
    first = reports[0].held_out
    assert first is not None
    n = first.chosen.metric("mae").n
    how = (
        scored_items(first.chosen.spec, n)
        if len(hows) == 1
        else f"{n:,} validation items, by {' and '.join(sorted(hows))}"
    )
    everything = [e for report in reports if report.held_out for e in report.held_out.checkpoints]
    scale, beyond = error_scale(everything)
    above = f" Above the picture: {len(beyond):,} of {len(everything):,} checkpoints." if beyond else ""
    note = f"Mean absolute error on {how}; 95 % intervals. Stars: chosen, or else lowest so far.{above}"
    layout = {"xaxis": steps("step"), "yaxis": error_axis(scale)}
    return Chart("validation-error", "Error on validation items", note, tuple(traces), layout, height=420)
