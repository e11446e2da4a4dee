"""Charts of the error on validation items: by step, with the training loss above, and as differences to the best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricer.core.comparison import Comparison, Difference
from pricer.core.evaluation import Evaluation
from pricer.core.predictions import ESTIMATORS
from pricer.core.units import PriceUnit
from pricer.views.formatting import (
    candidate_name,
    difference,
    difference_to_best,
    kind,
    label,
    scored_items,
    share,
    with_half_width,
)
from pricer.views.report.curves import Curve, thinned
from pricer.views.report.figures import (
    SILENT,
    STAR,
    Chart,
    axis,
    by_step,
    error_bars,
    marks,
    points,
    price_axis,
    scatter,
    smoothed_line,
    steps,
    vertical,
)
from pricer.views.report.training import epoch_lines, loss_scale
from pricer.views.report.values import HeldOut, RunReport, TrainingLog

_DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
# An error this many times the best one would flatten the others. It is left out if it is among the worst tenth.
_TOO_FAR = 3.0
# Larger differences than this many half-widths of the interval are left out.
_MAX_HALF_WIDTHS = 6
# Maximum number of left-out checkpoints that a note names.
_MAX_NAMED = 4


def error_chart(held_out: HeldOut) -> Chart:
    """The mean absolute error of each checkpoint with its 95 % interval, the chosen one marked, baselines as lines."""
    checkpoints = held_out.checkpoints
    scale, beyond = error_scale(checkpoints, held_out.baselines)
    near = [e for e in held_out.baselines if e not in beyond]
    traces = [*_baseline_lines(near, checkpoints), errors(checkpoints, "checkpoints", "blue"), chosen_mark(held_out)]
    items = scored_items(checkpoints[0].spec, checkpoints[0].metric("mae").n)
    above = _above("Above the picture", [f"{e.name} {_mae_text(e)}" for e in beyond])
    note = f"Mean absolute error on {items}; 95 % intervals.{above}"
    return _error_chart(note, traces, scale, held_out.chosen.spec.price_unit)


def several_error_chart(reports: Sequence[RunReport], colors: Mapping[str, str]) -> Chart:
    """The errors of several runs on the same items, by step. A star marks the chosen checkpoint of each run."""
    runs = [(report.name, report.held_out) for report in reports if report.held_out]
    traces: list[dict[str, Any]] = []
    for name, held_out in runs:
        traces.append(errors(held_out.checkpoints, name, colors[name]))
        best = [held_out.chosen.candidate.step or 0], [_mae(held_out.chosen)]
        traces.append(scatter("markers", *best, colors[name], marker=STAR, **SILENT))
    chosen = [held_out.chosen for _, held_out in runs]
    estimators = " and ".join(sorted({ESTIMATORS[e.spec.estimator].label for e in chosen}))
    everything = [e for _, held_out in runs for e in held_out.checkpoints]
    scale, beyond = error_scale(everything)
    note = (
        f"Mean absolute error on {chosen[0].metric('mae').n:,} validation items, {estimators}; 95 % intervals. Stars: "
        "chosen, or else lowest so far."
    )
    note += f" Above the picture: {len(beyond):,} of {len(everything):,} checkpoints." if beyond else ""
    return _error_chart(note, traces, scale, chosen[0].spec.price_unit)


def _error_chart(note: str, traces: Sequence[Mapping[str, Any]], scale: Sequence[float], unit: PriceUnit) -> Chart:
    yaxis = price_axis("mean absolute error", unit, range=scale)
    return by_step("validation-error", "Error on validation items", note, traces, yaxis)


def _above(where: str, left_out: Sequence[str]) -> str:
    """A sentence that names the checkpoints above the range of a chart; empty if there are none."""
    if not left_out:
        return ""
    more = f" and {len(left_out) - _MAX_NAMED:,} more" if len(left_out) > _MAX_NAMED else ""
    return f" {where}: {', '.join(left_out[:_MAX_NAMED])}{more}."


def error_scale(
    checkpoints: Sequence[Evaluation], baselines: Sequence[Evaluation] = ()
) -> tuple[list[float], list[Evaluation]]:
    """The range of an axis for errors, and the evaluations above it."""
    values = [_mae(e) for e in checkpoints]
    most = max(_TOO_FAR * min(values), float(np.quantile(values, 0.9)))
    shown = [e for e in (*checkpoints, *baselines) if _mae(e) <= most]
    ends = [bound for e in shown for bound in _bounds(e)]
    room = 0.06 * (max(ends) - min(ends) or max(ends) or 1.0)
    beyond = [e for e in (*checkpoints, *baselines) if _mae(e) > most]
    return [max(0.0, min(ends) - room), max(ends) + room], beyond


def overtraining_chart(log: TrainingLog, held_out: HeldOut | None, unit: PriceUnit) -> Chart | None:
    """Training loss above held-out error on the same axis of steps; None if either was not measured. Without
    evaluations, the error of the greedy answers during training is drawn.
    """
    if not len(log.loss) or not (held_out or len(log.val_mae)):
        return None
    few = thinned(log.loss)
    # The chart of the loss has the values of a long curve. Drawing them twice would make the page slow.
    traces = [points(few, "blue")] if few.per == 1 else []
    traces.append(smoothed_line(few, "training loss, smoothed", "blue"))
    if len(log.val_loss):
        traces.append(marks(log.val_loss, "purple", name="validation loss", hover="step %{x:,.0f}: %{y:.4f}"))
    shapes = epoch_lines(log.epoch)
    error_range = None
    if held_out:
        below = [errors(held_out.checkpoints, "error on validation items", "green"), chosen_mark(held_out)]
        shapes.append(vertical(held_out.chosen.candidate.step or 0, "green", width=1.6, dash="dot"))
        note, error_range = _reading(held_out), error_scale(held_out.checkpoints)[0]
    else:
        error = unit.mark(f"%{{y:,.{unit.error_digits}f}}")
        named = {"name": "validation error while training", "hover": f"step %{{x:,.0f}}: {error}"}
        below = [marks(log.val_mae, "green", **named)]
        note = f"The error is that of greedy answers about {log.val_items or 0:,} items; nothing is evaluated yet."
    layout = {
        "xaxis": steps("step", anchor="y2"),
        "yaxis": axis("nats per token", domain=[0.52, 1], range=loss_scale([log.loss], log.val_loss)[0]),
        "yaxis2": price_axis("mean absolute error", unit, range=error_range, domain=[0, 0.48]),
        "shapes": shapes,
    }
    both = (*traces, *({**trace, "yaxis": "y2"} for trace in below))
    return Chart("overtraining", "Training loss against held-out error", note, both, layout, height=560)


def _reading(held_out: HeldOut) -> str:
    which = "chosen" if held_out.picked else "lowest"
    if held_out.chosen.candidate.step == max(e.candidate.step or 0 for e in held_out.checkpoints):
        return f"Green line: the {which} checkpoint, the last one: more steps might have gone further."
    return (
        f"Green line: the {which} checkpoint. Where the training loss goes on falling right of it and the error does "
        "not, training items are learned by heart."
    )


def errors(evaluations: Sequence[Evaluation], name: str, color: str) -> dict[str, Any]:
    """Mean absolute errors by step, with 95 % intervals."""
    value = np.array([_mae(e) for e in evaluations])
    bars = error_bars(value, np.array([_bounds(e) for e in evaluations]), color)
    text = [f"{e.name}: {with_half_width(e.metric('mae'), e.spec.price_unit)}" for e in evaluations]
    curve = Curve(np.array([e.candidate.step or 0 for e in evaluations]), value)
    return marks(curve, color, name=name, error_y=bars, text=text)


def chosen_mark(held_out: HeldOut) -> dict[str, Any]:
    """A star on the chosen checkpoint."""
    chosen = held_out.chosen
    what = f"chosen by {label(held_out.metric)}" if held_out.picked else "lowest so far, not picked yet"
    name = f"{what}: {candidate_name(chosen.candidate)}, {_mae_text(chosen)}"
    place = [chosen.candidate.step or 0], [_mae(chosen)]
    return scatter("markers", *place, "green", name=name, marker=STAR, hoverinfo="skip")


def _baseline_lines(baselines: Sequence[Evaluation], checkpoints: Sequence[Evaluation]) -> list[dict[str, Any]]:
    steps = [e.candidate.step or 0 for e in checkpoints]
    # A single step gives a line no length, so it then begins at step 0.
    ends = [min(steps), max(steps)] if len(set(steps)) > 1 else [0, max(steps)]
    lines = []
    for e, dash in zip(baselines, _DASHES * len(baselines), strict=False):
        more = {"name": f"{e.name} {_mae_text(e)}", "line": {"width": 1.5, "dash": dash}, "hoverinfo": "name"}
        lines.append(scatter("lines", ends, [_mae(e)] * 2, "muted", **more))
    return lines


def _mae(evaluation: Evaluation) -> float:
    value = evaluation.metric("mae").value
    assert value is not None  # a mean of at least one
    return value


def _mae_text(evaluation: Evaluation) -> str:
    return evaluation.spec.price_unit.error(_mae(evaluation))


def _bounds(evaluation: Evaluation) -> tuple[float, float]:
    return evaluation.metric("mae").interval or (_mae(evaluation), _mae(evaluation))


def difference_chart(held_out: HeldOut) -> Chart | None:
    """The difference of each checkpoint to the best of the others, paired by item, with simultaneous 95 % intervals;
    None without a comparison. The intervals of the errors do not show this: they can overlap although one checkpoint is
    better on most items.
    """
    if held_out.comparison is None:
        return None
    comparison, metric, unit = held_out.comparison, held_out.metric, held_out.chosen.spec.price_unit
    is_share = kind(metric) == "share"
    factor = 100 if is_share else 1
    drawn = comparison.differences
    best = next(one for one in drawn if one.is_best)
    may_be_best = [one for one in comparison.others if one.may_be_best]
    not_best = [one for one in comparison.others if not one.may_be_best]
    curve = [one.candidate.step for one in drawn], [factor * one.worse_by for one in drawn]
    traces = [scatter("lines", *curve, "line", line={"width": 1.4}, **SILENT)]
    if may_be_best:
        traces.append(_differences(may_be_best, "may be the best", "amber", {"symbol": "circle-open"}, metric, unit))
    if not_best:
        traces.append(_differences(not_best, "not the best", "blue", {"symbol": "circle"}, metric, unit))
    name = candidate_name(best.candidate)
    traces.append(_differences([best], f"chosen: {name}", "green", STAR, metric, unit))
    ends, beyond = difference_scale(comparison)
    # The unit is in the title: at a tick it would come before the minus sign.
    of_metric = {"price": f" ({unit.symbol})", "share": ", points", "number": ""}[kind(metric)]
    ticks = {"tickformat": ",~f"} if kind(metric) == "price" else {}
    yaxis = axis(f"{label(metric)}, worse by{of_metric}", range=[factor * end for end in ends], **ticks)
    zero = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "layer": "below"}
    shapes = [{**zero, "line": {"color": "muted", "width": 1.4}}]
    rivals = " or one of the amber ones" if may_be_best else ""
    note = (
        f"How much worse by {label(metric)} each checkpoint is than the best of all others, on the same items. The "
        f"95 % intervals hold for all checkpoints at once. The truly best one is the chosen one{rivals} with 95 % "
        "confidence, whether or not the intervals in the chart above overlap."
    )
    left_out = [f"{candidate_name(one.candidate)} by {difference(one.worse_by, metric, unit)}" for one in beyond]
    note += _above("Above the picture (double-click shows all)", left_out)
    return by_step(
        "difference-to-best", "Difference to the best, paired by item", note, traces, yaxis, shapes, height=330
    )


def difference_scale(comparison: Comparison) -> tuple[list[float], list[Difference]]:
    """The range of an axis for differences, and the checkpoints above it. Large differences of the first checkpoints
    are left out, because they would flatten the small ones. At least the nearer half is inside.
    """
    others = sorted(comparison.others, key=lambda one: one.worse_by)
    nearer = others[: math.ceil(len(others) / 2)]
    half = float(np.median([(one.interval[1] - one.interval[0]) / 2 for one in nearer]))
    most = max(_MAX_HALF_WIDTHS * half, nearer[-1].worse_by)
    bounds = [0.0, *(end for one in comparison.differences if one.worse_by <= most for end in one.interval)]
    room = 0.06 * (max(bounds) - min(bounds)) or 1.0
    return [min(bounds) - room, max(bounds) + room], [one for one in others if one.worse_by > most]


def _differences(
    found: Sequence[Difference], name: str, color: str, marker: Mapping[str, Any], metric: str, unit: PriceUnit
) -> dict[str, Any]:
    factor = 100 if kind(metric) == "share" else 1
    behind = factor * np.array([one.worse_by for one in found])
    bounds = factor * np.array([one.interval for one in found])
    text = [
        f"step {one.candidate.step:,}: {difference_to_best(one, metric, unit)}<br>probability best {share(one.p_best)}"
        for one in found
    ]
    look = {
        "marker": {"size": 8, "line": {"color": color, "width": 2}, **marker},
        "error_y": error_bars(behind, bounds, color, thickness=1.4),
    }
    return scatter("markers", [one.candidate.step for one in found], behind, color, name=name, text=text, **look)
