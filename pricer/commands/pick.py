"""`pricer pick`: choose the checkpoint with the best validation result, without torch, and confirm it on test items."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pricer.commands.parts.checkpoints import find_failed, find_problem, load_scores
from pricer.commands.parts.hub_runs import look_before_picking
from pricer.commands.parts.publishing import Published, dropped_in_race, find_picked, publish, publish_recorded
from pricer.commands.parts.verdicts import judge_choice
from pricer.commands.parts.watcher import Watcher
from pricer.core.checkpoints import BEST, Checkpoint, Failure
from pricer.core.evaluation import Evaluation
from pricer.core.held_out import HeldOutCheck
from pricer.core.items import Split
from pricer.core.selection import (
    Confirmation,
    Selection,
    dropped_ids,
    find_comparable,
    find_test_evaluation,
    other_test_looks,
    rank_evaluations,
    select,
)
from pricer.core.verdicts import Verdict
from pricer.errors import CheckpointError, HubError
from pricer.stores.runs import Run, find_run, now


@dataclass(frozen=True, slots=True)
class Picked:
    """The result of `pricer pick`.

    `dropped` has the steps of the checkpoints that dropped out of a race. `failed` has the checkpoints that cannot be
    used, and the records that cannot be read. `unscored` has the steps of all others without an evaluation to compare.
    `published` is what the repository got of it; None if it got nothing. `problem` says why the Hub could not be
    updated; the choice is valid anyway. `untagged` is the picked checkpoint if its repository belongs to somebody else,
    who alone may tag it. `held_out` says whether the items were held out for the adapters of another trainer; None: the
    run is pricer's. `verdicts` say what the choice is worth.
    """

    run: Run
    selection: Selection
    unscored: tuple[int, ...]
    dropped: tuple[int, ...] = ()
    failed: tuple[Failure, ...] = ()
    published: Published | None = None
    problem: HubError | None = None
    untagged: Checkpoint | None = None
    held_out: HeldOutCheck | None = None
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The result of `pricer pick --confirm`.

    `is_new`: this call measured the number. `others` are the checkpoints of the run that were also measured on the test
    split, before or after. `problem` says why the number is not in the model card; the number is valid anyway.
    `verdicts` say what the pick is worth on the test items.
    """

    confirmation: Confirmation
    is_new: bool
    others: tuple[str, ...]
    problem: HubError | None = None
    verdicts: tuple[Verdict, ...] = ()


