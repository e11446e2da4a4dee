"""`pricer report`: what is known of a run as one page that can be sent to anybody, and of several runs as another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pricer.commands.parts.report_data import load_report, load_summary
from pricer.errors import PricerError
from pricer.stores.files import write_atomically
from pricer.stores.runs import RUNS, find_run
from pricer.views.report.figures import Chart, write_pictures
from pricer.views.report.page import comparison_page, run_page

# The charts that tell the story of a run, for a README or a model card.
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
    """What `pricer report` returns: where the page is, and the pictures. `problem`: there are no pictures, but the page
    stands all the same.
    """

    page: Path
    pictures: tuple[Path, ...] = ()
    problem: PricerError | None = None


def report(names: Sequence[str], output: Path | None, note: Callable[[str], None], *, pictures: bool) -> Reported:
    """Write the page of a run (no name: the newest), or of several over each other, into the run's folder, `runs/`, or
    `output`; with `pictures`, its main charts beside it. `note` is told what is missing in it.
    """
    runs = [find_run(name) for name in names] or [find_run(None, note=note)]
    if output is not None and output.is_dir():
        raise PricerError(f"{output} is a folder", f"--output {output / 'report.html'}")
    reports = [load_report(run) if len(runs) == 1 else load_summary(run) for run in runs]
    for one in reports:
        for missing in one.notes:
            note(missing if len(reports) == 1 else f"{one.name}: {missing}")
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
    """Pictures in a folder beside the page, called as it is."""
    folder = page.with_suffix("") if page.suffix else page.with_name(f"{page.name}-charts")
    return write_pictures([chart for chart in charts if chart.name in _PICTURES], folder)
