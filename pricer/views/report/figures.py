"""Charts and their colours. The only place that imports plotly. A chart is plain values until it is drawn."""

import html
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pricer.core.units import PriceUnit
from pricer.errors import PricerError
from pricer.views.formatting import shorten, visible
from pricer.views.report.curves import Curve, Thinned, smoothed

# The light and the dark colour of each name. Charts are drawn in light colours; in dark mode the page replaces them.
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

# The colours of several runs in one chart, in this order, repeated if there are more runs.
SERIES = ("blue", "purple", "teal", "amber", "pink", "olive")

DARK = dict(_PAIRS.values())

# The roles of a trace for the page's script: the slider smooths it, or the switch shows it (the rule of thumb).
SMOOTHED = {"role": "smoothed"}
RULE = {"role": "rule"}
# Weight of the past in a smoothed curve, until the reader moves the slider.
SMOOTHING = 0.7

Size = Literal["wide", "small", "tall"]

# Width and height of a picture by the place of its chart. Pictures have twice as many pixels in each direction.
_PICTURES = {"wide": (1200, 640), "small": (800, 520), "tall": (880, 880)}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. `name` is its id and the file name of its picture. `note` adds in text what the drawing does not show.
    Traces and layout are in plotly's format; `height` is in pixels. A `wide` chart has its own row, `small` charts
    share a row, and a `tall` chart is beside two small ones.
    """

    name: str
    title: str
    note: str
    traces: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]
    height: int = 380
    size: Size = "wide"


def plotly_text(text: str) -> str:
    """Escape a text for a name, a tick or a hover box: plotly reads some HTML, and text must not become a link."""
    return html.escape(visible(text), quote=False)


def hover_text(text: str) -> str:
    """The beginning of a description for a hover box, in lines that fit a phone."""
    return "<br>".join(plotly_text(line) for line in textwrap.wrap(shorten(text), 44))


def scatter(mode: str, x: Any, y: Any, color: str, **more: Any) -> dict[str, Any]:
    """A trace of `lines`, `markers` or both. `more` goes to plotly: `marker` and `line` are merged with the colour, and
    `name` is escaped. `hover` is the template of the hover box; without it the box shows `text`.
    """
    for part in ("line", "marker"):
        if part in mode:
            more[part] = {"color": color, **more.get(part, {})}
    if "name" in more:
        more["name"] = plotly_text(more["name"])
    if hover := more.pop("hover", "%{text}" if "text" in more else None):
        more["hovertemplate"] = f"{hover}<extra></extra>"
    return {"type": "scatter", "mode": mode, "x": x, "y": y, **more}


# For a trace without hover box and legend.
SILENT = {"hoverinfo": "skip", "showlegend": False}

STAR = {"symbol": "star", "size": 17, "line": {"color": "surface", "width": 1.5}}


def points(few: Thinned, color: str) -> dict[str, Any]:
    """The values of a curve as faint dots. A thinned curve has the lowest and the highest value of each bucket."""
    step, value = few.step, few.mean
    if few.per > 1:
        step = np.repeat(few.step, 2)
        value = np.column_stack([few.lowest, few.highest]).ravel()
    return scatter("markers", step, value, color, marker={"size": 3.5, "opacity": 0.3}, **SILENT)


def smoothed_line(few: Thinned, name: str, color: str) -> dict[str, Any]:
    """A curve that the slider smooths."""
    look = {"name": name, "line": {"width": 2.2}, "hover": "step %{x:,.0f}: %{y:.4f}"}
    return scatter("lines", few.step, few.mean, color, meta=SMOOTHED, **look)


def marks(curve: Curve, color: str, **more: Any) -> dict[str, Any]:
    """A curve of few points, each with a mark."""
    look = {"line": {"width": 1.6}, "marker": {"size": 7}}
    return scatter("lines+markers", curve.step, curve.value, color, **look, **more)


def vertical(step: float, color: str, **look: Any) -> dict[str, Any]:
    """A line from the lower to the upper edge, behind the curves."""
    ends = {"x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", **ends, "layer": "below", "line": {"color": color, **look}}


def error_bars(values: np.ndarray, bounds: np.ndarray, color: str, **more: Any) -> dict[str, Any]:
    """Error bars from `values` (n,) to their `bounds` (n, 2)."""
    array = {"array": bounds[:, 1] - values, "arrayminus": values - bounds[:, 0]}
    return {"type": "data", "symmetric": False, **array, "color": color, "thickness": 1.2, "width": 4, **more}


def as_figure(chart: Chart) -> go.Figure:
    """The chart as a plotly figure in light colours, without its title. plotly validates it."""
    return go.Figure(data=_painted(chart.traces), layout=_painted({**_common(chart.height), **chart.layout}))


def _painted(value: Any, key: str = "") -> Any:
    """The value with colours in place of their names. Only values under a key for a color are replaced."""
    if isinstance(value, Mapping):
        return {key: _painted(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_painted(inner) for inner in value]
    return _PAIRS[value][0] if key.endswith("color") and value in _PAIRS else value


def by_step(
    name: str,
    title: str,
    note: str,
    traces: Sequence[Mapping[str, Any]],
    yaxis: Mapping[str, Any],
    shapes: Sequence[Mapping[str, Any]] = (),
    height: int = 420,
) -> Chart:
    """A wide chart of something by step."""
    layout = {"xaxis": steps("step"), "yaxis": yaxis, "shapes": list(shapes)}
    return Chart(name, title, note, tuple(traces), layout, height)


def steps(title: str = "", **more: Any) -> dict[str, Any]:
    """The axis for steps. It has no grid: the only vertical lines are the ends of epochs."""
    return axis(title, tickformat=",d", showgrid=False, **more)


def price_axis(title: str, unit: PriceUnit, **more: Any) -> dict[str, Any]:
    """An axis of prices or errors, with the unit at each tick."""
    sign = {"tickprefix": unit.mark("")} if unit.is_before else {"ticksuffix": unit.mark("")}
    return axis(title, tickformat=",", **sign, **more)


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis with the common look of all charts."""
    font = {"color": "muted", "size": 12}
    named = {"title": {"text": title, "font": font, "standoff": 8}} if title else {}
    look = {"tickfont": font, "gridcolor": "grid", "linecolor": "line", "zeroline": False, "automargin": True}
    return {**named, **look, **more}


