"""`pricer runs`: list every run here, without torch and without the network."""

from dataclasses import dataclass
from typing import Any, Literal

from pricer.core.checkpoints import BEST, Candidate
from pricer.core.evaluation import Evaluation
from pricer.core.selection import by_preference, dropped_ids, find_comparable, rank_evaluations
from pricer.errors import PricerError, RunError
from pricer.stores.runs import Run, runs_here

State = Literal["training", "interrupted", "finished", "from hub", "damaged"]


@dataclass(frozen=True, slots=True)
class Overview:
    """One run.

    States: `training`: a process trains it now. `interrupted`: it is not finished, and no process trains it. `from
    hub`: it is a repository that was evaluated here. `damaged`: `problem` says what cannot be read, and the other
    fields are empty.

    `step` is the newest step that was logged or kept. `steps` is the number of steps of the whole training, None if
    unknown. `waiting` counts the checkpoints that are not on the Hub yet; `checkpoints` includes them. `scored` counts
    the checkpoints that were evaluated on validation items, `failed` those that could not be scored, and the records of
    checkpoints that cannot be read. `best` has the lowest mean
    absolute error among the evaluations that `pricer pick` would compare; None if there are none.
    """

    name: str
    state: State
    repo: str | None = None
    step: int | None = None
    steps: int | None = None
    checkpoints: int = 0
    waiting: int = 0
    scored: int = 0
    failed: int = 0
    picked: Candidate | None = None
    best: Evaluation | None = None
    started: str | None = None
    problem: str | None = None


def overviews() -> list[Overview]:
    """The runs here, the newest first and damaged ones last. A RunError if there are none."""
    found = [_overview(run) for run in runs_here()]
    return sorted(found, key=lambda one: (one.started or "", one.name), reverse=True)


def _overview(run: Run) -> Overview:
    try:
        return _read(run)
    except PricerError as error:
        problem = error.message.splitlines()[0]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # An unexpected kind of damage in one run must not hide the other runs.
        problem = f"{run.folder} cannot be read: {type(error).__name__}"
    return Overview(run.name, "damaged", problem=problem)


def _read(run: Run) -> Overview:
    facts, checkpoints, evaluations = run.facts(), run.store.checkpoints(), run.evaluations.all()
    kept = {checkpoint.id for checkpoint in checkpoints}
    scored = {e.candidate.id for group in by_preference(evaluations, kept) for e in group}
    picked = run.store.tagged(BEST)
    return Overview(
        name=run.name,
        state=_state(run, facts),
        repo=run.repo,
        step=max(checkpoints[-1].step if checkpoints else 0, run.last_step()),
        steps=_steps(run, facts),
        checkpoints=len(checkpoints),
        waiting=len([c for c in run.outbox.checkpoints() if c in checkpoints and c.commit is None]) if run.repo else 0,
        scored=len(scored),
        failed=len([one for one in run.evaluations.failures() if one.id in kept]) + len(run.store.damaged()),
        picked=Candidate.of(picked) if picked else None,
        best=_best(run, evaluations, kept) if scored else None,
        started=facts["started"],
    )


def _state(run: Run, facts: dict[str, Any]) -> State:
    if facts.get("from_hub"):
        return "from hub"
    if facts.get("finished"):
        return "finished"
    return "training" if run.is_locked else "interrupted"


def _steps(run: Run, facts: dict[str, Any]) -> int | None:
    # A repository that was evaluated here may have been trained with another config.
    items = facts.get("items")
    train = items.get("train") if isinstance(items, dict) and not facts.get("from_hub") else None
    settings = run.config().train
    is_settled = "auto" not in (settings.epochs, settings.batch_size)  # unless somebody has edited the config
    return settings.steps(train) if is_settled and isinstance(train, int) else None


def _best(run: Run, evaluations: list[Evaluation], kept: set[str]) -> Evaluation | None:
    try:
        return rank_evaluations(
            find_comparable(evaluations, kept, run.config().eval.estimator, dropped_ids(run.race())), "mae"
        )[0]
    except RunError:
        return None  # the evaluations cannot be compared; `pricer pick` says why
