"""Tables and tiles of the page, as text that the templates put into HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pricer.core.evaluation import Evaluation
from pricer.core.metrics import METRICS
from pricer.views.formatting import (
    difference_to_best,
    dollars,
    half_width,
    interval,
    label,
    looks,
    scored_items,
    share,
    share_with_interval,
    shorten,
    significance,
    value,
    with_half_width,
)
from pricer.views.report.values import HeldOut, PredictionDetails, RunReport, Tested

# A table of more columns is set closer, and its first column stays where it is when the others are scrolled.
_MANY = 10


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first column is text, the others are numbers; with `text_last` the last one is text, too. `kinds`
    are the CSS classes of the rows, empty for none. `note` is a line about the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    kinds: Sequence[str] = ()
    text_last: bool = False
    note: str = ""

    @property
    def is_dense(self) -> bool:
        """Whether it has many columns."""
        return len(self.columns) > _MANY

    @property
    def css(self) -> list[str]:
        """The CSS class of each column."""
        last = len(self.columns) - 1
        return ["text" if i == 0 or (self.text_last and i == last) else "number" for i in range(len(self.columns))]


@dataclass(frozen=True, slots=True)
class Tile:
    """A number that stands out: what it is, the number, what is said in small print `after` it, a line about it, and
    perhaps one `more`.
    """

    what: str
    number: str
    about: str
    kind: str = ""
    after: str = ""
    more: str = ""


def tiles(report: RunReport) -> list[Tile]:
    """The numbers at the top: the one to publish apart from the one that took part in the choice."""
    found = []
    if report.tested:
        mae, others = report.tested.evaluation.metric("mae"), report.tested.other_looks
        verdict = "not an untouched number" if others else "the number to publish"
        about = f"{report.tested.evaluation.name} on {mae.n:,} test items, {looks(others)}: {verdict}"
        found.append(Tile("Test error", dollars(mae.value), about, "publish", half_width(mae.interval)))
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
    chosen = held_out.chosen
    mae = chosen.metric("mae")
    if held_out.picked:
        about = f"{chosen.name} on {mae.n:,} items that took part in the choice: not the number to publish"
    else:
        about = f"{chosen.name}, the lowest so far on {mae.n:,} items; nothing is picked yet"
    after, more = half_width(mae.interval), _corrected(held_out)
    found = [Tile("Validation error", dollars(mae.value), about, after=after, more=more)]
    shown = tested.evaluation if tested else chosen
    baselines = tested.baselines if tested else held_out.baselines
    if baselines:
        best = min(baselines, key=lambda e: e.metric("mae").value or 0.0)
        bar, own = best.metric("mae").value, shown.metric("mae").value
        assert bar is not None  # means of at least one
        assert own is not None
        change = own / bar - 1 if bar else 0.0
        number = f"{abs(change):.0%} {'better' if change < 0 else 'worse'}"
        which = "test" if tested else "validation"
        about = f"than the best baseline, {best.name}: {dollars(bar)} on the same {which} items"
        found.append(Tile("Compared", number, about))
    hits, unparsed = shown.metric("hit_rate").value, shown.metric("no_price").value
    about = f"within $40 or 20 % of the price; {share(unparsed)} of the answers have no price"
    found.append(Tile("Hits", share(hits), about))
    return found


def _corrected(held_out: HeldOut) -> str:
    """What the metric that chose would be on other items; nothing where that is not known."""
    if held_out.comparison is None:
        return ""
    metric, comparison = held_out.metric, held_out.comparison
    what = "" if metric == "mae" else f"{label(metric)} "
    corrected = f"{value(comparison.corrected, metric)} ({interval(comparison.corrected_interval, metric)})"
    return _breaking(f"{what}corrected for the choice: {corrected}")


def ranking(held_out: HeldOut) -> Table:
    """The checkpoints, best first by the metric of the choice, and the baselines below them. A dot marks what is not
    significantly different from the best.
    """
    sign = 1 if METRICS[held_out.metric].better == "lower" else -1

    def place(evaluation: Evaluation) -> tuple[float, int]:
        found = evaluation.metric(held_out.metric).value
        return (math.inf if found is None else sign * found), evaluation.candidate.step or 0

    def kind(evaluation: Evaluation) -> str:
        if evaluation is held_out.chosen:
            return "chosen"
        difference = held_out.difference(evaluation)
        return "alike" if difference and not difference.is_significant else ""

    ranked = sorted(held_out.checkpoints, key=place)
    rows = [*ranked, *held_out.baselines]
    columns, cells = _evaluations(rows)
    if held_out.comparison:
        # Beside the metric that they are about.
        after = columns.index(label(held_out.metric)) + 1
        columns[after:after] = ["worse than the best by", "probability best"]
        for row, evaluation in zip(cells, rows, strict=True):
            one = held_out.difference(evaluation)
            row[after:after] = [difference_to_best(one, held_out.metric), share(one.p_best)] if one else ["", ""]
    return Table(
        columns,
        [[_breaking(cell) for cell in row] for row in cells],
        [kind(e) for e in ranked] + ["baseline"] * len(held_out.baselines),
        note=f"{significance(held_out.comparison)}." if held_out.comparison else "",
    )


def _breaking(cell: str) -> str:
    """A number in two lines where there is no room for one, its interval in the second."""
    return cell.replace("± ", "±\u00a0").replace(" to ", "\u00a0to\u00a0")


def tested_table(tested: Tested) -> Table:
    """The chosen checkpoint and the baselines on test items."""
    columns, cells = _evaluations([tested.evaluation, *tested.baselines])
    return Table(columns, cells, ["chosen", *["baseline"] * len(tested.baselines)])


def _evaluations(evaluations: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows."""
    columns = ["checkpoint", "epoch", *map(label, METRICS), "n"]
    rows = [
        [
            e.name,
            "" if e.candidate.epoch is None else f"{e.candidate.epoch:.2f}",
            *(with_half_width(e.metric(name)) for name in METRICS),
            f"{e.metric('mae').n:,}",
        ]
        for e in evaluations
    ]
    return columns, rows


