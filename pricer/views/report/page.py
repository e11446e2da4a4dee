"""The page: tiles, charts, tables and the script that draws them, in one file that loads nothing from the network."""

import hashlib
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pricer.views import tables
from pricer.views.formatting import (
    error,
    half_width,
    hit_limits,
    interval,
    label,
    looks,
    share,
    shorten,
    value,
    visible,
)
from pricer.views.report.figures import DARK, SERIES, SMOOTHING, Chart, as_json, plotly_js
from pricer.views.report.predictions import prediction_charts
from pricer.views.report.training import several_training_charts, training_charts
from pricer.views.report.validation import difference_chart, error_chart, overtraining_chart, several_error_chart
from pricer.views.report.values import HeldOut, RunReport, Tested, same_items
from pricer.views.verdicts import NOTE, describe_verdict

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Tile:
    """A prominent number with a heading and a line about it. `after` is small print behind the number, `more` an
    optional second line. `kind` is a CSS class.
    """

    what: str
    number: str
    about: str
    kind: str = ""
    after: str = ""
    more: str = ""


def run_page(report: RunReport) -> tuple[bytes, list[Chart]]:
    """The page of one run and its charts. Charts without values are left out."""
    held_out, tested, details = report.held_out, report.tested, report.details
    sections = {
        "training": training_charts(report.training),
        "validation": [*filter(None, [error_chart(held_out), difference_chart(held_out)])] if held_out else [],
        "overtraining": [*filter(None, [overtraining_chart(report.training, held_out, report.unit)])],
        "predictions": prediction_charts(details) if details else [],
    }
    drawn = [chart for group in sections.values() for chart in group]
    page = _render(
        "run.html",
        report.name,
        report.status,
        drawn,
        report=report,
        sections=sections,
        verdicts=[describe_verdict(one, report.unit) for one in report.verdicts],
        verdict_note=NOTE,
        tiles=tiles(report),
        tested=tested and tables.evaluation_table([tested.evaluation, *tested.baselines], tested.evaluation),
        ranking=held_out and tables.ranking(held_out),
        near_copies=details
        and details.breakdown.near_copies
        and tables.describe_near_copies(details.breakdown.near_copies, details.breakdown.overall.n, report.unit),
        coverage=details and tables.coverage_table(details.breakdown, report.unit),
        corrected_groups=details
        and tables.corrected_groups_table(details.breakdown, lambda name: shorten(name, 60), report.unit),
        price_bands=details and tables.groups_table("price", details.breakdown.price_bands, str, report.unit),
        categories=details
        and tables.groups_table("category", details.breakdown.categories, lambda name: shorten(name, 60), report.unit),
        worst=details and tables.worst_items(details),
    )
    return page, drawn


def comparison_page(reports: Sequence[RunReport]) -> tuple[bytes, list[Chart]]:
    """The page of several runs and its charts."""
    comparable, others = same_items(reports)
    notes = [
        f"{report.name} was scored on other items than {comparable[0].name}: the two errors cannot be compared, so it "
        "is not in the chart of errors."
        for report in others
    ]
    notes += [f"{report.name}: {doubt}" for report in reports for doubt in report.doubts]
    colors = dict(zip((report.name for report in reports), cycle(SERIES), strict=False))
    losses = several_training_charts(reports, colors)
    errors = [several_error_chart(comparable, colors)] if comparable else []
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


def tiles(report: RunReport) -> list[Tile]:
    """The numbers at the top. The test error is separate from the validation error, which took part in the choice."""
    found, unit = [], report.unit
    if report.tested:
        mae, others = report.tested.evaluation.metric("mae"), report.tested.other_looks
        verdict = "not an untouched number" if others else "the number to publish"
        about = f"{report.tested.evaluation.name} on {mae.n:,} test items, {looks(others)}: {verdict}"
        found.append(Tile("Test error", error(mae.value, unit), about, "publish", half_width(mae.interval, unit)))
    elif report.held_out and report.held_out.picked:
        about = f"the number to publish: pricer pick --confirm --run {report.name}"
        found.append(Tile("Test error", "not scored yet", about, "missing"))
    if report.held_out:
        found += _validation_tiles(report.held_out, report.tested)
    if len(report.training.loss):
        last = float(report.training.loss.value[-1])
        about = f"at step {int(report.training.loss.step[-1]):,}, the last that was logged"
        found.append(Tile("Training loss", "no number" if math.isnan(last) else f"{last:.3f}", about))
    return found


def _validation_tiles(held_out: HeldOut, tested: Tested | None) -> list[Tile]:
    chosen, unit = held_out.chosen, held_out.chosen.spec.price_unit
    mae = chosen.metric("mae")
    if held_out.picked:
        about = f"{chosen.name} on {mae.n:,} items that took part in the choice: not the number to publish"
    else:
        about = f"{chosen.name}, the lowest so far on {mae.n:,} items; nothing is picked yet"
    after, more = half_width(mae.interval, unit), _corrected(held_out)
    found = [Tile("Validation error", error(mae.value, unit), about, after=after, more=more)]
    shown = tested.evaluation if tested else chosen
    baselines = tested.baselines if tested else held_out.baselines
    if baselines:
        best = min(baselines, key=lambda e: e.metric("mae").value or 0.0)
        bar, own = best.metric("mae").value or 0.0, shown.metric("mae").value or 0.0
        change = own / bar - 1 if bar else 0.0
        number = f"{abs(change):.0%} {'better' if change < 0 else 'worse'}"
        which = "test" if tested else "validation"
        about = f"than the best baseline, {best.name}: {unit.error(bar)} on the same {which} items"
        found.append(Tile("Compared", number, about))
    unparsed = share(shown.metric("no_price").value)
    about = f"within {hit_limits(shown.spec.rule)} of the price; {unparsed} of the answers have no price"
    return [*found, Tile("Hits", share(shown.metric("hit_rate").value), about)]


def _corrected(held_out: HeldOut) -> str:
    """The value of the choosing metric corrected for the choice, in words; empty if unknown."""
    metric, comparison = held_out.metric, held_out.comparison
    if comparison is None:
        return ""
    what = "" if metric == "mae" else f"{label(metric)} "
    unit = held_out.chosen.spec.price_unit
    ends = interval(comparison.corrected_interval, metric, unit)
    corrected = f"{value(comparison.corrected, metric, unit)} ({ends})"
    return tables.in_two_lines(f"{what}corrected for the choice: {corrected}")


def _render(template: str, title: str, subtitle: str, charts: Sequence[Chart], **values: Any) -> bytes:
    # plotly.js has 5 MB. It does not go through the template, which would copy it as text of twice that size.
    scripts = [plotly_js(), (_TEMPLATES / "page.js").read_bytes()]
    text = (
        _environment()
        .get_template(template)
        .render(
            title=title,
            subtitle=subtitle,
            policy=_policy(scripts),
            style=(_TEMPLATES / "page.css").read_text(encoding="utf-8"),
            data=as_json(charts, dark=DARK),
            smoothing=SMOOTHING,
            **values,
        )
    )
    parts = [part for script in scripts for part in (b"<script>", script, b"</script>\n")]
    return b"".join([text.encode(), *parts, b"</body>\n</html>\n"])


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


def _policy(scripts: Sequence[bytes]) -> str:
    """A Content-Security-Policy that allows these scripts, pictures made by the page, and no connection. Inline styles
    are allowed because plotly uses them.
    """
    digests = (b64encode(hashlib.sha256(script).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
