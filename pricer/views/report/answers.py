"""Charts of one checkpoint's answers: predicted against true, error by price, and how far its intervals hold."""

from typing import Any

import numpy as np

from pricer.core.intervals import Coverage
from pricer.views.report.figures import Chart, axis
from pricer.views.report.palette import BLUE, GREEN, MUTED, ORANGE, PURPLE, RED, TEXT
from pricer.views.report.series import round_prices
from pricer.views.report.values import Behind
from pricer.views.report.wording import asked, box, dollars, half, share

# More dots than this hide each other, and make a page slow.
_MOST_DOTS = 3000

# Signs of one size: the dots would be too small in it, the lines too long.
_LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"}


def answer_charts(behind: Behind) -> list[Chart]:
    """Predicted against true, error by price band, and coverage where intervals were saved."""
    charts = [scatter_chart(behind), bands_chart(behind)]
    return [*charts, coverage_chart(behind)] if behind.breakdown.coverage else charts


def scatter_chart(behind: Behind) -> Chart:
    """Each item's predicted price against its true one, green, orange or red by how far off it is."""
    scores = behind.scores
    error, has_price = scores.abs_error, scores.has_price
    near = has_price & ~scores.hit & ((error < 80) | (error < 0.4 * scores.price))
    kinds = [
        ("hit: within $40 or 20 %", scores.hit, GREEN, "circle"),
        ("within $80 or 40 %", near, ORANGE, "circle"),
        ("further off", has_price & ~scores.hit & ~near, RED, "circle"),
        ("no price said", ~has_price, RED, "x-thin-open"),
    ]
    n = len(scores)
    drawn = np.unique(np.linspace(0, n - 1, min(n, _MOST_DOTS)).round().astype(int))
    # A price of $0 has no place on a logarithmic axis: it is drawn at its lower end, the box says what it is.
    floor = float(scores.price.min())
    positive = scores.imputed[scores.imputed > 0]
    low = min(floor, max(floor / 10, float(positive.min()) if len(positive) else floor)) / 1.12
    high = max(float(scores.price.max()), float(scores.imputed.max())) * 1.12
    traces: list[dict[str, Any]] = [_diagonal(low, high)]
    for name, which, color, symbol in kinds:
        count = int(which.sum())
        chosen = drawn[which[drawn]]
        if count:
            trace = _dots(behind, chosen, max(low, float(low) * 1.02))
            marker = {"color": color, "symbol": symbol, "size": 5.5, "opacity": 0.6}
            traces.append({**trace, "name": f"{name} ({share(count / n)})", "marker": marker})
    ticks = round_prices(low, high)
    prices: dict[str, Any] = {
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(high))],
        "tickvals": ticks,
        "ticktext": [f"${tick:,.0f}" if tick >= 1 else f"${tick:.2f}" for tick in ticks],
    }
    note = [f"{behind.evaluation.name}: {asked(behind.evaluation.spec, n)}."]
    if len(drawn) < n:
        note.append(f"{len(drawn):,} of them are drawn, taken evenly; the shares are of all.")
    if count := int((~has_price).sum()):
        note.append(f"{count:,} without a price: {dollars(behind.evaluation.spec.fallback)} is imputed.")
    layout = {
        "xaxis": axis("true price", **prices),
        "yaxis": axis("predicted price", **prices),
        "legend": _LEGEND,
    }
    return Chart(
        "predicted-against-true", "Predicted against true price", " ".join(note), tuple(traces), layout, 640, "tall"
    )


def _dots(behind: Behind, chosen: np.ndarray, low: float) -> dict[str, Any]:
    scores = behind.scores
    text = [] if behind.texts is None else [f"{box(behind.texts[index])}<br>" for index in chosen]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": scores.price[chosen],
        "y": np.maximum(scores.imputed[chosen], low),
        "customdata": scores.imputed[chosen],
        "hovertemplate": ("%{text}" if text else "")
        + "true %{x:$,.2f}<br>predicted %{customdata:$,.2f}<extra></extra>",
        **({"text": text} if text else {}),
    }


