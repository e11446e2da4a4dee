"""`pricer eval`: score checkpoints and baselines on held-out items. What was scored before is not scored again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pricer.commands.parts.baselines import evaluate_baselines
from pricer.commands.parts.breakdown import saved_breakdown
from pricer.commands.parts.checkpoints import choose_checkpoints, refuse_foreign
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
from pricer.stores.wandb import Report


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What `pricer eval` returns: the evaluations of the baselines, then of the checkpoints by step. `breakdown` is
    there for a single checkpoint, `race` after a race. `report` is what a tracked run shows on W&B.
    """

    run: Run
    spec: EvalSpec
    n: int
    evaluations: tuple[Evaluation, ...]
    breakdown: Breakdown | None = None
    race: RaceRecord | None = None
    report: Report | None = None


Scoring = Callable[[EvaluationSession, Sequence[Checkpoint], Watcher], list[Evaluation]]
"""How Evaluations of a run's checkpoints are made."""


def evaluate_run(
    run: Run, which: str, split: Split, limit: int | None, watcher: Watcher, score: Scoring = score_checkpoints
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
    with open_session(run, setup, split, limit, len(checkpoints), watcher) as session:
        known = []
        # Before any adapter is used: one of the baselines is the base as it is.
        for evaluation in evaluate_baselines(session, setup):
            watcher.scored(evaluation)
            known.append(evaluation)
        evaluations = score(session, checkpoints, watcher)
    spec, items = session.spec, session.items
    tracked = setup.config.tracking.mode != "off"
    report = evaluation_report(spec, items, [*known, *evaluations], run.evaluations.predictions) if tracked else None
    found = Evaluated(run, spec, len(items), (*known, *evaluations), report=report)
    if which == "all":
        return found
    (checkpoint,) = checkpoints
    table = run.evaluations.scores(checkpoint.id, spec)
    assert table is not None  # kept with the evaluation
    return replace(found, breakdown=saved_breakdown(run, checkpoint.id, spec, table, items, setup.items.val))


def race_run(run: Run, limit: int | None, watcher: Watcher) -> Evaluated:
    """Race all checkpoints of a run on the first `limit` validation items (None: all)."""
    result = evaluate_run(run, "all", Split.VAL, limit, watcher, race_checkpoints)
    return replace(result, race=run.race())
