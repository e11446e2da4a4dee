"""`pricer pick`: choose the checkpoint with the best validation result. Imports nothing heavy: it takes no time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation, ScoreTable
from pricer.core.intervals import CoverageReport
from pricer.core.selection import Selection, comparable, dropped_ids, ranked, select
from pricer.errors import HubError, RunError
from pricer.stores.runs import Run, find_run

Soups = Callable[[Run, Evaluation], Sequence[Evaluation]]
"""Makes the Evaluations of the averages of a run's checkpoints that compete with its best one, under the same spec."""


@dataclass(frozen=True, slots=True)
class Picked:
    """What `pricer pick` returns.

    `unscored` are the steps of checkpoints that had no evaluation to compare, except those that dropped out of a race:
    their steps are `dropped`. `card` is the repository whose model card was written, None if none was. `problem`: the
    Hub could not be told; the choice stands all the same.
    """

    run: Run
    selection: Selection
    unscored: tuple[int, ...]
    card: str | None = None
    problem: HubError | None = None
    dropped: tuple[int, ...] = ()


def pick(
    name: str | None,
    metric: str,
    repo: str | None = None,
    soups: Soups | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> Picked:
    """Select the best checkpoint of a run, write selection.json and tag the checkpoint `best`. With `soups` those
    compete, too; `note` is told what then takes a while.
    """
    run = find_run(name, repo=repo, note=note)
    checkpoints, evaluations = run.store.checkpoints(), run.evaluations.all()
    kept, dropped_by_spec = {checkpoint.id for checkpoint in checkpoints}, dropped_ids(run.race())
    estimator = run.config().eval.estimator if evaluations else "auto"
    # Where there is nothing to compare, `ranked` says what is wrong with what there is.
    own = [e for e in evaluations if e.candidate.id in kept and e.is_complete]
    ranking = ranked(comparable(evaluations, kept, estimator, dropped_by_spec) or own, metric)
    if soups:
        ranking = ranked([*ranking, *soups(run, ranking[0])], metric)
    selection = select(ranking, metric, _tables(run, ranking))
    # First what is decided, then what is told to others: a Hub that refuses does not undo the choice.
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
        return Picked(run, selection, unscored, publish(run, selection, len(dropped)), dropped=dropped)
    except HubError as problem:
        return Picked(run, selection, unscored, problem=problem, dropped=dropped)


def _chosen(run: Run, selection: Selection) -> Checkpoint:
    kept = run.store.soups() if selection.candidate.is_soup else run.store.checkpoints()
    return next(checkpoint for checkpoint in kept if checkpoint.id == selection.candidate.id)


def _tables(run: Run, ranking: Sequence[Evaluation]) -> dict[str, ScoreTable]:
    """The scores behind these evaluations by checkpoint id, on the same items; none for a single one."""
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
                f"remove {run.folder / 'evaluations'}, and evaluate again",
            )
        found[evaluation.candidate.id] = table
    return found


def publish(run: Run, selection: Selection, dropped: int, coverage: Sequence[CoverageReport] = ()) -> str | None:
    """Write the model card of a run on the Hub; `coverage` is how far intervals held on test items, empty if unknown.
    None for a checkpoint of another trainer, about which nothing is known that a card could say.
    """
    best = _chosen(run, selection)
    if best.prompt_fingerprint is None:
        return None

    def render(repo: str) -> str:
        from pricer.commands.parts.model_card import card_text

        return card_text(run, repo, best, selection, dropped, coverage)

    return run.store.publish_card(render, f"{best.name} is the best")
