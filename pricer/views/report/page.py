"""The page: charts, tables and what draws them, as one file that asks nobody for anything."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from string import Template

from pricer.views.report import tables
from pricer.views.report.answers import answer_charts
from pricer.views.report.figures import SMOOTHING, Chart, as_json, plotly_js
from pricer.views.report.held_out import error_chart, overtraining_chart
from pricer.views.report.paired import difference_chart
from pricer.views.report.palette import DARK
from pricer.views.report.training import training_charts
from pricer.views.report.values import RunReport
from pricer.views.report.wording import escaped

_HERE = Path(__file__).parent


def run_page(report: RunReport) -> tuple[str, list[Chart]]:
    """The page of one run, and the charts in it."""
    charts = run_charts(report)
    by_name = {chart.name: chart for chart in charts}

    def drawn(*names: str) -> str:
        return charts_html([by_name[name] for name in names if name in by_name])

    held_out, behind = report.held_out, report.behind
    parts = [tables.tiles_html(tables.tiles(report)), notes_html(report.notes)]
    if report.tested:
        parts.append(section("The number to publish", tables.tested_table(report.tested)))
    training = [chart for chart in training_charts(report.training) if chart.name != "training-loss"]
    if "training-loss" in by_name:
        parts.append(section("Training", controls() + drawn("training-loss") + drawn(*(c.name for c in training))))
    if held_out:
        inside = drawn("validation-error", "difference-to-best") + tables.ranking(held_out)
        parts.append(section("Validation", inside))
    if "overtraining" in by_name:
        parts.append(section("Over-training", drawn("overtraining")))
    if behind:
        inside = drawn("predicted-against-true", "error-by-price", "coverage")
        inside += tables.coverage(behind) if behind.breakdown.coverage else ""
        parts.append(section("Behind the number", inside))
        if behind.breakdown.categories:
            parts.append(section("Categories", tables.categories(behind)))
        parts.append(section("Worst items", tables.worst_items(behind)))
    parts.append(section("The run", tables.pairs(report.facts)))
    parts.append(folded("Settings", tables.pairs(report.settings)) + folded("Versions", tables.pairs(report.versions)))
    return page(report.name, report.status, "".join(parts), charts), charts


def run_charts(report: RunReport) -> list[Chart]:
    """The charts of one run for which there is something to draw."""
    charts = training_charts(report.training)
    if report.held_out:
        charts.append(error_chart(report.held_out))
        if difference := difference_chart(report.held_out):
            charts.append(difference)
    if overtraining := overtraining_chart(report.training, report.held_out):
        charts.append(overtraining)
    return [*charts, *(answer_charts(report.behind) if report.behind else [])]


def page(title: str, subtitle: str, body: str, charts: Sequence[Chart]) -> str:
    """A whole page around `body`, which is HTML; the title and the line under it are text."""
    scripts = [plotly_js(), _file("page.js")]
    return Template(_file("page.html")).substitute(
        title=escaped(title),
        subtitle=escaped(subtitle),
        policy=_policy(scripts),
        style=_file("page.css"),
        body=body,
        data=as_json(charts, dark=DARK),
        plotly=scripts[0],
        script=scripts[1],
    )


def _policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy: these scripts and no other, pictures that the page makes itself, and no connection.
    plotly sets the styles of what it draws.
    """
    digests = (b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def section(title: str, inside: str) -> str:
    """A part of the page under a heading; `inside` is HTML."""
    return f"<section><h2>{escaped(title)}</h2>{inside}</section>"


def folded(title: str, inside: str) -> str:
    """A part that is opened when it is wanted."""
    return f"<details><summary>{escaped(title)}</summary>{inside}</details>"


def notes_html(notes: Sequence[str]) -> str:
    """What the reader should know first."""
    return "".join(f'<p class="notice">{escaped(note)}</p>' for note in notes)


def controls() -> str:
    """The slider of the smoothing, and the switch of the rule of thumb."""
    return (
        '<div class="controls"><label>Smoothing <input type="range" id="smoothing" min="0" max="0.99" step="0.01" '
        f'value="{SMOOTHING}"> <output id="smoothing-value" for="smoothing">{SMOOTHING:.2f}</output></label>'
        '<label><input type="checkbox" id="rule"> 1.5 rule of thumb</label></div>'
    )


def charts_html(charts: Sequence[Chart]) -> str:
    """The places where charts will be drawn, small ones side by side."""
    if not charts:
        return ""
    beside = " beside" if any(chart.size == "tall" for chart in charts) else ""
    return f'<div class="charts{beside}">{"".join(map(_place, charts))}</div>'


def _place(chart: Chart) -> str:
    note = f'<p class="note">{escaped(chart.note)}</p>' if chart.note else ""
    title = escaped(chart.title)
    return (
        f'<figure class="chart {chart.size}"><figcaption><h3>{title}</h3>{note}</figcaption>'
        f'<div class="plot" data-chart="{escaped(chart.name)}" role="img" aria-label="{title}"></div></figure>'
    )


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
