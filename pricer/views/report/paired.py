"""How far each checkpoint is behind the best, paired by item: what the intervals of the errors themselves hide."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricer.core.comparison import Evidence, Standing
from pricer.views.formatting import IN_DOLLARS, SHARES, behind, difference, named
from pricer.views.report.figures import Chart, axis, steps
from pricer.views.report.palette import AMBER, BLUE, GREEN, LINE, MUTED, SURFACE
from pricer.views.report.values import HeldOut
from pricer.views.report.wording import METRIC_NAMES, label, share

# So many half-intervals of those nearest to the best are drawn above it: of what is far off, one need not see how far.
_HALVES = 6
_NAMED = 4


def difference_chart(held_out: HeldOut) -> Chart | None:
    """The difference of each checkpoint to the best, with its 95 % interval, around a line at zero; None without
    evidence.
    """
    if held_out.evidence is None:
        return None
    evidence, metric, chosen = held_out.evidence, held_out.metric, held_out.standing(held_out.chosen)
    unit = 100 if metric in SHARES else 1
    # Soups are in the table alone: they are no points of a training.
    drawn = [one for one in evidence.standings if not one.members]
    others = [one for one in drawn if one.interval is not None]
    groups = [
        ("cannot be told apart from the best", [one for one in others if one.indistinguishable], AMBER, "circle-open"),
        ("told apart", [one for one in others if not one.indistinguishable], BLUE, "circle"),
    ]
    traces = [_curve(drawn, unit)]
    traces += [_differences(which, name, color, symbol, metric, unit) for name, which, color, symbol in groups if which]
    traces.append(_best(evidence, chosen))
    if chosen != evidence.best:
        traces += [_chosen(one, unit) for one in others if one == chosen]
    ends, beyond = difference_scale(evidence)
    scale: dict[str, Any] = {"range": [unit * end for end in ends]}
    if metric in IN_DOLLARS:
        scale["tickformat"] = "$,~f"  # a prefix would stand before the sign
    points = ", points" if metric in SHARES else ""
    layout = {
        "xaxis": steps("step"),
        "yaxis": axis(f"{METRIC_NAMES[metric]}, worse by{points}", **scale),
        "shapes": [_zero()],
    }
    best = named(evidence.best.step, evidence.best.members)
    note = [
        f"How much worse each is than {best}, the best by {METRIC_NAMES[metric]}, on the same items; 95 % intervals of "
        "the difference. What reaches the line at zero cannot be told apart from it, whether or not the intervals "
        "above overlap."
    ]
    if beyond:
        more = f" and {len(beyond) - _NAMED:,} more" if len(beyond) > _NAMED else ""
        far = ", ".join(f"step {one.step:,} by {difference(one.behind, metric)}" for one in beyond[:_NAMED])
        note.append(f"Above the picture (double-click shows all): {far}{more}.")
    return Chart(
        "difference-to-best", "Difference to the best, paired by item", " ".join(note), tuple(traces), layout, 330
    )


def difference_scale(evidence: Evidence) -> tuple[list[float], list[Standing]]:
    """The two ends of an axis for differences, and what is so far behind that it lies above it: the first checkpoints
    must not press flat what is near the best. At least the nearer half is drawn.
    """
    others = sorted((one for one in evidence.standings if one.interval and not one.members), key=lambda one: one.behind)
    nearer = others[: math.ceil(len(others) / 2)]
    half = float(np.median([(high - low) / 2 for low, high in (one.interval or (0.0, 0.0) for one in nearer)]))
    most = max(_HALVES * half, nearer[-1].behind)
    bounds = [0.0, *(end for one in others if one.behind <= most for end in one.interval or ())]
    room = 0.06 * (max(bounds) - min(bounds)) or 1.0
    return [min(bounds) - room, max(bounds) + room], [one for one in others if one.behind > most]


def _curve(shown: Sequence[Standing], unit: int) -> dict[str, Any]:
    """A faint line through all, for the eye."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [one.step for one in shown],
        "y": [unit * one.behind for one in shown],
        "line": {"color": LINE, "width": 1.4},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _differences(
    standings: Sequence[Standing], name: str, color: str, symbol: str, metric: str, unit: int
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [one.step for one in standings],
        "y": [unit * one.behind for one in standings],
        "error_y": {
            "type": "data",
            "array": [unit * (one.interval[1] - one.behind) for one in standings if one.interval],
            "color": color,
            "thickness": 1.4,
            "width": 4,
        },
        "marker": {"color": color, "size": 8, "symbol": symbol, "line": {"color": color, "width": 2}},
        "text": [
            f"step {one.step:,}: {behind(one, metric)}<br>probability best {share(one.p_best)}" for one in standings
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _best(evidence: Evidence, chosen: Standing | None) -> dict[str, Any]:
    best = evidence.best
    name = f"{'chosen, and the' if chosen == best else 'the'} best: {named(best.step, best.members)}"
    marker = _STAR if chosen == best else {"symbol": "diamond", "size": 11, "color": GREEN}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(name),
        "x": [best.step],
        "y": [0.0],
        "marker": marker,
        "text": [f"{named(best.step, best.members)}<br>probability best {share(best.p_best)}"],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _chosen(standing: Standing, unit: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label(f"chosen: step {standing.step:,}"),
        "x": [standing.step],
        "y": [unit * standing.behind],
        "marker": _STAR,
        "hoverinfo": "skip",
    }


_STAR: Mapping[str, Any] = {"symbol": "star", "size": 17, "color": GREEN, "line": {"color": SURFACE, "width": 1.5}}


def _zero() -> Mapping[str, Any]:
    ends = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "layer": "below"}
    return {**ends, "line": {"color": MUTED, "width": 1.4}}
