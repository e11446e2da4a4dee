"""Values as text, and text that nothing takes for markup: neither a browser nor plotly, which knows some HTML, too."""

import html
import textwrap
import unicodedata

from pricer.core.evaluation import EvalSpec
from pricer.core.metrics import METRICS, Metric
from pricer.core.predictions import ESTIMATORS
from pricer.views.formatting import measured

# Characters of a description that a person recognises a product by, and of a line in a small box.
_SHORT = 110
_LINE = 44


def escaped(text: str) -> str:
    """For a place between tags or in a quoted attribute."""
    return html.escape(_visible(text), quote=True)


def label(text: str) -> str:
    """For a name, a tick or a box of a chart: plotly makes links and bold type of what looks like them, so nothing
    may.
    """
    return html.escape(_visible(text), quote=False)


def box(text: str) -> str:
    """The beginning of a description for a box of a chart, in lines that fit a phone."""
    return "<br>".join(label(line) for line in textwrap.wrap(shortened(text), _LINE))


def shortened(text: str, most: int = _SHORT) -> str:
    """The beginning of a text on one line."""
    # Of a very long text no more is looked at than could be shown.
    line = " ".join(_visible(text[: 10 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _visible(text: str) -> str:
    """Without what has no shape but changes how others look: control characters and marks of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else "�" for c in text)


def dollars(amount: float | None) -> str:
    """An amount; – for None."""
    if amount is None:
        return "–"
    return f"{'−' if amount < 0 else ''}${abs(amount):,.2f}"


def share(value: float | None) -> str:
    """A share in percent; – for None."""
    return "–" if value is None else f"{value:.1%}"


def half(interval: tuple[float, float] | None) -> str:
    """Half the width of an interval in dollars, as one writes it after a mean; nothing for None."""
    return "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:,.2f}"


def figure(metric: Metric) -> str:
    """A metric in its own unit, with its interval where it is in dollars."""
    if metric.value is None:
        return "–"
    return measured(metric.value, metric.name) + (
        half(metric.interval) if METRICS[metric.name].unit == "dollars" else ""
    )


def asked(spec: EvalSpec, n: int) -> str:
    """What was asked: how many items of which split, and what was scored of the answers."""
    which = {"val": "validation", "test": "test", "train": "training"}[spec.split.value]
    return f"{n:,} {which} items, {ESTIMATORS[spec.estimator].label}"
