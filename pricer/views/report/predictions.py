"""Charts of one checkpoint's predictions: predicted against true prices, error by price, coverage of intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pricer.core.intervals import Coverage
from pricer.core.units import PriceUnit
from pricer.views.formatting import error, error_with_half_width, hit_limits, scored_items, share
from pricer.views.report.curves import round_prices
from pricer.views.report.figures import SILENT, Chart, axis, error_bars, hover_text, price_axis, scatter
from pricer.views.report.values import PredictionDetails

# More dots than this hide each other and make the page slow.
_MAX_DOTS = 3000

# All signs in the legend have one size: by default the dots are too small and the lines too long.
_LEGEND = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"}


def prediction_charts(details: PredictionDetails) -> list[Chart]:
    """Predicted against true prices, error by price band, and, if intervals were saved, their coverage."""
    charts = [scatter_chart(details), bands_chart(details)]
    return [*charts, coverage_chart(details)] if details.breakdown.coverage else charts


def scatter_chart(details: PredictionDetails) -> Chart:
    """Each item's predicted price against its true one, green, orange or red by how far off it is."""
    scores = details.scores
    has_price, rule, unit = scores.has_price, scores.rule, scores.rule.unit
    near = ~scores.hit & scores.is_within(2)
    kinds = [
        (f"hit: within {hit_limits(rule)}", scores.hit, "green", "circle"),
        (f"within {hit_limits(rule, 2)}", near, "orange", "circle"),
        ("further off", has_price & ~scores.hit & ~near, "red", "circle"),
        ("no price said", ~has_price, "red", "x-thin-open"),
    ]
    n = len(scores)
    drawn = np.unique(np.linspace(0, n - 1, min(n, _MAX_DOTS)).round().astype(int))
    # A logarithmic axis has no 0. It is drawn at the lower end, and the hover box has the real value.
    floor = float(scores.price.min())
    positive = scores.imputed[scores.imputed > 0]
    low = min(floor, max(floor / 10, float(positive.min()) if len(positive) else floor)) / 1.12
    high = max(float(scores.price.max()), float(scores.imputed.max())) * 1.12
    traces = [scatter("lines", [low, high], [low, high], "muted", line={"width": 1.2, "dash": "dot"}, **SILENT)]
    for name, is_kind, color, symbol in kinds:
        if count := int(is_kind.sum()):
            look = {"name": f"{name} ({share(count / n)})", "marker": {"symbol": symbol, "size": 5.5, "opacity": 0.6}}
            traces.append(_dots(details, drawn[is_kind[drawn]], low * 1.02, color, **look))
    ticks = round_prices(low, high)
    prices = {
        "type": "log",
        "range": [float(np.log10(low)), float(np.log10(high))],
        "tickvals": ticks,
        "ticktext": [unit.exact(tick) for tick in ticks],
    }
    note = f"{details.evaluation.name}: {scored_items(details.evaluation.spec, n)}."
    if len(drawn) < n:
        note += f" {len(drawn):,} of them are drawn, taken evenly; the shares are of all."
    if count := int((~has_price).sum()):
        note += f" {count:,} without a price: {unit.price(details.evaluation.spec.fallback)} is imputed."
    layout = {"xaxis": axis("true price", **prices), "yaxis": axis("predicted price", **prices), "legend": _LEGEND}
    title = "Predicted against true price"
    return Chart("predicted-against-true", title, note, tuple(traces), layout, 640, "tall")


def _dots(details: PredictionDetails, chosen: np.ndarray, low: float, color: str, **more: Any) -> dict[str, Any]:
    price, predicted = details.scores.price[chosen], details.scores.imputed[chosen]
    unit = details.scores.rule.unit
    true, said = (unit.mark(f"%{{{name}:,.{unit.price_digits}f}}") for name in ("x", "customdata"))
    hover = f"true {true}<br>predicted {said}"
    if details.texts is not None:
        more["text"] = [f"{hover_text(details.texts[index])}<br>" for index in chosen]
        hover = f"%{{text}}{hover}"
    return scatter("markers", price, np.maximum(predicted, low), color, customdata=predicted, hover=hover, **more)


