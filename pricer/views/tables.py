"""Tables of text cells, for the terminal and for the page of a report."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pricer.core.intervals import LEVELS
from pricer.core.metrics import METRICS
from pricer.core.units import PriceUnit
from pricer.views.formatting import (
    confidence_set,
    difference_to_best,
    error,
    error_with_half_width,
    label,
    price,
    scored_items,
    share,
    share_with_interval,
    shorten,
    with_half_width,
)

if TYPE_CHECKING:
    from pricer.core.breakdowns import Breakdown, Group, NearCopies
    from pricer.core.calibration import CalibrationGroup
    from pricer.core.checkpoints import Failure
    from pricer.core.evaluation import Evaluation
    from pricer.views.report.values import HeldOut, PredictionDetails, RunReport

_ABOUT_BANDS = (
    "In 80%, in 95%: the share of prices in their interval. A correction promises it for its own groups of items. "
    "No method can promise it for a band of the true price, which nobody knows when the interval is made."
)

# The page shows a table with more columns in a narrower layout, and keeps its first column in place while scrolling.
_MANY = 10


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column is text and whose other columns are numbers. With `text_last` the last column is text,
    too. `kinds` has the CSS class of each row; empty: the rows have none. `note` is a line about the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_last: bool = False
    kinds: Sequence[str] = ()
    note: str = ""

    @property
    def is_dense(self) -> bool:
        """Whether it has many columns."""
        return len(self.columns) > _MANY

    @property
    def is_text(self) -> list[bool]:
        """Whether each column is text."""
        last = len(self.columns) - 1
        return [place == 0 or (self.text_last and place == last) for place in range(len(self.columns))]


def evaluation_table(evaluations: "Sequence[Evaluation]", chosen: "Evaluation | None" = None) -> Table:
    """Evaluations by row and metrics by column. The `chosen` one and the baselines have their own kinds."""
    rows = [
        [
            e.name,
            "" if e.candidate.epoch is None else f"{e.candidate.epoch:.2f}",
            *(with_half_width(e.metric(name), e.spec.price_unit) for name in METRICS),
            f"{e.metric('mae').n:,}",
        ]
        for e in evaluations
    ]
    kinds = ["chosen" if e is chosen else "baseline" if e.candidate.is_baseline else "" for e in evaluations]
    return Table(["checkpoint", "epoch", *map(label, METRICS), "n"], rows, kinds=kinds)


def ranking(held_out: "HeldOut") -> Table:
    """The checkpoints, best first by the choosing metric, and the baselines below them. Checkpoints that may
    be the truly best one have the kind `alike`.
    """
    metric, chosen, comparison = held_out.metric, held_out.chosen, held_out.comparison
    sign = 1 if METRICS[metric].better == "lower" else -1

    def place(evaluation: "Evaluation") -> tuple[float, int]:
        value = evaluation.metric(metric).value
        return (math.inf if value is None else sign * value), evaluation.candidate.step or 0

    shown = [*sorted(held_out.checkpoints, key=place), *held_out.baselines]
    table = evaluation_table(shown, chosen)
    columns, rows, kinds = list(table.columns), [list(row) for row in table.rows], list(table.kinds)
    if comparison:
        # The columns of the comparison follow the column of their metric.
        after = columns.index(label(metric)) + 1
        columns[after:after] = ["worse than the best other", "probability best"]
        for number, evaluation in enumerate(shown):
            one = held_out.difference(evaluation)
            rows[number][after:after] = (
                [difference_to_best(one, metric, chosen.spec.price_unit), share(one.p_best)] if one else ["", ""]
            )
            if one and one.may_be_best and evaluation is not chosen:
                kinds[number] = "alike"
    cells = [[in_two_lines(cell) for cell in row] for row in rows]
    note = f"{confidence_set(comparison, metric, chosen.spec.price_unit)}." if comparison else ""
    return Table(columns, cells, kinds=kinds, note=note)


def in_two_lines(cell: str) -> str:
    """The cell with non-breaking blanks inside an interval: a narrow cell breaks only before the interval."""
    return cell.replace("± ", "±\u00a0").replace(" to ", "\u00a0to\u00a0")


def groups_table(name: str, groups: "Sequence[Group]", excerpt: Callable[[str], str], unit: PriceUnit) -> Table:
    """The errors of groups of items, price bands or categories, and how often their intervals contain the price.
    `excerpt` shortens the names of categories.
    """
    levels = LEVELS if any(group.coverage for group in groups) else ()
    rows = [
        [
            unit.short_range(group.lowest, group.highest) if name == "price" else excerpt(group.name or "(none)"),
            f"{group.n:,}",
            error_with_half_width(group.mae, group.mae_interval, unit),
            share(group.mae / group.median if group.median else None),
            share(group.hit_rate),
            f"{group.no_price:,}",
            *(share_with_interval(coverage.share, coverage.interval) for coverage in group.coverage),
        ]
        for group in groups
    ]
    columns = [name, "n", "MAE", "of the median price", "hits", "no price", *(f"in {level:.0%}" for level in levels)]
    return Table(columns, rows, note=_ABOUT_BANDS if levels and name == "price" else "")


def describe_failures(failed: "Sequence[Failure]") -> list[str]:
    """A line for each reason why checkpoints could not be scored, with the names of all of them."""
    by_reason: dict[str, list[Failure]] = {}
    for failure in failed:  # a reason may name the checkpoint, for example in the path of its folder
        by_reason.setdefault(failure.reason.replace(failure.name, ""), []).append(failure)
    return [f"{', '.join(one.name for one in alike)}: {alike[0].reason}" for alike in by_reason.values()]


def describe_near_copies(found: "NearCopies", n: int, unit: PriceUnit) -> str:
    """What the items with a near-copy among the training items change, in a sentence or two. `n` is the number of all
    scored items.
    """
    have = "item has" if found.n == 1 else "items have"
    counted = f"{found.n:,} of {n:,} {have} a near-copy among the training items."
    if found.others is None:
        return counted
    error = error_with_half_width(found.others.mae, found.others.mae_interval, unit)
    return f"{counted} On the other {found.others.n:,}, the mean absolute error is {error}."


def worst_table(breakdown: "Breakdown", excerpt: Callable[[str], str], unit: PriceUnit) -> Table:
    """The items with the largest errors."""
    rows = [
        [unit.error(miss.error, signed=True), unit.price(miss.price), price(miss.estimate, unit), excerpt(miss.text)]
        for miss in breakdown.worst
    ]
    return Table(["error", "price", "estimate", "item"], rows, text_last=True)


def worst_items(details: "PredictionDetails") -> Table:
    """The items with the largest errors, with a note about what was measured and whether descriptions are missing."""
    spec, tail = details.evaluation.spec, details.breakdown.tail
    note = f"{details.evaluation.name}: {scored_items(spec, len(details.scores))}."
    if tail.share_of_error is not None:
        note += (
            f" The worst {tail.n:,} items ({share(tail.share_of_items)}) carry {tail.share_of_error:.0%} of the error."
        )
    known = details.texts is not None
    named = (lambda text: shorten(text, 220)) if known else (lambda _: "(the data could not be read)")
    table = worst_table(details.breakdown, named, spec.price_unit)
    return replace(table, note=note)


def coverage_table(breakdown: "Breakdown", unit: PriceUnit) -> Table:
    """Coverage and mean width of the intervals, corrected and raw."""
    rows = []
    for report in breakdown.coverage:
        row = [f"{report.level:.0%}"]
        for found in (report.conformal, report.raw):
            row += (
                [share_with_interval(found.share, found.interval), error(found.mean_width, unit)]
                if found
                else ["–", "–"]
            )
        rows.append(row)
    return Table(["interval", "covered", "mean width", "raw covered", "raw mean width"], rows)


def corrected_groups_table(breakdown: "Breakdown", excerpt: Callable[[str], str], unit: PriceUnit) -> Table:
    """How often corrected intervals contain the price, by the group of validation items that corrected them. Empty if
    there is only one.
    """
    rows = [
        [
            _name_group(one.group, excerpt, unit),
            f"{one.group.n:,}",
            f"{one.n:,}",
            *(share_with_interval(coverage.share, coverage.interval) for coverage in one.coverage),
        ]
        for one in breakdown.corrected_by
    ]
    columns = ["estimate", "corrected on", "n", *(f"in {level:.0%}" for level in LEVELS)]
    return Table(columns, rows if len(rows) > 1 else [])


def _name_group(group: "CalibrationGroup", excerpt: Callable[[str], str], unit: PriceUnit) -> str:
    if group.above is not None and group.up_to is not None:
        band = unit.short_range(group.above, group.up_to)
    elif group.above is not None:
        band = f"above {unit.short_price(group.above)}"
    else:
        band = "any" if group.up_to is None else f"up to {unit.short_price(group.up_to)}"
    return band if group.category is None else f"{excerpt(group.category)}: {band}"


def side_by_side(reports: "Sequence[RunReport]") -> Table:
    """Several runs, each with its chosen checkpoint and its errors."""
    rows = []
    for report in reports:
        held_out, tested, loss = report.held_out, report.tested, report.training.loss.value
        checkpoint = validation = hits = "–"
        if held_out:
            chosen = held_out.chosen
            checkpoint = f"{chosen.candidate.step:,}{'' if held_out.picked else ' (not picked)'}"
            validation, hits = (
                with_half_width(chosen.metric("mae"), report.unit),
                share(chosen.metric("hit_rate").value),
            )
        test = with_half_width(tested.evaluation.metric("mae"), report.unit) if tested else "–"
        last_loss = f"{loss[-1]:.3f}" if len(loss) else "–"
        rows.append([report.name, checkpoint, validation, test, hits, last_loss, report.status])
    columns = ["run", "checkpoint", "validation MAE", "test MAE", "hits", "last loss", "status"]
    return Table(columns, rows, text_last=True)


def differing_settings(reports: "Sequence[RunReport]") -> Table:
    """The settings and facts that differ between the runs."""
    known = [dict([*report.settings, *report.facts]) for report in reports]
    names = dict.fromkeys(name for settings in known for name in settings)
    rows = [[name, *(settings.get(name, "–") for settings in known)] for name in names]
    return Table(["", *(report.name for report in reports)], [row for row in rows if len(set(row[1:])) > 1])
