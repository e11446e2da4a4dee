"""`pricer eval`: score checkpoints and baselines on held-out items. Nothing is scored twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pricer.commands.parts.baselines import evaluate_baselines
from pricer.commands.parts.checkpoints import choose_checkpoints, find_foreign, find_typical, saved_breakdown
from pricer.commands.parts.held_out import judge_other_data, record_held_out
from pricer.commands.parts.other_data import count_trained, explain_beyond, explain_trained, load_other_data
from pricer.commands.parts.session import EvaluationSession, open_session
from pricer.commands.parts.setup import Setup, prepare, prepare_to_ask
from pricer.commands.parts.verdicts import judge_scored
from pricer.commands.parts.wandb_report import evaluation_report
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.core.breakdowns import Breakdown
from pricer.core.checkpoints import Candidate, Checkpoint, Failure, tag_name
from pricer.core.evaluation import EvalSpec, Evaluation, score_predictions
from pricer.core.halving import Dropout, RaceRecord, drop_worst, plan_rounds
from pricer.core.held_out import HeldOutCheck
from pricer.core.items import Item, Split
from pricer.core.verdicts import Verdict
from pricer.data.preparation import require
from pricer.errors import CheckpointError, PricerError, RunError
from pricer.stores.runs import Run
from pricer.stores.wandb import Report


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The result of `pricer eval`.

    `evaluations` has the baselines first, then the checkpoints by step. `failed` has the checkpoints that could not be
    scored, and the records of checkpoints that cannot be read. A single checkpoint has a `breakdown`, a race
    has a `race`. `report` is for W&B; None: this run is not on W&B. `source` names other data that were scored, and
    `trained` is the number of its items that the run was trained on; None: unknown. `held_out` says whether the items
    were held out for the adapters of another trainer; None: the run is pricer's. `verdicts` are about the best of the
    checkpoints.
    """

    run: Run
    spec: EvalSpec
    n: int
    evaluations: tuple[Evaluation, ...]
    failed: tuple[Failure, ...] = ()
    breakdown: Breakdown | None = None
    race: RaceRecord | None = None
    report: Report | None = None
    source: str | None = None
    revision: str | None = None
    trained: int | None = None
    held_out: HeldOutCheck | None = None
    verdicts: tuple[Verdict, ...] = ()


def evaluate_run(
    run: Run, which: str, split: Split, limit: int | None, watcher: Watcher, *, race: bool = False
) -> Evaluated:
    """Evaluate the checkpoints of a run that `which` names (see `choose_checkpoints`), and the baselines, on the first
    `limit` items (None: all) of a split. In a `race`, bad checkpoints drop out before they are scored on all items.
    """
    checkpoints = _choose(run, which, watcher)
    setup = prepare(run.config(), progress=watcher.preparing)
    items = require(setup.items, split, setup.config.data)
    held_out = record_held_out(run, setup)
    job = _Job(run, which, checkpoints, setup, setup.spec(split, limit), items, held_out)
    return _judge(_evaluate(job, watcher, race=race), which, watcher)


def evaluate_on_data(run: Run, which: str, source: str, limit: int | None, watcher: Watcher) -> Evaluated:
    """Evaluate the checkpoints that `which` names, and the baselines that need no training items, on other data: the
    first `limit` items (None: all) of a source as in `data.source`, whatever their split. The training data are not
    read, unless the checkpoints come from another trainer.
    """
    checkpoints = _choose(run, which, watcher)
    config = run.config()
    setup = prepare_to_ask(config, find_typical(checkpoints, config.model.revision), watcher.preparing)
    data = load_other_data(setup.config.data, source, watcher.preparing)
    scored = data.items[:limit]
    trained, held_out = count_trained(run, scored), judge_other_data(run, source)
    beyond = explain_beyond(scored, setup.template.price_format)
    known = [] if held_out else [explain_trained(trained, len(scored))]
    for note in (*data.notes, *known, *beyond):
        watcher.note(note)
    spec = setup.spec_of_other_data(data.fingerprint, len(data.items), limit)
    job = _Job(run, which, checkpoints, setup, spec, data.items, held_out)
    scored_data = replace(_evaluate(job, watcher), source=source, revision=data.revision, trained=trained)
    return _judge(scored_data, which, watcher, is_held_out=held_out.known if held_out else trained == 0)


def _judge(result: Evaluated, which: str, watcher: Watcher, *, is_held_out: bool | None = None) -> Evaluated:
    """The result with its verdicts. These need other records of the run. If one is damaged, there are no verdicts."""
    coverage = result.breakdown.coverage if result.breakdown else ()
    try:
        verdicts = judge_scored(result.run, which, result.evaluations, coverage, is_held_out=is_held_out)
    except RunError as problem:
        watcher.note(f"no verdict: {problem.message}; {problem.hint}")
        return result
    return replace(result, verdicts=verdicts)


def _choose(run: Run, which: str, watcher: Watcher) -> list[Checkpoint]:
    chosen, waiting = choose_checkpoints(run, which), run.outbox.checkpoints()
    if names := [checkpoint.name for checkpoint in chosen if checkpoint in waiting and checkpoint.commit is None]:
        watcher.note(f"not on the Hub yet: {', '.join(names)} (pricer push --run {run.name})")
    return chosen


@dataclass(frozen=True, slots=True)
class _Job:
    """What is scored on which items: the checkpoints that `which` names, and the items of the spec's split or data.
    `held_out` says whether these were held out for the adapters of another trainer.
    """

    run: Run
    which: str
    checkpoints: Sequence[Checkpoint]
    setup: Setup
    spec: EvalSpec
    items: Sequence[Item]
    held_out: HeldOutCheck | None


