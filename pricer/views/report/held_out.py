"""Charts of the error on held-out items: by step, and above it the training loss, so that over-training can be seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricer.core.evaluation import Evaluation
from pricer.core.metrics import METRICS
from pricer.views.formatting import named
from pricer.views.report.figures import Chart, axis, steps
from pricer.views.report.palette import BLUE, GREEN, MUTED, PURPLE, SURFACE
from pricer.views.report.series import thinned
from pricer.views.report.training import epoch_lines, line, loss_scale, marks, points
from pricer.views.report.values import Curve, HeldOut, TrainingLog
from pricer.views.report.wording import asked, dollars, figure, label

_DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
# What is this many times worse than the best checkpoint would press all else flat, if it is among the worst tenth.
_TOO_FAR = 3.0
_NAMED = 4


def error_chart(held_out: HeldOut) -> Chart:
    """The mean absolute error of each checkpoint with its 95 % interval, the chosen one marked, baselines as lines."""
    checkpoints = held_out.checkpoints
    scale, beyond = error_scale(checkpoints, held_out.baselines)
    near = [e for e in held_out.baselines if e not in beyond]
    traces = [*_baseline_lines(near, checkpoints), errors(checkpoints, "checkpoints", BLUE), chosen_mark(held_out)]
    note = [f"Mean absolute error on {asked(checkpoints[0].spec, checkpoints[0].metric('mae').n)}; 95 % intervals."]
    if beyond:
        more = f" and {len(beyond) - _NAMED:,} more" if len(beyond) > _NAMED else ""
        note.append(f"Above the picture: {', '.join(f'{e.name} {dollars(_mae(e))}' for e in beyond[:_NAMED])}{more}.")
    layout = {
        "xaxis": steps("step"),
        "yaxis": axis("mean absolute error", tickprefix="$", tickformat=",", range=scale),
    }
    return Chart("validation-error", "Error on validation items", " ".join(note), tuple(traces), layout, height=420)


def error_scale(
    checkpoints: Sequence[Evaluation], baselines: Sequence[Evaluation] = ()
) -> tuple[list[float], list[Evaluation]]:
    """The two ends of an axis for errors, and what is so bad that it lies above it."""
    values = [_mae(e) for e in checkpoints]
    most = max(_TOO_FAR * min(values), float(np.quantile(values, 0.9)))
    shown = [e for e in (*checkpoints, *baselines) if _mae(e) <= most]
    ends = [bound for e in shown for bound in (e.metric("mae").interval or (_mae(e), _mae(e)))]
    room = 0.06 * (max(ends) - min(ends) or max(ends) or 1.0)
    beyond = [e for e in (*checkpoints, *baselines) if _mae(e) > most]
    return [max(0.0, min(ends) - room), max(ends) + room], beyond


def overtraining_chart(log: TrainingLog, held_out: HeldOut | None) -> Chart | None:
    """Training loss above held-out error, by the same steps; None where either was not measured. Without evaluations,
    the error is that of the greedy answers while training.
    """
    if not len(log.loss) or not (held_out or len(log.val_mae)):
        return None
    few = thinned(log.loss)
    # The values of a long curve stand in the chart of the loss; once more they would only make the page slow.
    traces = [{**points(few, BLUE), "yaxis": "y"}] if few.per == 1 else []
    traces.append(line(few, "training loss, smoothed", BLUE, yaxis="y"))
    if len(log.val_loss):
        traces.append(marks(log.val_loss, "validation loss", PURPLE, yaxis="y"))
    shapes = epoch_lines(log.epoch)
    error_range: dict[str, Any] = {}
    if held_out:
        traces += [{**errors(held_out.checkpoints, "error on validation items", GREEN), "yaxis": "y2"}]
        traces += [{**chosen_mark(held_out), "yaxis": "y2"}]
        shapes.append(_chosen_line(held_out))
        note, error_range = _reading(held_out), {"range": error_scale(held_out.checkpoints)[0]}
    else:
        traces.append(marks(log.val_mae, "validation error while training", GREEN, "$%{y:,.2f}", yaxis="y2"))
        note = f"The error is that of greedy answers about {log.val_items or 0:,} items; nothing is evaluated yet."
    scale, _ = loss_scale([log.loss], log.val_loss)
    layout = {
        "xaxis": steps("step", anchor="y2"),
        "yaxis": axis("nats per token", domain=[0.52, 1], range=scale),
        "yaxis2": axis("mean absolute error", domain=[0, 0.48], tickprefix="$", tickformat=",", **error_range),
        "shapes": shapes,
    }
    return Chart("overtraining", "Training loss against held-out error", note, tuple(traces), layout, height=560)


def _reading(held_out: HeldOut) -> str:
    which = "chosen" if held_out.picked else "lowest"
    if held_out.chosen.candidate.step == max(e.candidate.step or 0 for e in held_out.checkpoints):
        return f"Green line: the {which} checkpoint, the last one: more steps might have gone further."
    return (
        f"Green line: the {which} checkpoint. Where the training loss goes on falling right of it and the error does "
        "not, training items are learned by heart."
    )


def errors(evaluations: Sequence[Evaluation], name: str, color: str) -> dict[str, Any]:
    """Mean absolute errors by step, with 95 % intervals. A soup is no point of a training."""
    evaluations = [e for e in evaluations if not e.candidate.is_soup]
    value = np.array([_mae(e) for e in evaluations])
    bounds = np.array([e.metric("mae").interval or (_mae(e), _mae(e)) for e in evaluations])
    steps = [e.candidate.step or 0 for e in evaluations]
    return {
        **marks(Curve.of(list(zip(steps, value, strict=True))), label(name), color),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": bounds[:, 1] - value,
            "arrayminus": value - bounds[:, 0],
            "color": color,
            "thickness": 1.2,
            "width": 4,
        },
        "text": [f"{e.name}: {figure(e.metric('mae'))}" for e in evaluations],
        "hovertemplate": "%{text}<extra></extra>",
    }


def chosen_mark(held_out: HeldOut) -> dict[str, Any]:
    """A star on the chosen checkpoint."""
    chosen = held_out.chosen
    what = f"chosen by {METRICS[held_out.metric].label}" if held_out.picked else "lowest so far, not picked yet"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(f"{what}: {named(chosen.candidate)}, {dollars(chosen.metric('mae').value)}"),
        "x": [chosen.candidate.step or 0],
        "y": [_mae(chosen)],
        "marker": {"symbol": "star", "size": 17, "color": GREEN, "line": {"color": SURFACE, "width": 1.5}},
        "hoverinfo": "skip",
    }


def _chosen_line(held_out: HeldOut) -> Mapping[str, Any]:
    step = held_out.chosen.candidate.step or 0
    line_of = {"color": GREEN, "width": 1.6, "dash": "dot"}
    return {
        "type": "line",
        "x0": step,
        "x1": step,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": line_of,
    }


def _baseline_lines(baselines: Sequence[Evaluation], checkpoints: Sequence[Evaluation]) -> list[dict[str, Any]]:
    steps = [e.candidate.step or 0 for e in checkpoints]
    # A single step has no width: the line then reaches back to where training began.
    ends = [min(steps), max(steps)] if len(set(steps)) > 1 else [0, max(steps)]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": label(f"{e.name} {dollars(_mae(e))}"),
            "x": ends,
            "y": [_mae(e)] * 2,
            "line": {"color": MUTED, "width": 1.5, "dash": dash},
            "hoverinfo": "name",
        }
        for e, dash in zip(baselines, _DASHES * len(baselines), strict=False)
    ]


def _mae(evaluation: Evaluation) -> float:
    value = evaluation.metric("mae").value
    assert value is not None  # a mean of at least one
    return value
