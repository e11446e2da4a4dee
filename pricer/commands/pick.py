"""`pricer pick`: choose the checkpoint with the best validation result. Imports nothing heavy: it takes no time."""

from collections.abc import Sequence
from dataclasses import dataclass

from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.selection import Selection, select
from pricer.errors import RunError
from pricer.stores.runs import Run, find_run


@dataclass(frozen=True, slots=True)
class Picked:
    """What `pricer pick` returns. `unscored` are the steps of checkpoints that had no evaluation to compare."""

    run: Run
    selection: Selection
    unscored: tuple[int, ...]


def pick(name: str | None, metric: str) -> Picked:
    """Select the best checkpoint of a run, write selection.json and tag the checkpoint `best`."""
    run = find_run(name)
    checkpoints = run.store.checkpoints()
    revisions = {checkpoint.revision for checkpoint in checkpoints}
    # An evaluation of weights that are no longer kept cannot be chosen, nor compared one without today's metrics.
    candidates = [e for e in run.evaluations() if e.revision in revisions and e.is_complete]
    selection = select(comparable(candidates), metric)
    run.store.tag(next(c for c in checkpoints if c.revision == selection.revision), "best")
    run.write_selection(selection)
    scored = {e.revision for e in selection.ranking}
    return Picked(run, selection, tuple(c.step for c in checkpoints if c.revision not in scored))


def comparable(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The validation evaluations under the one spec that covers every checkpoint evaluated on validation items.

    Of several such specs, the one with most items. None that covers them all is a RunError: checkpoints measured by
    different specs cannot be ranked. Without validation evaluations all are returned, for `select` to refuse.
    """
    held_out = [e for e in evaluations if e.spec.split is Split.VAL]
    if not held_out:
        return list(evaluations)
    everything = {e.revision for e in held_out}
    by_spec: dict[str, list[Evaluation]] = {}
    for evaluation in held_out:
        by_spec.setdefault(evaluation.spec.fingerprint, []).append(evaluation)
    complete = [own for own in by_spec.values() if {e.revision for e in own} == everything]
    if not complete:
        found = "; ".join(
            f"{own[0].spec.limit or 'all'} items: steps {', '.join(str(e.step) for e in own)}"
            for own in by_spec.values()
        )
        raise RunError(
            f"no one spec covers every evaluated checkpoint, and different specs are not comparable ({found})",
            "pricer eval --all-checkpoints",
        )
    return max(complete, key=lambda own: own[0].metric("mae").n)