def pick(
    name: str | None,
    metric: str,
    repo: str | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> Picked:
    """Select the best checkpoint of a run, write selection.json and tag the checkpoint `best`. `note` receives a line
    before each slow step.
    """
    run = find_run(name, repo=repo, note=note)
    if repo is not None:
        look_before_picking(run, repo, note)
    checkpoints = run.store.checkpoints()
    failed = find_failed(run, checkpoints)
    ranking = _rank(run, checkpoints, failed, metric)
    by_id = {checkpoint.id: checkpoint for checkpoint in checkpoints}
    while damage := find_problem(run, best := by_id[ranking[0].candidate.id or ""]):
        failed[best.id] = damage
        ranking = _rank(run, checkpoints, failed, metric)
    selection = select(ranking, metric, load_scores(run, ranking))
    # The choice is written before it goes to the Hub: a Hub that refuses does not undo it.
    run.write_selection(selection)
    picked = _describe(run, selection, failed)
    try:
        return replace(picked, published=_publish(picked, note))
    except HubError as problem:
        if problem.refused and run.facts().get("from_hub"):
            run.outbox.drop_pick()
            return replace(picked, untagged=find_picked(run, selection))
        problem.hint = f"{problem.hint}; the choice stands, `pricer push --run {run.name}` brings it to the Hub later"
        return replace(picked, problem=problem)


def publish_pick_of(run: Run) -> Checkpoint | None:
    """Bring the newest pick of a run to the Hub, if the Hub did not get all of it, and return the checkpoint. None:
    nothing was missing, or the checkpoint still waits in the outbox. A RunError if the evaluations that were picked
    from are gone.
    """
    picked = run.store.tagged(BEST) if run.outbox.pick_waits else None
    if picked is None or (picked.commit is None and picked in run.outbox.checkpoints()):
        return None
    publish_recorded(run)
    run.outbox.drop_pick()
    return picked


def _describe(run: Run, selection: Selection, failed: Mapping[str, Failure]) -> Picked:
    checkpoints, scored = run.store.checkpoints(), {e.candidate.id for e in selection.ranking}
    dropped = dropped_in_race(run, selection)
    return Picked(
        run,
        selection,
        unscored=tuple(c.step for c in checkpoints if c.id not in scored | dropped | failed.keys()),
        dropped=tuple(c.step for c in checkpoints if c.id in dropped - failed.keys()),
        failed=(*failed.values(), *run.store.damaged()),
        held_out=HeldOutCheck.from_fact(run.facts().get("held_out")),
        verdicts=_judge(run, selection),
    )


def _judge(run: Run, selection: Selection) -> tuple[Verdict, ...]:
    test = find_test_evaluation(selection.chosen, run.evaluations.all())
    return judge_choice(run, selection.chosen, selection.metric, selection.comparison, selection.ranking, test)


def _publish(picked: Picked, note: Callable[[str], object]) -> Published | None:
    """Tag the pick `best`, and publish it. None without a repository, and if the checkpoint waits in the outbox: then
    only the local tag is set. What is not on the Hub at the end stays recorded in the outbox, whatever ends this
    function.
    """
    run, chosen = picked.run, find_picked(picked.run, picked.selection)
    if not run.store.is_remote:
        return publish(run, picked.selection)
    run.outbox.keep_pick()
    if chosen.commit is None and chosen in run.outbox.checkpoints():
        run.store.tag(chosen, BEST)
        later = f"pricer push --run {run.name}"
        note(f"{chosen.name} is not on the Hub yet: {later} brings it there, with the tag best and the model card")
        return None
    published = publish(run, picked.selection)
    run.outbox.drop_pick()
    return published


def _rank(
    run: Run, checkpoints: Sequence[Checkpoint], failed: Mapping[str, Failure], metric: str
) -> tuple[Evaluation, ...]:
    """The evaluations to choose from, the best first, without those of checkpoints that `failed`."""
    evaluations = run.evaluations.all()
    kept = {checkpoint.id for checkpoint in checkpoints} - failed.keys()
    estimator = run.config().eval.estimator if evaluations else "auto"
    # If there is nothing to compare, `rank_evaluations` raises the error that says why.
    own = [e for e in evaluations if e.candidate.id in kept and e.is_complete]
    if not own and failed:
        first = next(iter(failed.values()))
        problem = f"no checkpoint of {run.name} that can be used has been evaluated; {first.name}: {first.reason}"
        raise CheckpointError(problem, "pricer eval --all-checkpoints")
    return rank_evaluations(find_comparable(evaluations, kept, estimator, dropped_ids(run.race())) or own, metric)


def confirm(picked: Picked, watcher: Watcher) -> Confirmed:
    """Score a pick once on all test items and write confirmation.json. An interrupted scoring continues. A number that
    exists is only read, and does not count as another look at the split.
    """
    from pricer.commands.evaluate import evaluate_run

    run, selection, picked_id = picked.run, picked.selection, picked.selection.candidate.id
    assert picked_id is not None  # no baseline is picked
    evaluations, recorded = run.evaluations.all(), run.confirmations()
    # By its id, because the tag `best` may move during scoring.
    scored = evaluate_run(run, picked_id, Split.TEST, None, watcher)
    evaluation = scored.evaluations[-1]
    spec = evaluation.spec.fingerprint
    is_new = all((e.candidate.id, e.spec.fingerprint) != (picked_id, spec) for e in evaluations)
    others = other_test_looks(evaluations, picked_id, spec, recorded)
    known = next((one for one in recorded if one.is_of(picked_id, spec)), None)
    assert scored.breakdown is not None  # a single checkpoint has one
    metric, coverage = evaluation.metric(selection.metric), scored.breakdown.coverage
    near = scored.breakdown.near_copies
    if known:
        confirmation = replace(known, metric=metric, coverage=coverage, near_copies=near)
    else:
        before = tuple(dict.fromkeys(others))
        confirmation = Confirmation(now(), evaluation.candidate, spec, metric, len(others) + 1, before, coverage, near)
        run.add_confirmation(confirmation)
    problem = picked.problem
    if is_new and problem is None and picked.untagged is None:
        try:
            _publish(picked, watcher.note)  # again, because the card states the confirmed number
        except HubError as error:
            problem = error
    return Confirmed(confirmation, is_new, tuple(dict.fromkeys(others)), problem, _judge(run, selection))
