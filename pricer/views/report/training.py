"""Charts of training: loss, learning rate, speed and memory by step, for one run or several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricer.views.report.curves import Curve, Thinned, epoch_ends, thinned
from pricer.views.report.figures import (
    RULE,
    Chart,
    axis,
    by_step,
    marks,
    points,
    scatter,
    smoothed_line,
    steps,
    vertical,
)
from pricer.views.report.values import RunReport, TrainingLog

# A training loss below this is worth a second look. This is a habit of people who fine-tune on prices, not a law.
_RULE_OF_THUMB = 1.5

# Name, curve and colour.
Series = tuple[str, Curve, str]


def training_charts(log: TrainingLog) -> list[Chart]:
    """A chart for each quantity that was logged, the loss first."""
    if not len(log.loss):
        return []
    small = [
        *_rate_and_speed([("", log, "blue")], log.epoch),
        memory_chart(log),
        small_chart("GPU utilisation", [("", log.gpu_utilisation, "blue")], log.epoch, "%{y:.0f} %", ticksuffix=" %"),
    ]
    return [loss_chart(log), *filter(None, small)]


def several_training_charts(reports: Sequence[RunReport], colors: Mapping[str, str]) -> list[Chart]:
    """Loss, learning rate and speed of several runs, each run in its colour."""
    logged = [(report.name, report.training, colors[report.name]) for report in reports if len(report.training.loss)]
    if not logged:
        return []
    thin = [(name, thinned(log.loss), color) for name, log, color in logged]
    longest = max((few for _, few, _ in thin), key=lambda few: float(few.step[-1]))
    scale, beyond = loss_scale([log.loss for _, log, _ in logged])
    traces = [points(few, color) for _, few, color in thin]
    traces += [smoothed_line(few, name, color) for name, few, color in thin]
    note = "Faint dots: the logged values"
    if any(few.per > 1 for _, few, _ in thin):
        note += "; where there are many, the lowest and the highest of each bucket, and the line is drawn through means"
    note += "." if beyond is None else f". The highest value, {beyond:.2f}, lies above the picture."
    yaxis = axis("nats per token", range=scale)
    loss = by_step("training-loss", "Training loss", note, [*traces, _rule(longest.step)], yaxis)
    return [loss, *filter(None, _rate_and_speed(logged))]


def loss_chart(log: TrainingLog) -> Chart:
    """Smoothed training loss with its values behind it, and the validation loss that was measured during training."""
    few = thinned(log.loss)
    traces = [points(few, "blue"), smoothed_line(few, "training loss, smoothed", "blue")]
    if len(log.val_loss):
        name = f"validation loss, {log.val_items or 0:,} items"
        traces.append(marks(log.val_loss, "purple", name=name, hover="step %{x:,.0f}: %{y:.4f}"))
    traces.append(_rule(few.step))
    scale, beyond = loss_scale([log.loss], log.val_loss)
    note = (
        "Faint dots: every logged value."
        if few.per == 1
        else f"Thinned: {len(log.loss):,} logged values, drawn as the means of {few.per:,} at a time; faint, the "
        "lowest and the highest of those."
    )
    note += " Vertical lines: ends of epochs."
    if beyond:
        note += f" The highest value, {beyond:.2f}, lies above the picture (double-click shows all)."
    if missing := int(np.isnan(log.loss.value).sum()):
        first = int(log.loss.step[np.isnan(log.loss.value)][0])
        note += f" At {missing:,} steps, the first {first:,}, the loss was no number: training had diverged."
    yaxis = axis("nats per token", range=scale)
    return by_step("training-loss", "Training loss", note, traces, yaxis, epoch_lines(log.epoch), 400)


def loss_scale(losses: Sequence[Curve], val_loss: Curve | None = None) -> tuple[list[float], float | None]:
    """The range of an axis for losses, and the highest value if the range does not include it.

    The high losses of the first steps are cut off, because they would flatten the rest of the curve. Validation loss is
    always inside, because its rise matters. The rule of thumb is inside, so that the axis does not change when its line
    is shown.
    """
    kept = [_RULE_OF_THUMB, *(val_loss.value[np.isfinite(val_loss.value)].tolist() if val_loss else ())]
    values = np.concatenate([kept, *(loss.value[np.isfinite(loss.value)] for loss in losses)])
    highest, usual = float(values.max()), float(np.quantile(values, 0.92))
    top = max(1.25 * usual, 1.05 * max(kept)) if highest > 1.5 * usual else 1.05 * highest
    return [0.92 * float(values.min()), top], highest if highest > top else None


def _rule(step: np.ndarray) -> dict[str, Any]:
    """The line of the rule of thumb, hidden until the reader switches it on."""
    name = f"{_RULE_OF_THUMB}, rule of thumb: below it, look again"
    more = {"name": name, "visible": False, "meta": RULE, "hoverinfo": "skip", "line": {"width": 1.8, "dash": "dash"}}
    return scatter("lines", [float(step[0]), float(step[-1])], [_RULE_OF_THUMB] * 2, "orange", **more)


def epoch_lines(epoch: Curve | None, *, numbered: bool = True) -> list[Mapping[str, Any]]:
    """A thin vertical line at the end of each epoch, with its number on the upper edge."""
    lines: list[Mapping[str, Any]] = []
    for number, step in epoch_ends(epoch, 12 if numbered else 6) if epoch else ():
        place = {"textposition": "end", "textangle": 0, "xanchor": "center", "yanchor": "bottom", "padding": 2}
        text = {"text": f"{number}" if lines else f"epoch {number}", "font": {"color": "muted", "size": 11}}
        lines.append(vertical(step, "line", width=1) | ({"label": {**text, **place}} if numbered else {}))
    return lines


def _rate_and_speed(
    logs: Sequence[tuple[str, TrainingLog, str]], epoch: Curve | None = None
) -> tuple[Chart | None, Chart | None]:
    rates = [(name, log.learning_rate, color) for name, log, color in logs]
    speeds = [(name, log.tokens_per_second, color) for name, log, color in logs]
    return (
        small_chart("Learning rate", rates, epoch, "%{y:.3~g}", exponentformat="e"),
        small_chart("Tokens per second", speeds, epoch, "%{y:,.0f}", tickformat=",d"),
    )


def small_chart(title: str, series: Sequence[Series], epoch: Curve | None, value: str, **yaxis: Any) -> Chart | None:
    """A small chart of curves; None if they have no number. `value` is the format of a value in hover boxes."""
    drawn = [(name, thinned(curve), color) for name, curve, color in series if curve.has_number]
    if not drawn:
        return None
    hover = value if len(series) == 1 else f"{value}, %{{fullData.name}}"
    traces = [_line(few, few.mean, name, color, hover) for name, few, color in drawn]
    note = _thinning(drawn[0][1], len(series[0][1]), "means") if len(series) == 1 else ""
    # The legend for the colours of several runs is in the chart of losses.
    return _small(title, note, traces, epoch, has_legend=False, **yaxis)


def memory_chart(log: TrainingLog) -> Chart | None:
    """Memory in use and in total, in gigabytes."""
    used, total = Curve(log.memory_used.step, log.memory_used.value / 1e9), log.memory_total
    if not used.has_number:
        return None
    few = thinned(used)
    traces = [_line(few, few.highest, "used", "blue", "%{y:.2f} GB")]
    if total.has_number:
        there = float(np.nanmax(total.value)) / 1e9
        look = {"name": f"there is {there:,.1f} GB", "line": {"width": 1.4, "dash": "dot"}, "hover": "%{y:.1f} GB"}
        traces.append(scatter("lines", few.step[[0, -1]], np.array([there, there]), "muted", **look))
    note = _thinning(few, len(used), "highest")
    return _small("Memory", note, traces, log.epoch, has_legend=len(traces) > 1, ticksuffix=" GB")


def _line(few: Thinned, values: np.ndarray, name: str, color: str, value: str) -> dict[str, Any]:
    hover = f"step %{{x:,.0f}}: {value}"
    return scatter("lines", few.step, values, color, name=name, line={"width": 1.8}, hover=hover)


def _thinning(few: Thinned, n: int, what: str) -> str:
    return "" if few.per == 1 else f"{n:,} values, drawn as the {what} of {few.per:,} at a time."


def _small(
    title: str, note: str, traces: Sequence[Mapping[str, Any]], epoch: Curve | None, *, has_legend: bool, **yaxis: Any
) -> Chart:
    layout = {
        "xaxis": steps(),
        "yaxis": axis(rangemode="tozero", **yaxis),
        "shapes": epoch_lines(epoch, numbered=False),
        "showlegend": has_legend,
    }
    return Chart(title.lower().replace(" ", "-"), title, note, tuple(traces), layout, 220, "small")
