"""`pricer runs`: every run here at a glance, without torch and without the network."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import Evaluation
from pricer.core.selection import by_preference, comparable, dropped_ids, ranked
from pricer.errors import PricerError, RunError
from pricer.stores.runs import Run, runs_here

State = Literal["training", "interrupted", "finished", "attached", "damaged"]


@dataclass(frozen=True, slots=True)
class Overview:
    """One run. `training`: a process is at it now; `interrupted`: none is, and it is not finished; `attached`: a
    repository that was evaluated here; `damaged`: `problem` says what cannot be read, and the rest is empty.

    `step` is the newest step that was logged or kept, `steps` the number of steps of the whole training, None where
    that is not known. `scored` counts the checkpoints with an evaluation on validation items, `picked` is the pick.
    `best` has the lowest mean absolute error among the evaluations that `pricer pick` would compare, None if there are
    none.
    """

    name: str
    state: State
    repo: str | None = None
    step: int | None = None
    steps: int | None = None
    checkpoints: int = 0
    scored: int = 0
    picked: Candidate | None = None
    best: Evaluation | None = None
    started: str | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values; of the best evaluation the error, and how it was measured."""
        record: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        picked = asdict(self.picked) if self.picked else None
        return {**record, "picked": picked, "best": _best_to_json(self.best) if self.best else None}


def overviews() -> list[Overview]:
    """The runs here, the newest first and damaged ones last; a RunError if there are none."""
    found = [_overview(run) for run in runs_here()]
    return sorted(found, key=lambda one: (one.started or "", one.name), reverse=True)


def _overview(run: Run) -> Overview:
    try:
        return _read(run)
    except PricerError as error:
        problem = error.message.splitlines()[0]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # A run that is damaged in an unforeseen way must not hide the other runs.
        problem = f"{run.folder} cannot be read: {type(error).__name__}"
    return Overview(run.name, "damaged", problem=problem)


def _read(run: Run) -> Overview:
    facts = run.facts()
    checkpoints = run.store.checkpoints()
    evaluations = run.evaluations.all()
    kept = {checkpoint.id for checkpoint in checkpoints}
    scored = {e.candidate.id for own in by_preference(evaluations, kept) for e in own}
    picked = run.store.tagged("best")
    newest = checkpoints[-1].step if checkpoints else 0
    return Overview(
        name=run.name,
        state=_state(run, facts),
        repo=run.repo,
        step=max(newest, run.last_step()),
        steps=_steps(run, facts),
        checkpoints=len(checkpoints),
        scored=len(scored),
        picked=Candidate.of(picked) if picked else None,
        best=_best(run, evaluations, kept) if scored else None,
        started=facts["started"],
    )


def _state(run: Run, facts: dict[str, Any]) -> State:
    if facts.get("attached"):
        return "attached"
    if facts.get("finished"):
        return "finished"
    return "training" if run.is_locked else "interrupted"


def _steps(run: Run, facts: dict[str, Any]) -> int | None:
    """The number of steps of the whole training. None for an attached run: its config may not be the one it was
    trained with.
    """
    items = facts.get("items")
    train = items.get("train") if isinstance(items, dict) else None
    if facts.get("attached") or not isinstance(train, int):
        return None
    return run.config().train.steps(train)


def _best(run: Run, evaluations: list[Evaluation], kept: set[str]) -> Evaluation | None:
    try:
        return ranked(comparable(evaluations, kept, run.config().eval.estimator, dropped_ids(run.race())), "mae")[0]
    except RunError:
        return None  # no one spec covers them all; `pricer pick` says so in full


def _best_to_json(best: Evaluation) -> dict[str, Any]:
    mae, spec = best.metric("mae"), best.spec
    return {
        "candidate": asdict(best.candidate),
        "mae": mae.value,
        "interval": mae.interval,
        "n": mae.n,
        "split": spec.split,
        "limit": spec.limit,
        "estimator": spec.estimator,
        "spec_fingerprint": spec.fingerprint,
    }