def worst_items(details: PredictionDetails) -> Table:
    """The items with the largest errors."""
    rows = [
        [
            dollars(miss.error, signed=True),
            dollars(miss.price),
            dollars(miss.estimate),
            shorten(miss.text, 220) if details.texts else "(the data could not be read)",
        ]
        for miss in details.breakdown.worst
    ]
    note, tail = (
        f"{details.evaluation.name}: {scored_items(details.evaluation.spec, len(details.scores))}.",
        (details.breakdown.tail),
    )
    if tail.share_of_error is not None:
        worst = f"The worst {tail.n:,} items ({share(tail.share_of_items)})"
        note += f" {worst} carry {tail.share_of_error:.0%} of the error."
    return Table(["error", "price", "estimate", "item"], rows, text_last=True, note=note)


def categories(details: PredictionDetails) -> Table:
    """The error in each category, the largest category first."""
    rows = [
        [
            shorten(group.name or "(none)", 60),
            f"{group.n:,}",
            dollars(group.mae) + half_width(group.mae_interval),
            share(group.hit_rate),
            f"{group.no_price:,}",
        ]
        for group in details.breakdown.categories
    ]
    return Table(["category", "n", "MAE", "hits", "no price"], rows)


def coverage(details: PredictionDetails) -> Table:
    """What share of the prices the intervals hold, and how wide they are."""
    rows = []
    for report in details.breakdown.coverage:
        row = [f"{report.level:.0%}"]
        for found in (report.conformal, report.raw):
            row += (
                ["–", "–"]
                if found is None
                else [
                    share_with_interval(found.share, found.interval),
                    dollars(found.mean_width),
                ]
            )
        rows.append(row)
    return Table(["interval", "covered", "mean width", "raw covered", "raw mean width"], rows)


def side_by_side(reports: Sequence[RunReport]) -> Table:
    """Several runs, each with its chosen checkpoint and its errors."""
    rows = []
    for report in reports:
        held_out, tested, loss = report.held_out, report.tested, report.training.loss.value
        if held_out:
            chosen = f"{held_out.chosen.candidate.step:,}{'' if held_out.picked else ' (not picked)'}"
            errors = [chosen, with_half_width(held_out.chosen.metric("mae"))]
        rows.append(
            [
                report.name,
                *(errors if held_out else ["–", "–"]),
                with_half_width(tested.evaluation.metric("mae")) if tested else "–",
                share(held_out.chosen.metric("hit_rate").value) if held_out else "–",
                f"{loss[-1]:.3f}" if len(loss) else "–",
                report.status,
            ]
        )
    columns = ["run", "checkpoint", "validation MAE", "test MAE", "hits", "last loss", "status"]
    return Table(columns, rows, text_last=True)


def differing_settings(reports: Sequence[RunReport]) -> Table:
    """The settings and facts that are not the same in all runs."""
    known = [dict([*report.settings, *report.facts]) for report in reports]
    names = dict.fromkeys(name for settings in known for name in settings)
    rows = [
        [name, *(settings.get(name, "–") for settings in known)]
        for name in names
        if len({settings.get(name) for settings in known}) > 1
    ]
    return Table(["", *(report.name for report in reports)], rows)
