"""Charts and their colours, and plotly: the only place that imports it. A chart is plain values until it is drawn."""

import html
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pricer.errors import PricerError
from pricer.views.formatting import shorten, visible
from pricer.views.report.curves import smoothed

# Charts are drawn in the light ones; in dark mode the page puts the dark one in the place of each.
_PAIRS = {
    "surface": ("#ffffff", "#171d26"),
    "text": ("#1b2430", "#e4e9f0"),
    "muted": ("#647084", "#98a4b5"),
    "grid": ("#e9ecf1", "#2a3340"),
    "line": ("#c9d0da", "#455163"),
    "blue": ("#2867d6", "#6ea8ff"),
    "purple": ("#8145d6", "#b995ff"),
    "teal": ("#0b8a8f", "#3fc6c9"),
    "amber": ("#b66a00", "#f0ac4e"),
    "pink": ("#c5327d", "#ff86bd"),
    "olive": ("#66791c", "#b4cb5c"),
    "green": ("#23935a", "#45c586"),
    "orange": ("#e08712", "#f5a742"),
    "red": ("#d13c43", "#f47074"),
}

SURFACE, TEXT, MUTED, GRID, LINE, BLUE, PURPLE, TEAL, AMBER, PINK, OLIVE, GREEN, ORANGE, RED = (
    light for light, _ in _PAIRS.values()
)

# The colours of runs that are laid over each other, in this order, and again from the beginning.
SERIES = (BLUE, PURPLE, TEAL, AMBER, PINK, OLIVE)

DARK = dict(_PAIRS.values())

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# What the page does to a trace: it smooths the values (the slider), or shows it when asked to (the rule of thumb).
SMOOTHED = {"role": "smoothed"}
RULE = {"role": "rule"}
# How much the past counts in a smoothed curve, until the slider is moved.
SMOOTHING = 0.7

Size = Literal["wide", "small", "tall"]

# Width and height of a picture in pixels, by the place of its chart; each is drawn twice as fine.
_PICTURES = {"wide": (1200, 640), "small": (800, 520), "tall": (880, 880)}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: `name` is its id and the name of its picture. `note` says in text what the drawing does not. Traces and
    layout are plotly's; `height` is in pixels. A `wide` one has a row for itself, `small` ones share one, and a `tall`
    one stands beside two of them.
    """

    name: str
    title: str
    note: str
    traces: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]
    height: int = 380
    size: Size = "wide"


def plotly_text(text: str) -> str:
    """A text for a name, a tick or a hover box: plotly knows some HTML, and nothing in the text may become a link."""
    return html.escape(visible(text), quote=False)


def hover_text(text: str) -> str:
    """The beginning of a description for a hover box, in lines that fit a phone."""
    return "<br>".join(plotly_text(line) for line in textwrap.wrap(shorten(text), 44))


def scatter(mode: str, x: Any, y: Any, color: str, **more: Any) -> dict[str, Any]:
    """A trace of `lines`, `markers` or both. `marker` and `line` in `more` add to the colour."""
    for part in ("line", "marker"):
        if part in mode:
            more[part] = {"color": color, **more.get(part, {})}
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **more}


# For a trace that is only there to be seen.
SILENT = {"hoverinfo": "skip", "showlegend": False}

STAR = {"symbol": "star", "size": 17, "line": {"color": SURFACE, "width": 1.5}}


def error_bars(values: np.ndarray, bounds: np.ndarray, color: str, **more: Any) -> dict[str, Any]:
    """Error bars from `values` (n,) to their `bounds` (n, 2)."""
    array = {"array": bounds[:, 1] - values, "arrayminus": values - bounds[:, 0]}
    return {"type": "data", "symmetric": False, **array, "color": color, "thickness": 1.2, "width": 4, **more}


def as_figure(chart: Chart) -> go.Figure:
    """The chart as a figure of plotly, checked by it; in the light colours, and without its title."""
    return go.Figure(data=list(chart.traces), layout={**_common(chart.height), **chart.layout})


def steps(title: str = "", **more: Any) -> dict[str, Any]:
    """The axis of the steps. Its only vertical lines are the ends of epochs."""
    return axis(title, tickformat=",d", showgrid=False, **more)


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis as all charts have it."""
    named = {"title": {"text": title, "font": {"color": MUTED, "size": 12}, "standoff": 8}} if title else {}
    return {
        **named,
        "tickfont": {"color": MUTED, "size": 12},
        "gridcolor": GRID,
        "linecolor": LINE,
        "zeroline": False,
        "automargin": True,
        **more,
    }