def _diagonal(low: float, high: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [low, high],
        "y": [low, high],
        "line": {"color": MUTED, "width": 1.2, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def bands_chart(behind: Behind) -> Chart:
    """The mean absolute error in bands of the true price, each of about a fifth of the items."""
    bands = behind.breakdown.price_bands
    names = [f"${band.lowest:,.0f}–{band.highest:,.0f}" for band in bands]
    mae = np.array([band.mae for band in bands])
    bounds = np.array([band.mae_interval or (band.mae, band.mae) for band in bands])
    trace = {
        "type": "bar",
        "x": names,
        "y": mae,
        "marker": {"color": BLUE, "opacity": 0.85},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": bounds[:, 1] - mae,
            "arrayminus": mae - bounds[:, 0],
            "color": TEXT,
            "thickness": 1.2,
            "width": 5,
        },
        "text": [
            f"{name}: {band.n:,} items<br>MAE {dollars(band.mae)}{half(band.mae_interval)}<br>"
            f"bias {dollars(band.bias)}<br>hits {share(band.hit_rate)}"
            for name, band in zip(names, bands, strict=True)
        ],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = {
        "xaxis": axis(
            "true price",
            type="category",
            showgrid=False,
            tickangle=0,
            tickvals=names,
            ticktext=[name.replace("–", "–<br>") for name in names],
        ),
        "yaxis": axis("mean absolute error", tickprefix="$", tickformat=",", rangemode="tozero"),
        "bargap": 0.35,
    }
    note = "Each band has about a fifth of the items; 95 % intervals."
    return Chart("error-by-price", "Error by price", note, (trace,), layout, height=290, size="small")


def coverage_chart(behind: Behind) -> Chart:
    """The share of prices in the 80 % and the 95 % intervals, raw and corrected, against what was asked of them."""
    reports = list(enumerate(behind.breakdown.coverage))
    raw = [(place - 0.13, report.level, report.raw) for place, report in reports]
    corrected = [(place + 0.13, report.level, report.conformal) for place, report in reports if report.conformal]
    traces = [_coverage("raw, as the model has them", PURPLE, raw), _coverage("corrected", BLUE, corrected)]
    aims = {
        "type": "scatter",
        "mode": "markers",
        "name": "aim",
        "x": [report.level for report in behind.breakdown.coverage],
        "y": [place for place, _ in reports],
        "marker": {"symbol": "line-ns-open", "size": 46, "color": MUTED, "line": {"width": 2}},
        "hovertemplate": "aim %{x:.0%}<extra></extra>",
    }
    layout = {
        "xaxis": axis("share of prices inside", tickformat=".0%"),
        "yaxis": axis(
            tickvals=[place for place, _ in reports],
            ticktext=[f"{report.level:.0%}" for _, report in reports],
            range=[-0.5, len(reports) - 0.5],
        ),
        "legend": _LEGEND,
    }
    note = (
        f"Corrected on {behind.breakdown.calibrated_on:,} validation items. Lines: 95 % intervals."
        if behind.breakdown.calibrated_on
        else "Raw, as the model has them: they are corrected once the chosen checkpoint is scored on the test split."
    )
    drawn = [aims, *(trace for trace in traces if trace["x"])]
    return Chart("coverage", "How far the intervals hold", note, tuple(drawn), layout, height=250, size="small")


def _coverage(name: str, color: str, found: list[tuple[float, float, Coverage]]) -> dict[str, Any]:
    """Shares with their intervals: each with its place on the axis and its level."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [coverage.share for _, _, coverage in found],
        "y": [place for place, _, _ in found],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [coverage.interval[1] - coverage.share for _, _, coverage in found],
            "arrayminus": [coverage.share - coverage.interval[0] for _, _, coverage in found],
            "color": color,
            "thickness": 1.6,
            "width": 0,
        },
        "marker": {"color": color, "size": 10},
        "text": [
            f"{name}<br>{share(coverage.share)} of prices in the {level:.0%} interval<br>"
            f"mean width {dollars(coverage.mean_width)}"
            for _, level, coverage in found
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