def bands_chart(details: PredictionDetails) -> Chart:
    """The mean absolute error in bands of the true price, each of about a fifth of the items."""
    bands, unit = details.breakdown.price_bands, details.scores.rule.unit
    names = [unit.short_range(band.lowest, band.highest) for band in bands]
    mae = np.array([band.mae for band in bands])
    bounds = np.array([band.mae_interval or (band.mae, band.mae) for band in bands])
    trace = {
        "type": "bar",
        "x": names,
        "y": mae,
        "marker": {"color": "blue", "opacity": 0.85},
        "error_y": error_bars(mae, bounds, "text", width=5),
        "text": [
            f"{name}: {band.n:,} items<br>MAE {error_with_half_width(band.mae, band.mae_interval, unit)}<br>"
            f"bias {unit.error(band.bias)}<br>hits {share(band.hit_rate)}"
            for name, band in zip(names, bands, strict=True)
        ],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }
    ticks = {"tickangle": 0, "tickvals": names, "ticktext": [name.replace("–", "–<br>") for name in names]}
    layout = {
        "xaxis": axis("true price", type="category", showgrid=False, **ticks),
        "yaxis": price_axis("mean absolute error", unit, rangemode="tozero"),
        "bargap": 0.35,
    }
    note = "Each band has about a fifth of the items; 95 % intervals."
    return Chart("error-by-price", "Error by price", note, (trace,), layout, 290, "small")


def coverage_chart(details: PredictionDetails) -> Chart:
    """The share of prices inside the 80 % and the 95 % intervals, raw and corrected, beside the stated coverage."""
    reports, calibrated_on = details.breakdown.coverage, details.breakdown.calibrated_on
    unit = details.scores.rule.unit
    places, levels = list(range(len(reports))), [report.level for report in reports]
    aim = {"symbol": "line-ns-open", "size": 46, "line": {"width": 2}}
    raw = [(place - 0.13, report.level, report.raw) for place, report in enumerate(reports)]
    corrected = [(place + 0.13, report.level, report.conformal) for place, report in enumerate(reports)]
    known = [(place, level, found) for place, level, found in corrected if found]
    traces = [
        scatter("markers", levels, places, "muted", name="aim", marker=aim, hover="aim %{x:.0%}"),
        _coverage("raw, as the model has them", "purple", raw, unit),
        *([_coverage("corrected", "blue", known, unit)] if known else []),
    ]
    ticks: dict[str, Any] = {"tickvals": places, "ticktext": [f"{level:.0%}" for level in levels]}
    layout = {
        "xaxis": axis("share of prices inside", tickformat=".0%"),
        "yaxis": axis(range=[-0.5, len(reports) - 0.5], **ticks),
        "legend": _LEGEND,
    }
    note = (
        f"Corrected on {calibrated_on:,} validation items. Lines: 95 % intervals."
        if calibrated_on
        else "Raw, as the model has them: they are corrected once the chosen checkpoint is scored on the test split."
    )
    return Chart("coverage", "How far the intervals hold", note, tuple(traces), layout, 250, "small")


def _coverage(name: str, color: str, found: Sequence[tuple[float, float, Coverage]], unit: PriceUnit) -> dict[str, Any]:
    """A trace of coverages with their intervals. `found` has (place on the axis, level, coverage) for each."""
    shares = np.array([coverage.share for _, _, coverage in found])
    bounds = np.array([coverage.interval for _, _, coverage in found])
    text = [
        f"{name}<br>{share(coverage.share)} of prices in the {level:.0%} interval<br>"
        f"mean width {error(coverage.mean_width, unit)}"
        for _, level, coverage in found
    ]
    look = {"marker": {"size": 10}, "error_x": error_bars(shares, bounds, color, thickness=1.6, width=0)}
    return scatter("markers", shares, [place for place, _, _ in found], color, name=name, text=text, **look)
