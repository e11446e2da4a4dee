"""Charts of a training: loss, learning rate, speed and memory by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricer.views.report.curves import Curve, Thinned, epoch_ends, thinned
from pricer.views.report.figures import (
    BLUE,
    LINE,
    MUTED,
    ORANGE,
    PURPLE,
    RULE,
    SILENT,
    SMOOTHED,
    Chart,
    axis,
    plotly_text,
    scatter,
    steps,
)
from pricer.views.report.values import TrainingLog

# Whoever fine-tunes on prices looks again at a training loss below this: a habit, not a law.
_RULE_OF_THUMB = 1.5


def training_charts(log: TrainingLog) -> list[Chart]:
    """The charts of what was logged, the loss first; none of what was not."""
    if not len(log.loss):
        return []
    small = (
        small_chart("Learning rate", log.learning_rate, log.epoch, "%{y:.3~g}", exponentformat="e"),
        small_chart("Tokens per second", log.tokens_per_second, log.epoch, "%{y:,.0f}", tickformat=",d"),
        memory_chart(log),
        small_chart("GPU utilisation", log.gpu_utilisation, log.epoch, "%{y:.0f} %", ticksuffix=" %"),
    )
    return [loss_chart(log), *(chart for chart in small if chart)]


def loss_chart(log: TrainingLog) -> Chart:
    """Training loss, smoothed, with the values behind it; validation loss where it was measured while training."""
    few = thinned(log.loss)
    traces = [points(few, BLUE), line(few, "training loss, smoothed", BLUE)]
    if len(log.val_loss):
        traces.append(marks(log.val_loss, f"validation loss, {log.val_items or 0:,} items", PURPLE))
    traces.append(rule(few.step))
    scale, beyond = loss_scale([log.loss], log.val_loss)
    note = [thinning_note(few, len(log.loss)), "Vertical lines: ends of epochs."]
    if beyond:
        note.append(f"The highest value, {beyond:.2f}, lies above the picture (double-click shows all).")
    if missing := int(np.isnan(log.loss.value).sum()):
        first = int(log.loss.step[np.isnan(log.loss.value)][0])
        note.append(f"At {missing:,} steps, the first {first:,}, the loss was no number: training had diverged.")
    layout = {
        "xaxis": steps("step"),
        "yaxis": axis("nats per token", range=scale),
        "shapes": epoch_lines(log.epoch),
    }
    return Chart("training-loss", "Training loss", " ".join(note), tuple(traces), layout, height=400)


def loss_scale(losses: Sequence[Curve], val_loss: Curve | None = None) -> tuple[list[float], float | None]:
    """The two ends of an axis for losses, and the highest value if it lies above them: the first steps must not press
    all others flat. Validation loss is never cut off, because one looks for where it rises; neither is the rule of
    thumb, so that nothing jumps when its line is shown.
    """
    kept = [_RULE_OF_THUMB, *(val_loss.value[np.isfinite(val_loss.value)].tolist() if val_loss else ())]
    values = np.concatenate([kept, *(loss.value[np.isfinite(loss.value)] for loss in losses)])
    highest, usual = float(values.max()), float(np.quantile(values, 0.92))
    top = max(1.25 * usual, 1.05 * max(kept)) if highest > 1.5 * usual else 1.05 * highest
    return [0.92 * float(values.min()), top], highest if highest > top else None


def thinning_note(few: Thinned, n: int) -> str:
    """What the drawing of a smoothed curve shows of its values."""
    if few.per == 1:
        return "Faint dots: every logged value."
    return (
        f"Thinned: {n:,} logged values, drawn as the means of {few.per:,} at a time; faint, the lowest and the highest "
        "of those."
    )


def points(few: Thinned, color: str) -> dict[str, Any]:
    """The values of a curve, or of a thinned one the lowest and highest of each bucket, faint."""
    step, value = few.step, few.mean
    if few.per > 1:
        step = np.repeat(few.step, 2)
        value = np.column_stack([few.lowest, few.highest]).ravel()
    return scatter("markers", step, value, color, marker={"size": 3.5, "opacity": 0.3}, **SILENT)


def line(few: Thinned, name: str, color: str, **more: Any) -> dict[str, Any]:
    """A curve that the slider smooths."""
    hover = "step %{x:,.0f}: %{y:.4f}<extra></extra>"
    more = {"name": plotly_text(name), "meta": SMOOTHED, "line": {"width": 2.2}, "hovertemplate": hover, **more}
    return scatter("lines", few.step, few.mean, color, **more)


def plain_line(few: Thinned, name: str, color: str, value: str) -> dict[str, Any]:
    """A curve as it is, which no slider changes."""
    hover = f"step %{{x:,.0f}}: {value}<extra></extra>"
    return scatter("lines", few.step, few.mean, color, name=plotly_text(name), line={"width": 1.8}, hovertemplate=hover)


def marks(curve: Curve, name: str, color: str, value: str = "%{y:.4f}", **more: Any) -> dict[str, Any]:
    """A curve of few points, each with a mark."""
    look = {"line": {"width": 1.6}, "marker": {"size": 7}}
    hover = f"step %{{x:,.0f}}: {value}<extra></extra>"
    named = {"name": plotly_text(name), "hovertemplate": hover}
    return scatter("lines+markers", curve.step, curve.value, color, **look, **(named | more))


def rule(step: np.ndarray) -> dict[str, Any]:
    """The line of the rule of thumb, hidden until it is asked for."""
    name = f"{_RULE_OF_THUMB}, rule of thumb: below it, look again"
    more = {"name": name, "visible": False, "meta": RULE, "hoverinfo": "skip", "line": {"width": 1.8, "dash": "dash"}}
    return scatter("lines", [float(step[0]), float(step[-1])], [_RULE_OF_THUMB] * 2, ORANGE, **more)


def epoch_lines(epoch: Curve, *, numbered: bool = True) -> list[Mapping[str, Any]]:
    """A thin vertical line at the end of each epoch, with its number on the upper edge."""
    lines: list[Mapping[str, Any]] = []
    for number, step in epoch_ends(epoch, 12 if numbered else 6):
        text = {
            "text": f"{number}" if lines else f"epoch {number}",
            "textposition": "end",
            "textangle": 0,
            "xanchor": "center",
            "yanchor": "bottom",
            "padding": 2,
            "font": {"color": MUTED, "size": 11},
        }
        ends = {"type": "line", "x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
        lines.append({**ends, "line": {"color": LINE, "width": 1}, **({"label": text} if numbered else {})})
    return lines


def small_chart(title: str, curve: Curve, epoch: Curve, value: str, **yaxis: Any) -> Chart | None:
    """One curve in a small chart, None without a number in it; `value` is how its box writes it."""
    few = thinned(curve)
    if not np.isfinite(few.mean).any():
        return None
    note = "" if few.per == 1 else f"{len(curve):,} values, drawn as the means of {few.per:,} at a time."
    return _small(title, note, [plain_line(few, title, BLUE, value)], epoch, **yaxis)


def memory_chart(log: TrainingLog) -> Chart | None:
    """Memory in gigabytes, and how much there is."""
    used, total = log.memory_used, log.memory_total.value
    few = thinned(Curve(used.step, used.value / 1e9))
    if not np.isfinite(few.mean).any():
        return None
    traces = [{**plain_line(few, "used", BLUE, "%{y:.2f} GB"), "y": few.highest}]
    if np.isfinite(total).any():
        there = float(np.nanmax(total)) / 1e9
        ends = Curve(few.step[[0, -1]], np.array([there, there]))
        limit = marks(ends, f"there is {there:,.1f} GB", MUTED, "%{y:.1f} GB")
        traces.append({**limit, "mode": "lines", "line": {"color": MUTED, "width": 1.4, "dash": "dot"}})
    note = "" if few.per == 1 else f"{len(used):,} values, drawn as the highest of {few.per:,} at a time."
    return _small("Memory", note, traces, log.epoch, ticksuffix=" GB")


def _small(title: str, note: str, traces: Sequence[Mapping[str, Any]], epoch: Curve, **yaxis: Any) -> Chart:
    layout = {
        "xaxis": steps(),
        "yaxis": axis(rangemode="tozero", **yaxis),
        "shapes": epoch_lines(epoch, numbered=False),
        "showlegend": len(traces) > 1,
    }
    return Chart(title.lower().replace(" ", "-"), title, note, tuple(traces), layout, height=220, size="small")
