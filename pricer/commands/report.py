"""`pricer report`: one HTML page about a run, or about several runs, that can be sent to anybody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pricer.commands.parts.report_data import load_report, load_summary
from pricer.errors import PricerError
from pricer.stores.files import write_atomically
from pricer.stores.runs import RUNS, find_run
from pricer.views.report.figures import Chart, write_pictures
from pricer.views.report.page import comparison_page, run_page

# The main charts of a run, for a README or a model card.
_PICTURES = (
    "training-loss",
    "validation-error",
    "difference-to-best",
    "overtraining",
    "predicted-against-true",
    "error-by-price",
    "coverage",
)


@dataclass(frozen=True, slots=True)
class Reported:
    """The result of `pricer report`: the files of the page and of its pictures. `problem` says why there are no
    pictures; the page is written anyway.
    """

    page: Path
    pictures: tuple[Path, ...] = ()
    problem: PricerError | None = None


def report(names: Sequence[str], output: Path | None, note: Callable[[str], None], *, pictures: bool) -> Reported:
    """Write the page of one run (no name: the newest) or of several runs.

    It goes to `output`, or by default into the run's folder, for several runs into `runs/`. With `pictures`, the main
    charts are written beside it. `note` receives a line about everything that is missing in the page, and every doubt.
    """
    runs = [find_run(name) for name in names] or [find_run(None, note=note)]
    if output is not None and output.is_dir():
        raise PricerError(f"{output} is a folder", f"--output {output / 'report.html'}")
    reports = [load_report(run) if len(runs) == 1 else load_summary(run) for run in runs]
    for one in reports:
        for line in (*one.doubts, *one.notes):
            note(line if len(reports) == 1 else f"{one.name}: {line}")
    text, charts = run_page(reports[0]) if len(reports) == 1 else comparison_page(reports)
    page = output or (runs[0].folder / "report.html" if len(runs) == 1 else RUNS / "comparison.html")
    write_atomically(page, text)
    if not pictures:
        return Reported(page)
    try:
        return Reported(page, tuple(_draw(charts, page)))
    except PricerError as problem:
        return Reported(page, problem=problem)


def _draw(charts: Sequence[Chart], page: Path) -> list[Path]:
    """Write the pictures into a folder beside the page, with the same name."""
    folder = page.with_suffix("") if page.suffix else page.with_name(f"{page.name}-charts")
    return write_pictures([chart for chart in charts if chart.name in _PICTURES], folder)
