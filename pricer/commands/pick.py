"""`pricer pick`: choose the checkpoint with the best validation result, and confirm it once on the test split.

Imports nothing heavy: a pick takes no time. Only a confirmation needs a model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pricer.core.checkpoints import Checkpoint
from pricer.core.confirmation import Confirmation, looks_besides
from pricer.core.evaluation import Evaluation
from pricer.core.intervals import CoverageReport
from pricer.core.items import Split
from pricer.core.scores import ScoreTable
from pricer.core.selection import Selection, comparable, dropped_ids, ranked, select
from pricer.errors import HubError, RunError
from pricer.stores.runs import Run, now, run_here

if TYPE_CHECKING:
    from pricer.commands.parts.watcher import Watcher

Soups = Callable[[Run, Evaluation], Sequence[Evaluation]]
"""Makes the Evaluations of the averages of a run's checkpoints that compete with its best one, under the same spec."""


@dataclass(frozen=True, slots=True)
class Picked:
    """What `pricer pick` returns.

    `unscored` are the steps of checkpoints that had no evaluation to compare, except those that dropped out of a race:
    their steps are `dropped`. `card` is the repository whose model card was written, None if none was. `problem` says
    why the Hub was not told; the choice stands all the same.
    """

    run: Run
    selection: Selection
    unscored: tuple[int, ...]
    card: str | None = None
    problem: HubError | None = None
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What `pricer pick --confirm` returns.

    `is_new`: the number was not there before. `others` are the checkpoints of the run that were also measured on the
    test split, before or after. `problem` says why the number is not in the model card; it stands all the same.
    """

    confirmation: Confirmation
    is_new: bool
    others: tuple[str, ...]
    problem: HubError | None = None


def pick(
    name: str | None,
    metric: str,
    repo: str | None = None,
    soups: Soups | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> Picked:
    """Select the best checkpoint of a run, write selection.json and tag the checkpoint `best`. If `soups` is given,
    averages compete, too. `note` is told what takes a while.
    """
    run = run_here(name, repo, note)
    checkpoints, evaluations = run.store.checkpoints(), run.evaluations.all()
    kept, dropped_by_spec = {checkpoint.id for checkpoint in checkpoints}, dropped_ids(run.race())
    estimator = run.config().eval.estimator if evaluations else "auto"
    # If there is nothing to compare, `ranked` says what is wrong with what there is.
    own = [e for e in evaluations if e.candidate.id in kept and e.is_complete]
    ranking = ranked(comparable(evaluations, kept, estimator, dropped_by_spec) or own, metric)
    if soups:
        ranking = ranked([*ranking, *soups(run, ranking[0])], metric)
    selection = select(ranking, metric, _load_scores(run, ranking))
    # The choice is written before others are told: a Hub that refuses does not undo it.
    run.write_selection(selection)
    scored = {e.candidate.id for e in selection.ranking}
    out = dropped_by_spec.get(selection.spec_fingerprint, frozenset()) - scored
    dropped = tuple(c.step for c in checkpoints if c.id in out)
    unscored = tuple(c.step for c in checkpoints if c.id not in scored | out)
    chosen = _chosen(run, selection)
    if run.store.is_remote and chosen.commit is None:
        note(f"pushing {chosen.name} to {run.store.location}")
    try:
        run.store.tag(chosen, "best")
        return Picked(run, selection, unscored, _publish_card(run, selection, len(dropped)), dropped=dropped)
    except HubError as problem:
        return Picked(run, selection, unscored, problem=problem, dropped=dropped)


def confirm(picked: Picked, watcher: "Watcher") -> Confirmed:
    """Score a pick once on all test items, going on where that was interrupted, and write confirmation.json. A number
    that was there before is read, and is no new look at the split.
    """
    from pricer.commands.evaluate import evaluate_run

    run, selection, picked_id = picked.run, picked.selection, picked.selection.candidate.id
    assert picked_id is not None  # no baseline is picked
    evaluations, recorded = run.evaluations.all(), run.confirmations()
    # By its id: the tag `best` may move while this scores.
    scored = evaluate_run(run, picked_id, Split.TEST, None, watcher)
    evaluation = scored.evaluations[-1]
    spec = evaluation.spec.fingerprint
    is_new = all((e.candidate.id, e.spec.fingerprint) != (picked_id, spec) for e in evaluations)
    others = looks_besides(evaluations, picked_id, spec, recorded)
    known = next((one for one in recorded if one.is_of(picked_id, spec)), None)
    if known:
        confirmation = Confirmation.of(evaluation, selection.metric, known.when, known.look, known.before)
    else:
        confirmation = Confirmation.of(evaluation, selection.metric, now(), len(others) + 1, others)
        run.add_confirmation(confirmation)
    problem = picked.problem
    if is_new and problem is None:
        try:
            _publish_card(run, selection, len(picked.dropped), scored.breakdown.coverage if scored.breakdown else ())
        except HubError as error:
            problem = error
    return Confirmed(confirmation, is_new, tuple(dict.fromkeys(others)), problem)


def _chosen(run: Run, selection: Selection) -> Checkpoint:
    kept = run.store.soups() if selection.candidate.is_soup else run.store.checkpoints()
    return next(checkpoint for checkpoint in kept if checkpoint.id == selection.candidate.id)


def _load_scores(run: Run, ranking: Sequence[Evaluation]) -> dict[str, ScoreTable]:
    """The scores of these evaluations by checkpoint id, on the same items; none for a single evaluation."""
    if len(ranking) < 2:
        return {}
    found: dict[str, ScoreTable] = {}
    for evaluation in ranking:
        assert evaluation.candidate.id is not None  # ranked are checkpoints
        table = run.evaluations.scores(evaluation.candidate.id, evaluation.spec)
        if table is None:
            raise RunError(f"the scores of {evaluation.name} are missing", "pricer eval --all-checkpoints")
        first = next(iter(found.values()), table)
        if not (np.array_equal(table.item_id, first.item_id) and np.array_equal(table.price, first.price)):
            raise RunError(
                f"{evaluation.name} was scored on other items than {ranking[0].name}, or in another order",
                f"remove {run.folder / 'evaluations'}, and run pricer eval --all-checkpoints",
            )
        found[evaluation.candidate.id] = table
    return found


def _publish_card(run: Run, selection: Selection, dropped: int, coverage: Sequence[CoverageReport] = ()) -> str | None:
    """Write the model card of a run on the Hub, and return the repository; None for a run without one, and for a
    checkpoint of another trainer, about which nothing is known. A race `dropped` so many checkpoints. `coverage` is how
    often intervals held the price on test items, empty if unknown.
    """
    best = _chosen(run, selection)
    if best.prompt_fingerprint is None:
        return None

    def render(repo: str) -> str:
        from pricer.commands.parts.model_card import card_text

        return card_text(run, repo, best, selection, dropped, coverage)

    return run.store.publish_card(render, f"{best.name} is the best")
