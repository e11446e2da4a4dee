"""The answer of `pricer pick`: the ranking, how sure it is, what was chosen, and its number on the test split."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from pricer.commands.pick import Picked
from pricer.core.comparison import Comparison, Difference
from pricer.core.selection import Selection
from pricer.redaction import hub_address
from pricer.views import terminal
from pricer.views.formatting import (
    candidate_name,
    difference,
    difference_to_best,
    interval,
    label,
    ordinal,
    share,
    significance,
    step_list,
    unit,
    value,
    with_half_width,
    with_interval,
)
from pricer.views.terminal_tables import evaluation_table

if TYPE_CHECKING:  # it imports torch
    from pricer.commands.parts.confirmation import Confirmed


def picked(result: Picked, *, as_json: bool, confirmed: "Confirmed | None" = None) -> None:
    """The ranking and the choice, or everything as JSON."""
    selection = result.selection
    if as_json:
        skipped = {"dropped": list(result.dropped), "unscored": list(result.unscored)}
        confirmation = {"confirmation": asdict(confirmed.confirmation)} if confirmed else {}
        terminal.record({"run": result.run.name, **asdict(selection.record), **skipped, **confirmation})
        return
    evaluation_table(f"{result.run.name}: ranking by {selection.metric}", selection.ranking)
    if selection.comparison:
        _differences_table(selection, selection.comparison)
    terminal.line(_choice(selection))
    if selection.comparison:
        terminal.line(significance(selection.comparison))
        terminal.line(_corrected(selection, selection.comparison))
    no_price = selection.chosen.metric("no_price").value
    if no_price:
        terminal.note(
            f"the chosen one gives no price for {share(no_price)} of the items; the train median is imputed for those"
        )
    if result.dropped:
        terminal.note(f"dropped in a race (by mae), so not in the ranking: steps {step_list(result.dropped)}")
    if result.unscored:
        terminal.note(f"without an evaluation, so not in the ranking: steps {step_list(result.unscored)}")
    if result.card:
        terminal.note(f"tag best and model card: {hub_address(result.card)}")


def next_step(result: Picked) -> None:
    """What to do with a pick that was not confirmed."""
    command = f"pricer pick --confirm{result.selection.options} --run {result.run.name}"
    terminal.note(f"next, for the number to publish: {command}")


def confirmation(result: Picked, confirmed: "Confirmed") -> None:
    """The number on the test split beside what validation said, and whether it is an untouched one."""
    selection, found = result.selection, confirmed.confirmation
    validation = f"validation said {_chosen_value(selection)}"
    if selection.comparison:
        validation += f", corrected {value(selection.comparison.corrected, selection.metric)}"
    on_test = with_half_width(found.metric) if unit(selection.metric) == "dollars" else with_interval(found.metric)
    terminal.line(f"confirmed: {label(selection.metric)} {on_test} on {found.metric.n:,} test items; {validation}")
    others = ", ".join(confirmed.others)
    if confirmed.is_new and others:
        terminal.note(
            f"the test split of this run has been looked at before ({others}): this number is the "
            f"{ordinal(found.look)} look, not an untouched one"
        )
    if not confirmed.is_new:
        terminal.note("this number was there already and is shown again, which is no new look at the test split")
        if others:
            terminal.note(f"the test split of this run has been looked at otherwise, too ({others})")


def _differences_table(selection: Selection, comparison: Comparison) -> None:
    compared = [(e.name, comparison.difference(e.candidate)) for e in selection.ranking]
    rows = [_row(name, one, selection.metric) for name, one in compared if one]
    columns = ["checkpoint", "worse than the best by", "significant", "probability best"]
    terminal.table(f"Paired by item: 95 % intervals, {comparison.resamples:,} resamples", columns, rows)


def _row(name: str, one: Difference, metric: str) -> list[str]:
    significant = "" if one.is_of_best else "yes" if one.is_significant else "no"
    return [name, difference_to_best(one, metric), significant, share(one.p_best)]


def _choice(selection: Selection) -> str:
    line = f"best: {candidate_name(selection.candidate)} ({(selection.candidate.id or '')[:7]})"
    if selection.margin is None:
        return line
    return f"{line}, {difference(selection.margin, selection.metric)} better than the runner-up"


def _corrected(selection: Selection, comparison: Comparison) -> str:
    metric = selection.metric
    return (
        f"{metric} of {candidate_name(selection.candidate)}: {_chosen_value(selection)} on the items that chose it; "
        f"corrected for the choice {value(comparison.corrected, metric)} "
        f"(95 %: {interval(comparison.corrected_interval, metric)})"
    )


def _chosen_value(selection: Selection) -> str:
    return value(selection.chosen.metric(selection.metric).value, selection.metric)