def as_json(charts: Sequence[Chart], **more: Any) -> str:
    """Charts by name and `more`, to stand in a script element of a page: columns are packed as base64, and nothing in
    it ends the element or begins another.
    """
    drawn = {
        chart.name: {**json.loads(as_figure(chart).to_json()), "height": chart.height, "title": chart.title}
        for chart in charts
    }
    text = json.dumps({"charts": drawn, **more}, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def plotly_js() -> str:
    """plotly.js itself, minified."""
    return str(get_plotlyjs())


def write_pictures(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Write each chart as a PNG, in the light colours; returns where. A PricerError without what it takes."""
    try:
        import kaleido
        from kaleido.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError, KaleidoError
    except ImportError:
        raise PricerError("pictures need kaleido, which is not installed", 'pip install "pricer[png]"') from None
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{chart.name}.png" for chart in charts]
    jobs = [
        {"fig": _as_picture(chart), "path": path, "opts": _options(chart)}
        for chart, path in zip(charts, paths, strict=True)
    ]
    try:
        # Without MathJax, which would come from the network.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False}, cancel_on_error=True)
    except ChromeNotFoundError:
        raise PricerError(
            "pictures are drawn by Chrome or Chromium, and there is none",
            "apt-get install chromium, or plotly_get_chrome; BROWSER_PATH names one that lies elsewhere",
        ) from None
    except (BrowserClosedError, BrowserFailedError, KaleidoError, TimeoutError) as error:
        browser = os.environ.get("BROWSER_PATH") or "the browser"
        what = str(error.args[0] if error.args else type(error).__name__).splitlines()[0]
        raise PricerError(
            f"{browser} did not draw the pictures: {what}", "BROWSER_PATH names another Chrome or Chromium"
        ) from None
    return paths


def _options(chart: Chart) -> dict[str, Any]:
    width, height = _PICTURES[chart.size]
    return {"format": "png", "width": width, "height": height, "scale": 2}


def _as_picture(chart: Chart) -> dict[str, Any]:
    """The figure as it stands alone: with a title, and with the curves smoothed as the page has them at first."""
    traces = [
        {**trace, "y": smoothed(trace["y"], SMOOTHING)} if trace.get("meta") == SMOOTHED else trace
        for trace in chart.traces
    ]
    margin = {"l": 70, "r": 30, "t": 110, "b": 60}
    title = {"text": chart.title, "x": 0.012, "xanchor": "left", "y": 0.965, "yanchor": "top", "font": {"size": 22}}
    layout = {**chart.layout, "title": title, "margin": margin, "font": {**_FONT, "size": 15}}
    figure: dict[str, Any] = as_figure(Chart(chart.name, "", "", tuple(traces), layout)).to_plotly_json()
    return figure


_FONT = {"family": FONT, "size": 13, "color": TEXT}


def _common(height: int) -> dict[str, Any]:
    return {
        # plotly's own template would be 7 kB of colours, none of them ours.
        "template": {"layout": {}},
        "font": _FONT,
        "paper_bgcolor": SURFACE,
        "plot_bgcolor": SURFACE,
        "margin": {"l": 10, "r": 14, "t": 10, "b": 10},
        # Above the numbers of the epochs, which stand on the upper edge.
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1 + 22 / (height - 60),
            "yanchor": "bottom",
        },
        "hoverlabel": {"bgcolor": SURFACE, "bordercolor": LINE, "font": {"color": TEXT}, "align": "left"},
        "hovermode": "closest",
        # What a reader zoomed in on stays when colours change.
        "uirevision": "kept",
    }
