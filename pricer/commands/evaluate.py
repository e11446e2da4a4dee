"""`pricer eval`: score checkpoints and baselines on held-out items. What was scored before is not scored again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pricer.commands.parts.baselines import evaluate_baselines
from pricer.commands.parts.checkpoints import choose_checkpoints, refuse_foreign, saved_breakdown
from pricer.commands.parts.race import race_checkpoints
from pricer.commands.parts.session import EvaluationSession, open_session, score_checkpoints
from pricer.commands.parts.setup import prepare
from pricer.commands.parts.wandb_report import evaluation_report
from pricer.commands.parts.watcher import Watcher
from pricer.core.breakdowns import Breakdown
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.halving import RaceRecord
from pricer.core.items import Split
from pricer.stores.runs import Run
from pricer.stores.wandb_log import Report


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What `pricer eval` returns: the evaluations of the baselines, then of the checkpoints by step. `breakdown` is
    there for a single checkpoint, `race` after a race. `report` goes to W&B; None: this run is not on W&B.
    """

    run: Run
    spec: EvalSpec
    n: int
    evaluations: tuple[Evaluation, ...]
    breakdown: Breakdown | None = None
    race: RaceRecord | None = None
    report: Report | None = None


Score = Callable[[EvaluationSession, Sequence[Checkpoint]], list[Evaluation]]
"""How Evaluations of a run's checkpoints are made."""


def evaluate_run(
    run: Run, which: str, split: Split, limit: int | None, watcher: Watcher, score: Score = score_checkpoints
) -> Evaluated:
    """Evaluate the checkpoints of a run that `which` names (see `choose_checkpoints`), and the baselines, on the first
    `limit` items (None: all) of a split.
    """
    if waiting := [entry.name for entry in run.outbox.entries() if entry.kind == "checkpoint"]:
        watcher.note(f"not on the Hub yet, so not scored: {', '.join(waiting)} (pricer push --run {run.name})")
    checkpoints = choose_checkpoints(run, which)
    setup = prepare(run.config())
    for checkpoint in checkpoints:
        refuse_foreign(checkpoint, setup)
    run.pin_config(setup.config)
    for note in setup.notes:
        watcher.note(note)
    spec = setup.spec(split, limit)
    with open_session(run, setup, spec, len(checkpoints), watcher) as session:
        # The baselines first, before any adapter is used: one of them is the base as it is.
        evaluations = (*evaluate_baselines(session, setup), *score(session, checkpoints))
    is_on_wandb, saved = setup.config.tracking.mode != "off", run.evaluations
    report = evaluation_report(spec, session.items, evaluations, saved.predictions) if is_on_wandb else None
    result = Evaluated(run, spec, len(session.items), evaluations, report=report)
    if which == "all":
        return result
    (checkpoint,) = checkpoints
    table = saved.scores(checkpoint.id, spec)
    assert table is not None  # kept with the evaluation
    breakdown = saved_breakdown(run, checkpoint.id, spec, table, session.items, setup.items.val)
    return replace(result, breakdown=breakdown)


def race_run(run: Run, limit: int | None, watcher: Watcher) -> Evaluated:
    """Race all checkpoints of a run on the first `limit` validation items (None: all)."""
    result = evaluate_run(run, "all", Split.VAL, limit, watcher, race_checkpoints)
    return replace(result, race=run.race())
