"""The page: charts, tables and the script that draws them, as one file that loads nothing from elsewhere."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pricer.views.formatting import visible
from pricer.views.report import tables
from pricer.views.report.figures import DARK, SMOOTHING, Chart, as_json, plotly_js
from pricer.views.report.predictions import prediction_charts
from pricer.views.report.several_runs import error_chart, loss_charts, same_items
from pricer.views.report.training import training_charts
from pricer.views.report.validation import difference_chart, overtraining_chart
from pricer.views.report.validation import error_chart as validation_chart
from pricer.views.report.values import RunReport

_TEMPLATES = Path(__file__).parent / "templates"


def run_page(report: RunReport) -> tuple[str, list[Chart]]:
    """The page of one run, and the charts in it: those for which there is something to draw."""
    held_out, details = report.held_out, report.details
    training = training_charts(report.training)
    validation = list(filter(None, [validation_chart(held_out), difference_chart(held_out)])) if held_out else []
    overtraining = list(filter(None, [overtraining_chart(report.training, held_out)]))
    predictions = prediction_charts(details) if details else []
    charts = [*training, *validation, *overtraining, *predictions]
    page = _render(
        "run.html",
        report.name,
        report.status,
        charts,
        report=report,
        training=training,
        validation=validation,
        overtraining=overtraining,
        predictions=predictions,
        tiles=tables.tiles(report),
        tested=report.tested and tables.tested_table(report.tested),
        ranking=held_out and tables.ranking(held_out),
        coverage=details and tables.coverage(details),
        categories=details and tables.categories(details),
        worst=details and tables.worst_items(details),
    )
    return page, charts


def comparison_page(reports: Sequence[RunReport]) -> tuple[str, list[Chart]]:
    """The page of several runs, and the charts in it."""
    comparable, others = same_items(reports)
    notes = [
        f"{report.name} was scored on other items than {comparable[0].name}: the two errors cannot be compared, so it "
        "is not in the chart of errors."
        for report in others
    ]
    losses, errors = loss_charts(reports), [error_chart(comparable)] if comparable else []
    page = _render(
        "several_runs.html",
        f"{len(reports)} runs",
        ", ".join(report.name for report in reports),
        [*losses, *errors],
        notes=notes,
        reports=reports,
        losses=losses,
        errors=errors,
        side_by_side=tables.side_by_side(reports),
        differing_settings=tables.differing_settings(reports),
    )
    return page, [*losses, *errors]


def _render(template: str, title: str, subtitle: str, charts: Sequence[Chart], **values: Any) -> str:
    scripts = [plotly_js(), _file("page.js")]
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            subtitle=subtitle,
            policy=_policy(scripts),
            style=_file("page.css"),
            data=as_json(charts, dark=DARK),
            scripts=scripts,
            smoothing=SMOOTHING,
            **values,
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
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


def _file(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
