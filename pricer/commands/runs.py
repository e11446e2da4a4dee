"""`pricer runs`: every run here at a glance, without torch and without the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pricer.commands.pick import comparable, raced_out
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.selection import select
from pricer.errors import PricerError, RunError
from pricer.stores.runs import Run, runs_here

State = Literal["training", "interrupted", "finished", "attached", "damaged"]


@dataclass(frozen=True, slots=True)
class Overview:
    """One run. `training`: a process is at it now; `interrupted`: none is, and it is not finished; `attached`: a
    repository that was evaluated here; `damaged`: `problem` says what cannot be read, and the rest is empty.

    `step` is the newest one that was logged or kept, `steps` all that there will be, None where that is not known.
    `scored` are the checkpoints with an evaluation on validation items, `picked` is the step of the pick, which of a
    soup is the last of its `picked_members`. `best` is the lowest mean absolute error among those that `pricer pick`
    would compare, None if there are none.
    """

    name: str
    state: State
    repo: str | None = None
    step: int | None = None
    steps: int | None = None
    checkpoints: int = 0
    scored: int = 0
    picked: int | None = None
    picked_members: tuple[int, ...] = ()
    best: Evaluation | None = None
    started: str | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values; of the best what it is and where it was measured."""
        record: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__ if name != "best"}
        return {**record, "best": _best_to_json(self.best) if self.best else None}


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
        # What is damaged in a way that nobody foresaw must not hide the other runs.
        problem = f"{run.folder} cannot be read: {type(error).__name__}"
    return Overview(run.name, "damaged", problem=problem)


def _read(run: Run) -> Overview:
    facts = run.facts()
    checkpoints = run.store.checkpoints()
    kept = {checkpoint.id for checkpoint in checkpoints}
    held_out = [e for e in run.evaluations.all() if e.revision in kept and e.is_complete and e.spec.split is Split.VAL]
    picked = run.store.tagged("best")
    newest = checkpoints[-1].step if checkpoints else 0
    return Overview(
        name=run.name,
        state=_state(run, facts),
        repo=run.repo,
        step=max(newest, run.last_step()),
        steps=_steps(run, facts),
        checkpoints=len(checkpoints),
        scored=len({e.revision for e in held_out}),
        picked=picked.step if picked else None,
        picked_members=picked.member_steps if picked else (),
        best=_best(run, held_out),
        started=facts["started"],
    )


def _state(run: Run, facts: dict[str, Any]) -> State:
    if facts.get("attached"):
        return "attached"
    if facts.get("finished"):
        return "finished"
    return "training" if run.is_locked else "interrupted"


def _steps(run: Run, facts: dict[str, Any]) -> int | None:
    """All steps of a training. Of an attached run the config may be another than it was trained with."""
    items = facts.get("items")
    train = items.get("train") if isinstance(items, dict) else None
    if facts.get("attached") or not isinstance(train, int):
        return None
    return run.config().train.steps(train)


def _best(run: Run, held_out: Sequence[Evaluation]) -> Evaluation | None:
    if not held_out:
        return None
    estimator, raced = run.config().eval.estimator, raced_out(run)
    try:
        return select(comparable(held_out, estimator, raced), "mae").ranking[0]
    except RunError:
        return None  # no one spec covers them all, as `pricer pick` says at length


def _best_to_json(best: Evaluation) -> dict[str, Any]:
    mae, spec = best.metric("mae"), best.spec
    return {
        "step": best.step,
        "revision": best.revision,
        "mae": mae.value,
        "interval": mae.interval,
        "n": mae.n,
        "split": spec.split,
        "limit": spec.limit,
        "estimator": spec.estimator,
        "spec_fingerprint": spec.fingerprint,
    }