def as_json(charts: Sequence[Chart], **more: Any) -> str:
    """Charts by name and `more` as JSON for a script element of a page. Columns are packed as base64. No text in it can
    end the element or begin another one.
    """
    drawn = {
        chart.name: {**json.loads(as_figure(chart).to_json()), "height": chart.height, "title": chart.title}
        for chart in charts
    }
    text = json.dumps({"charts": drawn, **more}, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def plotly_js() -> bytes:
    """plotly.js itself, minified."""
    return str(get_plotlyjs()).encode()


def write_pictures(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Write each chart as a PNG in light colours and return the files. A PricerError without kaleido or Chrome."""
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError:
        raise PricerError("pictures need kaleido, which is not installed", 'pip install "pricer[png]"') from None
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{chart.name}.png" for chart in charts]
    jobs = [{"path": path, **_picture(chart)} for chart, path in zip(charts, paths, strict=True)]
    try:
        # MathJax would be loaded from the network.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False}, cancel_on_error=True)
    except ChromeNotFoundError:
        raise PricerError(
            "pictures are drawn by Chrome or Chromium, and there is none",
            "apt-get install chromium, or plotly_get_chrome; BROWSER_PATH names one that lies elsewhere",
        ) from None
    except Exception as error:  # a browser that ends is a broken pipe, a closed channel or kaleido's own error
        browser = os.environ.get("BROWSER_PATH") or "the browser"
        what = str(error.args[0] if error.args else type(error).__name__).splitlines()[0]
        raise PricerError(
            f"{browser} did not draw the pictures: {what}", "BROWSER_PATH names another Chrome or Chromium"
        ) from None
    return paths


def _picture(chart: Chart) -> dict[str, Any]:
    """The chart as a figure outside the page: with a title, and smoothed as the page shows it at first."""
    traces = [
        {**trace, "y": smoothed(trace["y"], SMOOTHING)} if trace.get("meta") == SMOOTHED else trace
        for trace in chart.traces
    ]
    title = {"text": chart.title, "x": 0.012, "xanchor": "left", "y": 0.965, "yanchor": "top", "font": {"size": 22}}
    alone = {"title": title, "margin": {"l": 70, "r": 30, "t": 130, "b": 60}, "font": {**_FONT, "size": 15}}
    width, height = _PICTURES[chart.size]
    figure = as_figure(replace(chart, traces=tuple(traces), layout={**chart.layout, **alone}, height=height))
    return {"fig": figure.to_plotly_json(), "opts": {"format": "png", "width": width, "height": height, "scale": 2}}


_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_FONT = {"family": _FAMILY, "size": 13, "color": "text"}


def _common(height: int) -> dict[str, Any]:
    return {
        # plotly's own template would add 7 kB of colours that are not used.
        "template": {"layout": {}},
        "font": _FONT,
        "paper_bgcolor": "surface",
        "plot_bgcolor": "surface",
        "margin": {"l": 10, "r": 14, "t": 10, "b": 10},
        # The legend is above the epoch numbers, which are on the upper edge.
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1 + 22 / (height - 60), "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": "surface", "bordercolor": "line", "font": {"color": "text"}, "align": "left"},
        "hovermode": "closest",
        # Keep the reader's zoom when colours change.
        "uirevision": "kept",
    }
