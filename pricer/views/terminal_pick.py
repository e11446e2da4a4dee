"""Print the answers of `pricer pick`: the ranking, the choice, and its confirmation."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.redaction import hub_address
from pricer.views import tables, terminal
from pricer.views.formatting import (
    candidate_name,
    confidence_set,
    difference,
    difference_to_best,
    interval,
    kind,
    label,
    ordinal,
    share,
    step_list,
    value,
    with_half_width,
    with_interval,
)
from pricer.views.tables import Table
from pricer.views.terminal_evaluations import draw_errors, failed_record, show_evaluations

if TYPE_CHECKING:  # views must not import commands, and some of these import torch
    from pricer.commands.parts.publishing import Published
    from pricer.commands.pick import Confirmed, Picked
    from pricer.core.checkpoints import Checkpoint
    from pricer.core.selection import Selection


def picked(result: "Picked", *, as_json: bool, confirmed: "Confirmed | None" = None) -> None:
    """Print the ranking and the choice, or everything as JSON."""
    selection = result.selection
    if as_json:
        terminal.record(_pick_record(result, confirmed))
        return
    show_evaluations(f"{result.run.name}: ranking by {selection.metric}", selection.ranking)
    metric, comparison, name = selection.metric, selection.comparison, candidate_name(selection.candidate)
    unit = selection.chosen.spec.price_unit
    if comparison:
        compared = [(e.name, comparison.difference(e.candidate)) for e in selection.ranking]
        rows = [
            [
                candidate,
                difference_to_best(one, metric, unit),
                "yes" if one.may_be_best else "no",
                share(one.p_best),
            ]
            for candidate, one in compared
            if one
        ]
        columns = ["checkpoint", "worse than the best other", "may be the best", "probability best"]
        title = f"Paired by item: simultaneous 95 % intervals, {comparison.resamples:,} resamples"
        terminal.table(title, Table(columns, rows))
    margin = selection.margin
    lead = "" if margin is None else f", {difference(margin, metric, unit)} better than the runner-up"
    terminal.line(f"best: {name} ({(selection.candidate.id or '')[:7]}){lead}")
    if comparison:
        terminal.line(confidence_set(comparison, metric, unit))
        ends = interval(comparison.corrected_interval, metric, unit)
        terminal.line(
            f"{metric} of {name}: {_chosen_value(selection)} on the items that chose it; corrected for the choice "
            f"{value(comparison.corrected, metric, unit)} (95 %: {ends})"
        )
    if result.held_out:
        terminal.line(result.held_out.text)
    no_price = selection.chosen.metric("no_price").value
    if no_price:
        terminal.note(
            f"the chosen one gives no price for {share(no_price)} of the items; the train median is imputed for those"
        )
    _note_the_rest(result)


def _note_the_rest(result: "Picked") -> None:
    """Print which checkpoints are not in the ranking, and what the Hub got of the pick."""
    if result.dropped:
        terminal.note(f"dropped in a race (by mae), so not in the ranking: steps {step_list(result.dropped)}")
    for text in tables.describe_failures(result.failed):
        terminal.note(f"cannot be used, so not in the ranking: {text}")
    if result.unscored:
        terminal.note(f"without an evaluation, so not in the ranking: steps {step_list(result.unscored)}")
    if result.untagged:
        _explain_untagged(result, result.untagged)
    if result.published:
        _note_published(result.published)


def _note_published(published: "Published") -> None:
    changed = ", main and model card" if published.has_card else " and main" if published.is_on_main else ""
    terminal.note(f"tag best{changed}: {hub_address(published.repo)}")
    if published.left:
        terminal.note(published.left)


def _pick_record(result: "Picked", confirmed: "Confirmed | None") -> dict[str, Any]:
    """The choice as JSON values."""
    record = {"run": result.run.name, **asdict(result.selection.record)}
    record |= {"dropped": list(result.dropped), "unscored": list(result.unscored), **failed_record(result.failed)}
    if pick := result.untagged:
        record["untagged"] = {"repo": result.run.repo, "revision": pick.commit, "folder": pick.folder}
    record |= {"left": result.published.left} if result.published and result.published.left else {}
    record |= {"held_out": asdict(result.held_out)} if result.held_out else {}
    return record | ({"confirmation": asdict(confirmed.confirmation)} if confirmed else {})


def _explain_untagged(result: "Picked", checkpoint: "Checkpoint") -> None:
    """Print how to load a pick that could not be tagged, because its repository belongs to somebody else."""
    run = result.run
    terminal.note(f"no tag best: this account may not change {run.repo}")
    where = f'"{run.repo}", {checkpoint.loader_arguments}'
    terminal.note(f"to load the pick: PeftModel.from_pretrained(base, {where})")


def next_step(result: "Picked") -> None:
    """Print the next command for a pick that was not confirmed."""
    command = f"pricer pick --confirm{result.selection.options} --run {result.run.name}"
    terminal.note(f"next, for the number to publish: {command}")


def confirmation(result: "Picked", confirmed: "Confirmed") -> None:
    """Print the test result beside the validation result, and whether the test split was used before."""
    selection, found = result.selection, confirmed.confirmation
    unit = selection.chosen.spec.price_unit
    validation = f"validation said {_chosen_value(selection)}"
    if selection.comparison:
        validation += f", corrected {value(selection.comparison.corrected, selection.metric, unit)}"
    show = with_half_width if kind(selection.metric) == "price" else with_interval
    on_test = show(found.metric, unit)
    terminal.line(f"confirmed: {label(selection.metric)} {on_test} on {found.metric.n:,} test items; {validation}")
    if found.near_copies:
        terminal.line(tables.describe_near_copies(found.near_copies, found.metric.n, unit))
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


def _chosen_value(selection: "Selection") -> str:
    chosen = selection.chosen
    return value(chosen.metric(selection.metric).value, selection.metric, chosen.spec.price_unit)


def draw_pick(result: "Picked") -> None:
    """Draw the ranked checkpoints and the baseline on the same items, and mark the pick."""
    selection = result.selection
    beside = [
        e
        for e in result.run.evaluations.all()
        if e.spec.fingerprint == selection.spec_fingerprint and e.candidate.is_baseline
    ]
    draw_errors([*beside, *selection.ranking], selection.candidate.step)
