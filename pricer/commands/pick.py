"""`pricer pick`: choose the checkpoint with the best validation result. Imports nothing heavy: it takes no time."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from pricer.core.checkpoints import Checkpoint
from pricer.core.comparison import Rule
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.scores import Scores
from pricer.core.selection import Selection, ranked, select
from pricer.errors import HubError, RunError
from pricer.stores.runs import Run, run_here

Soups = Callable[[Run, Evaluation], Sequence[Evaluation]]
"""The Evaluations of the averages of a run's checkpoints that may compete with its best one, under the same spec."""


@dataclass(frozen=True, slots=True)
class Picked:
    """What `pricer pick` returns. `unscored` are the steps of checkpoints that had no evaluation to compare, `dropped`
    of those that had none because they dropped out of a race, `card` the repository whose model card was written, None
    if none was. `problem`: the Hub could not be told; the choice stands all the same.
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
    rule: Rule = "lowest",
    soups: Soups | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> Picked:
    """Select the best checkpoint of a run by `rule`, write selection.json and tag the checkpoint `best`. With `soups`
    those compete, too; `note` is told what then takes a while.
    """
    run = run_here(name, repo, note)
    checkpoints = run.store.checkpoints()
    revisions = {checkpoint.id for checkpoint in checkpoints}
    # An evaluation of weights that are no longer kept cannot be chosen, nor compared one without today's metrics.
    candidates = [e for e in run.evaluations.all() if e.revision in revisions and e.is_complete]
    estimator = run.config().eval.estimator if candidates else "auto"
    raced = raced_out(run)
    ranking = ranked(comparable(candidates, estimator, raced), metric)
    if soups:
        ranking = ranked([*ranking, *soups(run, ranking[0])], metric)
    selection = select(ranking, metric, rule, _scores(run, ranking))
    # First what is decided, then what is told to others: a Hub that refuses does not undo the choice.
    run.write_selection(selection)
    scored = {e.revision for e in selection.ranking}
    out = raced.get(selection.spec_fingerprint, frozenset()) - scored
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
    kept = run.store.soups() if selection.members else run.store.checkpoints()
    return next(checkpoint for checkpoint in kept if checkpoint.id == selection.revision)


def _scores(run: Run, ranking: Sequence[Evaluation]) -> dict[str, Scores]:
    """The scores behind these evaluations by revision, on the same items; none of a single one, which needs none."""
    if len(ranking) < 2:
        return {}
    found: dict[str, Scores] = {}
    for evaluation in ranking:
        assert evaluation.revision is not None  # ranked are checkpoints
        scores = run.evaluations.scores(evaluation.revision, evaluation.spec)
        if scores is None:
            raise RunError(
                f"what {evaluation.name} was charged for each item was not kept by its evaluation, an earlier one",
                "pricer eval --all-checkpoints",
            )
        first = next(iter(found.values()), scores)
        if not np.array_equal(scores.price, first.price):
            raise RunError(
                f"{evaluation.name} was scored on other items than {ranking[0].name}, or in another order",
                f"remove {run.folder / 'evaluations'}, and evaluate again",
            )
        found[evaluation.revision] = scores
    return found


def publish(run: Run, selection: Selection, dropped: int) -> str | None:
    """Write the model card of a run on the Hub; of what another trainer made, nothing is known that one could say."""
    best = _chosen(run, selection)
    if best.prompt_fingerprint is None:
        return None

    def render(repo: str) -> str:
        from pricer.commands.parts.model_card import card_text

        return card_text(run, repo, best, selection, dropped)

    return run.store.publish_card(render, f"{best.name} is the best")


def raced_out(run: Run) -> dict[str, Set[str]]:
    """The revisions that dropped out of the run's race, by the fingerprint of its spec."""
    race = run.race()
    return {race.spec_fingerprint: frozenset(one.id for one in race.dropped)} if race else {}


def comparable(
    evaluations: Sequence[Evaluation], estimator: str = "auto", raced: Mapping[str, Set[str]] | None = None
) -> list[Evaluation]:
    """The validation evaluations under the one spec that covers every checkpoint evaluated on validation items.

    Of several such specs, the one with most items; of those, the one by the run's `estimator` (`auto`, as in a run from
    before there was a choice: by any but greedy). None that covers them all is a RunError: checkpoints measured by
    different specs cannot be ranked. Those that dropped out of a race (`raced`: revisions by the fingerprint of its
    spec) were compared there. Without validation evaluations all are returned, for `select` to refuse.
    """
    held_out = [e for e in evaluations if e.spec.split is Split.VAL]
    if not held_out:
        return list(evaluations)
    everything = {e.revision for e in held_out}
    by_spec: dict[str, list[Evaluation]] = {}
    for evaluation in held_out:
        by_spec.setdefault(evaluation.spec.fingerprint, []).append(evaluation)
    out = raced or {}
    complete = [
        own for spec, own in by_spec.items() if {e.revision for e in own} | out.get(spec, frozenset()) >= everything
    ]
    if not complete:
        found = "; ".join(
            f"{own[0].spec.limit or 'all'} items: steps {', '.join(str(e.step) for e in own)}"
            for own in by_spec.values()
        )
        raise RunError(
            f"no one spec covers every evaluated checkpoint, and different specs are not comparable ({found})",
            "pricer eval --all-checkpoints",
        )

    def fit(own: Sequence[Evaluation]) -> tuple[int, bool]:
        used = own[0].spec.estimator
        return own[0].metric("mae").n, used != "greedy" if estimator == "auto" else used == estimator

    return max(complete, key=fit)
