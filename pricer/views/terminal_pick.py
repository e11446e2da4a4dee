"""The answer of `pricer pick`: the ranking, how sure it is, what was chosen, and its number on the test split."""

from typing import TYPE_CHECKING

from pricer.commands.pick import Picked
from pricer.core.comparison import Evidence, Standing
from pricer.core.confirmation import Confirmation
from pricer.core.evaluation import Evaluation
from pricer.core.selection import Selection
from pricer.redaction import hub_address
from pricer.views import terminal
from pricer.views.formatting import IN_DOLLARS, behind, difference, measured, named, told_apart

if TYPE_CHECKING:  # it imports torch
    from pricer.commands.parts.confirmation import Confirmed

_LABELS = {
    "mae": "MAE",
    "median_ae": "median error",
    "rmsle": "RMSLE",
    "r2": "R²",
    "mape": "MAPE",
    "hit_rate": "hits",
}
_WHY = {
    "lowest": "the best",
    "earliest": "the earliest that cannot be told apart from the best",
    "one-se": "the earliest within one standard error of the best",
}


def picked(result: Picked, *, as_json: bool, confirmed: "Confirmed | None" = None) -> None:
    """The ranking and the choice, or everything as JSON."""
    selection = result.selection
    if as_json:
        skipped = {"dropped": list(result.dropped), "unscored": list(result.unscored)}
        confirmation = {"confirmation": confirmed.confirmation.to_json()} if confirmed else {}
        terminal.record({"run": result.run.name, **selection.to_json(), **skipped, **confirmation})
        return
    terminal.evaluation_table(f"{result.run.name}: ranking by {selection.metric}", selection.ranking)
    if selection.evidence:
        _standing_table(selection, selection.evidence)
    terminal.line(_choice(selection))
    if selection.evidence:
        terminal.line(told_apart(selection.evidence))
        terminal.line(_figure(selection, selection.evidence))
    silent = selection.chosen.metric("no_price").value
    if silent:
        terminal.note(f"the chosen one gives no price for {silent:.1%} of the items, charged as the train median")
    if result.dropped:
        terminal.note(f"dropped in a race (by mae), so not in the ranking: steps {_steps(result.dropped)}")
    if result.unscored:
        terminal.note(f"without an evaluation, so not in the ranking: steps {_steps(result.unscored)}")
    if result.card:
        terminal.note(f"tag best and model card: {hub_address(result.card)}")


def next_step(result: Picked) -> None:
    """What to do with a pick that was not confirmed."""
    command = f"pricer pick --confirm{result.selection.options} --run {result.run.name}"
    terminal.note(f"next, for the number to publish: {command}")


def confirmation(result: Picked, confirmed: "Confirmed") -> None:
    """The number on the test split beside what validation said, and whether it is an untouched one."""
    selection, found, metric = result.selection, confirmed.confirmation, result.selection.metric
    raw = selection.chosen.metric(metric).value
    assert raw is not None  # it was ranked
    said = f"validation said {measured(raw, metric)}"
    if selection.evidence:
        said += f", corrected {measured(selection.evidence.corrected, metric)}"
    terminal.line(f"confirmed: {_LABELS[metric]} {_measured(found)} on {found.n:,} test items; {said}")
    others = ", ".join(confirmed.others)
    if confirmed.is_new and others:
        terminal.note(
            f"the test split of this run has been looked at before ({others}): this number is the "
            f"{_ordinal(found.look)} look, not an untouched one"
        )
    if not confirmed.is_new:
        terminal.note("this number was there already and is shown again, which is no new look at the test split")
        if others:
            terminal.note(f"the test split of this run has been looked at otherwise, too ({others})")


def _standing_table(selection: Selection, evidence: Evidence) -> None:
    compared = [(e, evidence.standing(e.step, e.members)) for e in selection.ranking]
    rows = [_row(e, standing, selection.metric) for e, standing in compared if standing]
    columns = ["checkpoint", "behind the best by", "told apart", "probability best"]
    terminal.table(f"Paired by item: 95 % intervals, {evidence.resamples:,} resamples", columns, rows)


def _row(evaluation: Evaluation, standing: Standing, metric: str) -> list[str]:
    probability = f"{standing.p_best:.1%}"
    if standing.interval is None:
        return [evaluation.name, behind(standing, metric), "", probability]
    apart = "no" if standing.indistinguishable else "yes"
    return [evaluation.name, behind(standing, metric), apart, probability]


def _choice(selection: Selection) -> str:
    line = f"best: {_named(selection.chosen)} ({selection.revision[:7]})"
    best = selection.ranking[0]
    if selection.margin is None:
        return line
    if selection.rule == "lowest":
        return f"{line}, {difference(selection.margin, selection.metric)} better than the runner-up"
    line = f"{line}, {_WHY[selection.rule]}"
    if selection.chosen == best or not selection.evidence:
        return f"{line}, which is that itself"
    chosen = selection.evidence.standing(selection.step, selection.members)
    assert chosen is not None  # what was chosen was compared
    return f"{line}, {_named(best)}, and {difference(chosen.behind, selection.metric)} behind it"


def _named(evaluation: Evaluation) -> str:
    return named(evaluation.step, evaluation.members)


def _figure(selection: Selection, evidence: Evidence) -> str:
    metric = selection.metric
    raw = selection.chosen.metric(metric).value
    assert raw is not None  # it was ranked
    low, high = (measured(end, metric) for end in evidence.corrected_interval)
    return (
        f"{metric} of {_named(selection.chosen)}: {measured(raw, metric)} on the items that chose it; "
        f"corrected for the choice {measured(evidence.corrected, metric)} (95 %: {low} to {high})"
    )


def _measured(found: Confirmation) -> str:
    if found.value is None:
        return "–"
    text = measured(found.value, found.metric)
    if found.interval is None:
        return text
    low, high = found.interval
    if found.metric in IN_DOLLARS:
        return f"{text} ± {(high - low) / 2:,.2f}"
    return f"{text} (95 %: {measured(low, found.metric)} to {measured(high, found.metric)})"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def _steps(steps: tuple[int, ...]) -> str:
    return ", ".join(f"{step:,}" for step in steps)