def _evaluate(job: _Job, watcher: Watcher, *, race: bool = False) -> Evaluated:
    run, setup, spec = job.run, job.setup, job.spec
    refused = find_foreign(job.checkpoints, setup, any_data=spec.split == "data")
    if len(refused) == len(job.checkpoints):
        raise refused[job.checkpoints[0].id]
    fitting = [checkpoint for checkpoint in job.checkpoints if checkpoint.id not in refused]
    run.pin_config(setup.config)
    for note in setup.notes:
        watcher.note(note)
    if job.held_out and not job.held_out.known:
        watcher.note(f"warning: {job.held_out.text}")
    with open_session(run, setup, spec, job.items, len(fitting), watcher) as session:
        for checkpoint in job.checkpoints:
            if checkpoint.id in refused:
                session.leave_out(checkpoint, refused[checkpoint.id])
        if job.which != "all":  # a checkpoint that is named is tried, even if it failed before
            run.evaluations.drop_failure(fitting[0].id)
        # The baselines come first, before any adapter is loaded: one of them is the untuned base.
        baselines = evaluate_baselines(session, setup)
        scored = race_checkpoints(session, fitting) if race else score_checkpoints(session, fitting)
    if not scored:
        raise _explain_failure(job, session.errors)
    evaluations, breakdown, report = (*baselines, *scored), None, None
    if job.which != "all":
        breakdown = saved_breakdown(run, fitting[0].id, spec, session.items, setup.items.near_copies)
    if setup.config.tracking.mode != "off":
        report = evaluation_report(spec, session.items, evaluations, run.evaluations.predictions)
    return Evaluated(
        run,
        spec,
        len(session.items),
        evaluations,
        failed=_describe_failures(job, session.errors),
        breakdown=breakdown,
        race=run.race() if race else None,
        report=report,
        held_out=job.held_out,
    )


def _describe_failures(job: _Job, errors: Mapping[str, PricerError]) -> tuple[Failure, ...]:
    """The checkpoints that could not be scored, by step. If all were to be scored, also the records that cannot be
    read.
    """
    found = [Failure(c.name, errors[c.id].message, c.id) for c in job.checkpoints if c.id in errors]
    return (*found, *(job.run.store.damaged() if job.which == "all" else ()))


def _explain_failure(job: _Job, errors: Mapping[str, PricerError]) -> PricerError:
    """The error for a command that could score none of its checkpoints."""
    first = job.checkpoints[0]
    error, count = errors[first.id], len(job.checkpoints)
    if count == 1:
        return error
    problem = f"none of the {count} checkpoints of {job.run.name} can be scored; {first.name}: {error.message}"
    return CheckpointError(problem, error.hint)


def score_checkpoints(
    session: EvaluationSession, checkpoints: Sequence[Checkpoint], progress: ScoringProgress | None = None
) -> list[Evaluation]:
    """The Evaluation of each checkpoint that can be scored: read if it exists, otherwise made. `progress` continues its
    count; None starts a new count.
    """
    known = {checkpoint.id: session.find(checkpoint.id) for checkpoint in checkpoints}
    progress = progress or ScoringProgress(session.watcher, [*known.values()].count(None) * len(session.items))
    evaluated = [name for name, evaluation in known.items() if evaluation]
    evaluations = []
    for checkpoint, predictions in session.predict(checkpoints, progress, evaluated=evaluated):
        evaluation = known[checkpoint.id] or session.finish(checkpoint.id, Candidate.of(checkpoint), predictions or ())
        session.watcher.scored(evaluation)
        evaluations.append(evaluation)
    return evaluations


def race_checkpoints(session: EvaluationSession, checkpoints: Sequence[Checkpoint]) -> list[Evaluation]:
    """Race the checkpoints for the lowest mean absolute error, score the winner on all items, and write race.json.

    Returns the winner's Evaluation, and the Evaluations that other checkpoints had before the race. A checkpoint that
    drops out keeps its predictions and gets no Evaluation. Decisions depend only on the saved predictions, so an
    interrupted race continues with the same decisions. If a checkpoint cannot be scored, the race begins again without
    it, with the predictions that are saved. Empty if no checkpoint can be scored.
    """
    if not checkpoints:
        return []
    n, budget, spec = len(session.items), session.run.config().eval.race_budget, session.spec
    rounds = plan_rounds(len(checkpoints), n, budget)
    # The winner is also scored on the items after the last round.
    total = sum(one.predictions for one in rounds) + n - (rounds[-1].stop if rounds else 0)
    progress = ScoringProgress(session.watcher, total)
    left, dropped = list(checkpoints), list[Dropout]()
    for one in rounds:
        errors = {}
        for checkpoint, predictions in session.predict(left, progress, one.stop):
            table = score_predictions(predictions or (), session.items[: one.stop], spec.fallback, spec.estimator)
            errors[checkpoint.id] = table.abs_error
        if len(errors) < len(left):
            return race_checkpoints(session, [c for c in checkpoints if c.id not in session.errors])
        worst = drop_worst(left, errors, one.survivors)
        for each in worst:
            leader, margin = tag_name(each.leader), spec.price_unit.error(each.margin)
            session.watcher.note(f"{each.name}  out after {each.n:,} items, {margin} worse than {leader}")
        dropped += worst
        left = [checkpoint for checkpoint in left if checkpoint.id not in {each.id for each in worst}]
    (winner,) = left
    evaluated = [checkpoint for checkpoint in checkpoints if checkpoint == winner or session.find(checkpoint.id)]
    evaluations = score_checkpoints(session, evaluated, progress)
    if winner.id in session.errors:
        return race_checkpoints(session, [c for c in checkpoints if c.id not in session.errors])
    share_of_work = total / (len(checkpoints) * n)
    session.run.write_race(RaceRecord(spec.fingerprint, budget, winner.id, tuple(dropped), share_of_work))
    return evaluations
