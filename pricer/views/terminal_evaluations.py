"""Print the answers of `pricer eval` and `pricer pick`: evaluations, the breakdown of one, and the choice."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.core.checkpoints import tag_name
from pricer.core.metrics import METRICS
from pricer.core.units import PriceUnit
from pricer.redaction import hub_address
from pricer.views import tables, terminal
from pricer.views.formatting import (
    candidate_name,
    difference,
    difference_to_best,
    error,
    error_with_half_width,
    interval,
    kind,
    label,
    ordinal,
    share,
    shorten,
    significance,
    step_list,
    value,
    with_half_width,
    with_interval,
)
from pricer.views.tables import Table

if TYPE_CHECKING:  # views must not import commands, and some of these import torch
    from pricer.commands.evaluate import Evaluated
    from pricer.commands.parts.publishing import Published
    from pricer.commands.pick import Confirmed, Picked
    from pricer.core.breakdowns import Breakdown
    from pricer.core.checkpoints import Checkpoint, Failure
    from pricer.core.evaluation import Evaluation
    from pricer.core.halving import RaceRecord
    from pricer.core.selection import Selection

# The columns that a narrow terminal leaves out, in this order: a cell that is cut to "$1…" is useless.
_SPARED = (*(metric.label for metric in reversed(METRICS.values()) if not metric.is_essential), "epoch")

# The baseline to draw as a line, and the maximum share by which it may widen the range of the curve.
_BASELINE, _NEAR = "tf-idf + ridge", 0.5


def evaluated(result: "Evaluated", *, as_json: bool) -> None:
    """Print the tables of `pricer eval`, or everything as JSON."""
    if as_json:
        evaluations = [{**asdict(e), "spec_fingerprint": e.spec.fingerprint} for e in result.evaluations]
        values = {"run": result.run.name, "n": result.n, "evaluations": evaluations, **_failed_record(result.failed)}
        values |= {"breakdown": asdict(result.breakdown)} if result.breakdown else {}
        if result.source is not None:
            values |= {"data": result.source, "data_revision": result.revision, "trained": result.trained}
        values |= {"held_out": asdict(result.held_out)} if result.held_out else {}
        terminal.record(values | ({"race": asdict(result.race)} if result.race else {}))
        return
    spec, unit = result.spec, result.spec.price_unit
    how = "greedy" if spec.estimator == "greedy" else f"by the {spec.estimator}"
    where = f"the {spec.split} split" if result.source is None else terminal.harmless(result.source)
    where += f" at {result.revision[:7]}" if result.revision else ""
    show_evaluations(f"{result.run.name}: {result.n:,} items of {where}, {how}", result.evaluations)
    if result.held_out:
        terminal.line(result.held_out.text)
    if known := [e for e in result.evaluations if e.estimators]:
        columns = ["checkpoint", *(metric.name for metric in known[0].estimators)]
        rows = [[e.name, *(error(metric.value, unit) for metric in e.estimators)] for e in known]
        terminal.table("MAE by estimator", Table(columns, rows))
    if result.race:
        _show_race(result.race, unit)
    _show_failed(result.failed)
    if any(e.metric("no_price").value for e in result.evaluations):
        median = unit.price(spec.fallback)
        terminal.line(f"For an answer without a price the train median, {median}, is imputed; it is never a hit.")
    if spec.split == "val":
        terminal.note(f"next: pricer pick --run {result.run.name}")
    if result.breakdown:
        show_breakdown(result.evaluations[-1].name, result.breakdown, unit)


def _failed_record(failed: "Sequence[Failure]") -> dict[str, Any]:
    """The checkpoints that could not be scored, for JSON. A reason may quote a file from outside."""
    return {"failed": [{**asdict(failure), "reason": terminal.harmless(failure.reason)} for failure in failed]}


def _show_failed(failed: "Sequence[Failure]") -> None:
    """Print the checkpoints that could not be scored, with the reasons, and a note that cannot be overlooked."""
    for text in tables.describe_failures(failed):
        terminal.line(f"not scored: {text}")
    if failed:
        what = "1 checkpoint" if len(failed) == 1 else f"{len(failed):,} checkpoints"
        terminal.note(f"WARNING: {what} could not be scored, and only the others are compared")


def show_evaluations(title: str, evaluations: "Sequence[Evaluation]") -> None:
    """Print evaluations by row and metrics by column. A narrow terminal shows only the most important metrics."""
    terminal.table(title, tables.evaluation_table(evaluations), spared=_SPARED)


def _show_race(race: "RaceRecord", unit: PriceUnit) -> None:
    """Print which checkpoints dropped out of a race, in that order, and the work that this saved."""
    if race.dropped:
        rows = [[one.name, f"{one.n:,}", unit.error(one.margin), tag_name(one.leader)] for one in race.dropped]
        columns = ("dropped", "after items", "behind by", "leader")
        terminal.table(f"Race within {100 * race.budget:g} % of the work", Table(columns, rows))
    terminal.line(f"{100 * (1 - race.share_of_work):.0f} % of the work saved")


def show_breakdown(name: str, breakdown: "Breakdown", unit: PriceUnit) -> None:
    """Print the breakdown of the evaluation `name`: error by price and category, intervals, worst items."""
    terminal.table(f"{name}: error by price", tables.groups_table("price", breakdown.price_bands, excerpt, unit))
    if breakdown.categories:
        by_category = tables.groups_table("category", breakdown.categories, excerpt, unit)
        terminal.table(f"{name}: error by category", by_category)
    overall, tail = breakdown.overall, breakdown.tail
    worst = "worst item carries" if tail.n == 1 else f"worst {tail.n:,} items carry"
    carried = "" if tail.share_of_error is None else f"; the {worst} {tail.share_of_error:.0%} of it"
    bias = error_with_half_width(overall.bias, overall.bias_interval, unit, signed=True)
    terminal.line(f"bias {bias} (estimate − price), mean absolute error {unit.error(overall.mae)}{carried}")
    if breakdown.near_copies:
        terminal.line(tables.describe_near_copies(breakdown.near_copies, overall.n, unit))
    if breakdown.coverage:
        corrected_on = breakdown.calibrated_on
        how = f"corrected on {corrected_on:,} validation items" if corrected_on else "raw, as the model gives them"
        terminal.table(f"{name}: intervals, {how}", tables.coverage_table(breakdown, unit))
        surest = [point for point in breakdown.abstention if point.share in (0.1, 0.2, 0.5, 1.0)]
        errors = "  ".join(f"{point.share:.0%}: {unit.error(point.mae)}" for point in surest)
        terminal.line(f"MAE of the surest items: {errors}")
    terminal.table(f"{name}: worst items", tables.worst_table(breakdown, excerpt, unit))


def excerpt(text: str) -> str:
    """The beginning of a text from outside, for a cell or the end of a line."""
    return shorten(terminal.harmless(text), 60)


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
        verdict = {True: "yes", False: "no"}
        rows = [
            [
                candidate,
                difference_to_best(one, metric, unit),
                "" if one.is_of_best else verdict[one.is_significant],
                share(one.p_best),
            ]
            for candidate, one in compared
            if one
        ]
        columns = ["checkpoint", "worse than the best by", "significant", "probability best"]
        title = f"Paired by item: 95 % intervals, {comparison.resamples:,} resamples"
        terminal.table(title, Table(columns, rows))
    margin = selection.margin
    lead = "" if margin is None else f", {difference(margin, metric, unit)} better than the runner-up"
    terminal.line(f"best: {name} ({(selection.candidate.id or '')[:7]}){lead}")
    if comparison:
        terminal.line(significance(comparison))
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
    record |= {"dropped": list(result.dropped), "unscored": list(result.unscored), **_failed_record(result.failed)}
    if pick := result.untagged:
        record["untagged"] = {"repo": result.run.repo, "revision": pick.commit, "folder": pick.folder}
    record |= {"left": result.published.left} if result.published and result.published.left else {}
    record |= {"held_out": asdict(result.held_out)} if result.held_out else {}
    return record | ({"confirmation": asdict(confirmed.confirmation)} if confirmed else {})


def _explain_untagged(result: "Picked", checkpoint: "Checkpoint") -> None:
    """Print how to load a pick that could not be tagged, because its repository belongs to somebody else."""
    run = result.run
    terminal.note(f"no tag best: this account may not change {run.repo}")
    if checkpoint.commit is None:
        terminal.note(f"the pick is an average that is only here: {run.folder / 'soups' / checkpoint.name}")
        return
    folder = f", subfolder={json.dumps(checkpoint.folder)}" if checkpoint.folder else ""
    where = f'"{run.repo}", revision="{checkpoint.commit}"{folder}'
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
    """Draw the ranked checkpoints and the baseline on the same items, and mark the pick. Soups are left out, because
    they have no step of their own.
    """
    selection = result.selection
    beside = [
        e
        for e in result.run.evaluations.all()
        if e.spec.fingerprint == selection.spec_fingerprint and e.candidate.is_baseline
    ]
    draw_errors([*beside, *selection.ranking], None if selection.candidate.is_soup else selection.candidate.step)


def draw_errors(evaluations: "Sequence[Evaluation]", chosen: int | None = None) -> None:
    """Draw the mean absolute error of the checkpoints by step. `chosen` is the step to mark (None: the one with the
    lowest error). Draws nothing with fewer than two points, or if the terminal cannot show it.
    """
    curve = [(e.candidate.step, e.metric("mae").value) for e in evaluations if not e.candidate.is_soup]
    points = sorted((step, mae) for step, mae in curve if step is not None and mae is not None)
    if len(points) < 2:
        return
    best = min(points, key=lambda point: (point[0] != chosen, point[1], point[0]))
    errors = [mae for _, mae in points]
    level = next((e.metric("mae").value for e in evaluations if e.name == _BASELINE), None)
    room = _NEAR * (max(errors) - min(errors))
    if level is not None and not min(errors) - room <= level <= max(errors) + room:
        level = None  # the line would flatten the curve
    unit = evaluations[0].spec.price_unit
    caption = ["MAE by step", f"● step {best[0]:,}: {unit.error(best[1])}"]
    caption += [f"┈ {_BASELINE}: {unit.error(level)}"] if level is not None else []
    terminal.curve(caption, points, best, level, unit)
