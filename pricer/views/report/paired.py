"""How far each checkpoint is behind the best, paired by item: what the intervals of the errors themselves hide."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricer.core.comparison import Comparison, Difference
from pricer.core.metrics import METRICS
from pricer.views.formatting import difference, named, worse_by
from pricer.views.report.figures import Chart, axis, steps
from pricer.views.report.palette import AMBER, BLUE, GREEN, LINE, MUTED, SURFACE
from pricer.views.report.values import HeldOut
from pricer.views.report.wording import label, share

# So many half-intervals of those nearest to the best are drawn above it: of what is far off, one need not see how far.
_HALVES = 6
_NAMED = 4


def difference_chart(held_out: HeldOut) -> Chart | None:
    """The difference of each checkpoint to the best, with its 95 % interval, around a line at zero; None without
    comparison.
    """
    if held_out.comparison is None:
        return None
    comparison, metric = held_out.comparison, held_out.metric
    unit = 100 if METRICS[metric].unit == "share" else 1
    # Soups are in the table alone: they are no points of a training.
    drawn = [one for one in comparison.differences if not one.candidate.is_soup]
    others = [one for one in drawn if one.interval is not None]
    groups = [
        (
            "not significantly different from the best",
            [one for one in others if not one.is_significant],
            AMBER,
            "circle-open",
        ),
        ("significantly different", [one for one in others if one.is_significant], BLUE, "circle"),
    ]
    traces = [_curve(drawn, unit)]
    traces += [_differences(which, name, color, symbol, metric, unit) for name, which, color, symbol in groups if which]
    traces.append(_best(comparison))
    ends, beyond = difference_scale(comparison)
    scale: dict[str, Any] = {"range": [unit * end for end in ends]}
    if METRICS[metric].unit == "dollars":
        scale["tickformat"] = "$,~f"  # a prefix would stand before the sign
    points = ", points" if METRICS[metric].unit == "share" else ""
    layout = {
        "xaxis": steps("step"),
        "yaxis": axis(f"{METRICS[metric].label}, worse by{points}", **scale),
        "shapes": [_zero()],
    }
    best = named(comparison.best)
    note = [
        f"How much worse each is than {best}, the best by {METRICS[metric].label}, on the same items; 95 % intervals "
        "of the difference. What reaches the line at zero is not significantly different from it, whether or not the "
        "intervals above overlap."
    ]
    if beyond:
        more = f" and {len(beyond) - _NAMED:,} more" if len(beyond) > _NAMED else ""
        far = ", ".join(f"step {one.candidate.step:,} by {difference(one.worse_by, metric)}" for one in beyond[:_NAMED])
        note.append(f"Above the picture (double-click shows all): {far}{more}.")
    return Chart(
        "difference-to-best", "Difference to the best, paired by item", " ".join(note), tuple(traces), layout, 330
    )


def difference_scale(comparison: Comparison) -> tuple[list[float], list[Difference]]:
    """The two ends of an axis for differences, and what is so far behind that it lies above it: the first checkpoints
    must not press flat what is near the best. At least the nearer half is drawn.
    """
    others = sorted((one for one in comparison.others if not one.candidate.is_soup), key=lambda one: one.worse_by)
    nearer = others[: math.ceil(len(others) / 2)]
    half = float(np.median([(high - low) / 2 for low, high in (one.interval or (0.0, 0.0) for one in nearer)]))
    most = max(_HALVES * half, nearer[-1].worse_by)
    bounds = [0.0, *(end for one in others if one.worse_by <= most for end in one.interval or ())]
    room = 0.06 * (max(bounds) - min(bounds)) or 1.0
    return [min(bounds) - room, max(bounds) + room], [one for one in others if one.worse_by > most]


def _curve(shown: Sequence[Difference], unit: int) -> dict[str, Any]:
    """A faint line through all, for the eye."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [one.candidate.step for one in shown],
        "y": [unit * one.worse_by for one in shown],
        "line": {"color": LINE, "width": 1.4},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _differences(
    differences: Sequence[Difference], name: str, color: str, symbol: str, metric: str, unit: int
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [one.candidate.step for one in differences],
        "y": [unit * one.worse_by for one in differences],
        "error_y": {
            "type": "data",
            "array": [unit * (one.interval[1] - one.worse_by) for one in differences if one.interval],
            "color": color,
            "thickness": 1.4,
            "width": 4,
        },
        "marker": {"color": color, "size": 8, "symbol": symbol, "line": {"color": color, "width": 2}},
        "text": [
            f"step {one.candidate.step:,}: {worse_by(one, metric)}<br>probability best {share(one.p_best)}"
            for one in differences
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _best(comparison: Comparison) -> dict[str, Any]:
    best = comparison.best
    p_best = next(one.p_best for one in comparison.differences if one.is_of_best)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(f"chosen, and the best: {named(best)}"),
        "x": [best.step],
        "y": [0.0],
        "marker": _STAR,
        "text": [f"{named(best)}<br>probability best {share(p_best)}"],
        "hovertemplate": "%{text}<extra></extra>",
    }


_STAR: Mapping[str, Any] = {"symbol": "star", "size": 17, "color": GREEN, "line": {"color": SURFACE, "width": 1.5}}


def _zero() -> Mapping[str, Any]:
    ends = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "layer": "below"}
    return {**ends, "line": {"color": MUTED, "width": 1.4}}
