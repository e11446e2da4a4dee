"""`pricer eval`: score checkpoints and baselines on held-out items. Nothing is scored twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pricer.commands.parts.baselines import evaluate_baselines
from pricer.commands.parts.checkpoints import saved_breakdown
from pricer.commands.parts.jobs import Job, open_job, plan_other_data, plan_split
from pricer.commands.parts.scoring import Fill, combine_fills, race_checkpoints, score_checkpoints
from pricer.commands.parts.session import EvaluationSession, candidate_key
from pricer.commands.parts.verdicts import judge_scored
from pricer.commands.parts.wandb_report import evaluation_report
from pricer.commands.parts.watcher import Watcher
from pricer.core.breakdowns import Breakdown
from pricer.core.checkpoints import Checkpoint, Failure
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.halving import RaceRecord
from pricer.core.held_out import HeldOutCheck
from pricer.core.items import Split
from pricer.core.verdicts import Verdict
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
    run: Run,
    which: str,
    split: Split,
    limit: int | None,
    watcher: Watcher,
    *,
    race: bool = False,
    fill: Fill | None = None,
) -> Evaluated:
    """Evaluate the checkpoints of a run that `which` names (see `choose_checkpoints`), and the baselines, on the first
    `limit` items (None: all) of a split. In a `race`, bad checkpoints drop out before they are scored on all items.
    `fill` answers before this process does.
    """
    return evaluate_job(plan_split(run, which, split, limit, watcher), watcher, race=race, fill=fill)


def evaluate_on_data(
    run: Run, which: str, source: str, limit: int | None, watcher: Watcher, *, fill: Fill | None = None
) -> Evaluated:
    """Evaluate the checkpoints that `which` names, and the baselines that need no training items, on other data: the
    first `limit` items (None: all) of a source as in `data.source`, whatever their split. The training data are not
    read, unless the checkpoints come from another trainer. `fill` answers before this process does.
    """
    return evaluate_job(plan_other_data(run, which, source, limit, watcher), watcher, fill=fill)


def evaluate_job(job: Job, watcher: Watcher, *, race: bool = False, fill: Fill | None = None) -> Evaluated:
    """Evaluate the checkpoints of a job, and the baselines. `race` and `fill` are those of `evaluate_run`."""
    result = _evaluate(job, watcher, race=race, fill=fill)
    is_held_out = None
    if job.source is not None:
        is_held_out = job.held_out.known if job.held_out else job.trained == 0
    return _judge(result, job.which, watcher, is_held_out=is_held_out)


def _judge(result: Evaluated, which: str, watcher: Watcher, *, is_held_out: bool | None) -> Evaluated:
    """The result with its verdicts. These need other records of the run. If one is damaged, there are no verdicts."""
    coverage = result.breakdown.coverage if result.breakdown else ()
    try:
        verdicts = judge_scored(result.run, which, result.evaluations, coverage, is_held_out=is_held_out)
    except RunError as problem:
        watcher.note(f"no verdict: {problem.message}; {problem.hint}")
        return result
    return replace(result, verdicts=verdicts)


def _evaluate(job: Job, watcher: Watcher, *, race: bool = False, fill: Fill | None = None) -> Evaluated:
    run, setup, spec = job.run, job.setup, job.spec
    work = job.workers.fill if job.workers else None
    with open_job(job, watcher) as (session, fitting):
        if fill:
            _fill(session, [None] if race else [None, *fitting], fill)
        # The baselines come first, before any adapter is loaded: one of them is the untuned base.
        if work:
            _fill(session, [None], work)
        baselines = evaluate_baselines(session, setup)
        if work and not race:
            _fill(session, fitting, work)
        scored = (
            race_checkpoints(session, fitting, combine_fills(fill, work))
            if race
            else score_checkpoints(session, fitting)
        )
    if not scored:
        raise _explain_failure(job, session.errors)
    evaluations, breakdown, report = (*baselines, *scored), None, None
    if job.which != "all":
        breakdown = saved_breakdown(run, fitting[0].id, spec, session.items, setup.items.near_copies)
    if setup.config.tracking.mode != "off":
        report = evaluation_report(spec, session.items, evaluations, run.evaluations)
    return Evaluated(
        run,
        spec,
        len(session.items),
        evaluations,
        failed=_describe_failures(job, session.errors),
        breakdown=breakdown,
        race=run.race() if race else None,
        report=report,
        source=job.source,
        revision=job.revision,
        trained=job.trained,
        held_out=job.held_out,
    )


def _fill(session: EvaluationSession, candidates: Sequence[Checkpoint | None], fill: Fill) -> None:
    """Fill the cells of the candidates that have no evaluation yet, on all items."""
    unscored = [candidate for candidate in candidates if session.find(candidate_key(candidate)) is None]
    fill(session, unscored, session.whole)


def _describe_failures(job: Job, errors: Mapping[str, PricerError]) -> tuple[Failure, ...]:
    """The checkpoints that could not be scored, by step. If all were to be scored, also the records that cannot be
    read.
    """
    found = [Failure(c.name, errors[c.id].message, c.id) for c in job.checkpoints if c.id in errors]
    return (*found, *(job.run.store.damaged() if job.which == "all" else ()))


def _explain_failure(job: Job, errors: Mapping[str, PricerError]) -> PricerError:
    """The error for a command that could score none of its checkpoints."""
    first = job.checkpoints[0]
    error, count = errors[first.id], len(job.checkpoints)
    if count == 1:
        return error
    problem = f"none of the {count} checkpoints of {job.run.name} can be scored; {first.name}: {error.message}"
    return CheckpointError(problem, error.hint)
