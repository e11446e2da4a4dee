"""The curve of error by step, for whoever looks at a terminal."""

import math
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from pricer.commands.pick import Picked
from pricer.core.evaluation import Evaluation
from pricer.views import terminal
from pricer.views.formatting import dollars

_HEIGHT = 10
# Columns. Below the first a curve says nothing, beyond the second nothing more.
_NARROWEST, _WIDEST = 40, 100
# The baseline that a model has to beat. Its line may widen the range of the curve by this share at most.
_BASELINE, _NEAR = "tf-idf + ridge", 0.5
_LABELS = 5


def show_pick(result: Picked) -> None:
    """Draw the checkpoints that were ranked, with the baselines of the same items, and mark the pick. A soup is no
    point of the curve.
    """
    selection = result.selection
    beside = [
        e
        for e in result.run.evaluations.all()
        if e.spec.fingerprint == selection.spec_fingerprint and e.candidate.is_baseline
    ]
    show([*beside, *selection.ranking], None if selection.candidate.is_soup else selection.candidate.step)


def show(evaluations: Sequence[Evaluation], chosen: int | None = None) -> None:
    """Draw the mean absolute error of the checkpoints among these by step, on stdout. `chosen` is the step to mark
    (None: that of the lowest error).

    Nothing is drawn off a terminal, on one that is narrow or knows no more than letters, or of fewer than two points.
    """
    curve = [(e.candidate.step, e.metric("mae").value) for e in evaluations if not e.candidate.is_soup]
    points = sorted((step, mae) for step, mae in curve if step is not None and mae is not None)
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    if len(points) < 2 or width < _NARROWEST or not _is_drawable():
        return
    best = min(points, key=lambda point: (point[0] != chosen, point[1], point[0]))
    level = _baseline(evaluations, [mae for _, mae in points])
    try:
        drawn = _draw(points, best, level, width)
    except (ImportError, OSError):
        return  # plotext is partly compiled; where it does not load, the table says the same
    terminal.drawing("\n".join([*_caption(best, level, width), drawn]))


def _is_drawable() -> bool:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown") and encoding == "utf8"


def _baseline(evaluations: Sequence[Evaluation], errors: Sequence[float]) -> float | None:
    """The error of the baseline, None where it is unknown or so far off that the curve would be flat beside it."""
    level = next((e.metric("mae").value for e in evaluations if e.name == _BASELINE), None)
    lowest, highest = min(errors), max(errors)
    room = _NEAR * (highest - lowest)
    return level if level is not None and lowest - room <= level <= highest + room else None


def _caption(best: tuple[int, float], level: float | None, width: int) -> list[str]:
    parts = ["MAE by step", f"● step {best[0]:,}: {dollars(best[1])}"]
    if level is not None:
        parts.append(f"┈ {_BASELINE}: {dollars(level)}")
    line = "   ".join(parts)
    return [line] if len(line) <= width else parts


def _draw(points: Sequence[tuple[int, float]], best: tuple[int, float], level: float | None, width: int) -> str:
    import plotext

    plain = bool(os.environ.get("NO_COLOR"))
    errors = [mae for _, mae in points] + ([] if level is None else [level])
    lowest, highest = min(errors), max(errors)
    ticks = _ticks(lowest, highest)
    margin = 0 if lowest < highest else 1  # a range of nothing has no middle
    # One figure for the whole process: it keeps what was drawn and set before.
    figure = plotext.figure.clear()
    plotext.terminal.limit(width=False, height=False)
    figure.theme("colorless")  # the terminal's own background, which nobody else can know
    figure.plot_size(width, _HEIGHT)
    figure.axes(False, axis=(0, 1), side=1)
    figure.ruler(1, 0).lim(lowest - margin, highest + margin)
    figure.ruler(1, 0).ticks(ticks, [f"${tick:,.10g}" for tick in ticks])
    figure.ruler(0, 0).ticks(*_steps([step for step, _ in points], width))
    steps, maes = zip(*points, strict=True)
    if level is not None:  # first: what is drawn later is on top
        ends = [steps[0], steps[-1]]
        figure.draw(figure.signal(ends, [level, level], marker=_marker(plotext, "┈", "orange")).lines())
    figure.draw(figure.signal(steps, maes, marker=_marker(plotext, "braille", "blue+")).lines())
    figure.draw(figure.signal([best[0]], [best[1]], marker=_marker(plotext, "●", "green+")))
    return str(figure.build().string(colorless=plain)).rstrip("\n")


def _marker(plotext: Any, shape: str, colour: str) -> Any:
    return plotext.marker(shape, pixel=plotext.pixel(foreground=colour))


def _ticks(lowest: float, highest: float) -> list[float]:
    """Round amounts within a range, as many as there is room for: multiples of 1, 2 or 5 times a power of ten."""
    span = (highest - lowest) or 1.0
    power = 10 ** math.floor(math.log10(span / _LABELS))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / _LABELS)
    first = math.ceil(lowest / size)
    return [round(number * size, 10) for number in range(first, math.floor(highest / size) + 1)] or [lowest]


def _steps(steps: Sequence[int], width: int) -> tuple[list[int], list[str]]:
    """The steps that are named below the curve: evenly many of them, each with room for its name."""
    widest = len(f"{steps[-1]:,}") + 4
    chosen = list(steps[:: math.ceil(len(steps) * widest / width)])
    return chosen, [f"{step:,}" for step in chosen]
