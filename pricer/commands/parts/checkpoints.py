"""A run's checkpoints: find the one that the user means, check that it fits the config, load what its scores say."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pricer.core.breakdowns import Breakdown, break_down
from pricer.core.calibration import Calibration, calibration_spec
from pricer.core.checkpoints import BEST, Answers, Checkpoint, Failure
from pricer.core.evaluation import EvalSpec, Evaluation, ScoreTable
from pricer.core.items import Item
from pricer.errors import CheckpointError, HubError, RunError
from pricer.stores.bases import names_a_folder
from pricer.stores.runs import Run

if TYPE_CHECKING:  # setup imports torch, and a report runs without torch
    from pricer.commands.parts.setup import Setup


def choose_checkpoints(run: Run, which: str) -> list[Checkpoint]:
    """The checkpoints that `which` names: all, last, best, a step, a name, or at least the first four characters of an
    id or a commit. A CheckpointError if no checkpoint matches, or more than one (except for all).
    """
    checkpoints = run.store.checkpoints()
    if not checkpoints and (damaged := run.store.damaged()):
        raise CheckpointError(f"no checkpoint of {run.name} can be read; {damaged[0].name}: {damaged[0].reason}")
    if not checkpoints:
        raise CheckpointError(f"the run {run.name} has no checkpoint yet", f"pricer train --resume --run {run.name}")
    if which in ("all", "last"):
        return checkpoints if which == "all" else checkpoints[-1:]
    if which == BEST:
        best = run.store.tagged(BEST)
        if best is None:
            raise CheckpointError(f"no best checkpoint of {run.name} has been picked yet", "pricer pick")
        return [best]
    found = [c for c in checkpoints if which in (c.name, str(c.step))]
    if not found and len(which) >= 4:
        found = [c for c in checkpoints if c.id.startswith(which) or (c.commit or "").startswith(which)]
    if len(found) != 1:
        steps = ", ".join(str(c.step) for c in checkpoints)
        what = "several checkpoints" if found else "no checkpoint"
        raise CheckpointError(f"{which} names {what} of {run.name}", f"a step ({steps}), an id, best or last")
    return found


def find_failed(run: Run, checkpoints: Sequence[Checkpoint]) -> dict[str, Failure]:
    """The checkpoints that could not be scored, by id, without those that have been put right since."""
    recorded = {failure.id: failure for failure in run.evaluations.failures()}
    return {
        c.id: recorded[c.id]
        for c in checkpoints
        if c.id in recorded and (recorded[c.id].base_revision is not None or find_problem(run, c))
    }


def find_problem(run: Run, checkpoint: Checkpoint) -> Failure | None:
    """Why the files of a checkpoint cannot be used; None if they can, or if the Hub cannot be asked."""
    try:
        run.store.fetch(checkpoint)
    except CheckpointError as error:
        return Failure(checkpoint.name, error.message, checkpoint.id)
    except HubError:
        return None  # the code that needs the files raises the error
    return None


def find_typical(checkpoints: Sequence[Checkpoint], base_revision: str | None) -> Checkpoint:
    """A checkpoint of the base with that revision (None: of any) that answers as most of them do: what a single odd one
    says must not decide how the others are asked.
    """
    fitting = [c for c in checkpoints if base_revision is None or c.base_revision in (None, base_revision)]
    (answers, _), *_ = Counter(c.answers for c in fitting or checkpoints).most_common(1)
    return next(c for c in fitting or checkpoints if c.answers == answers)


def find_foreign(
    checkpoints: Sequence[Checkpoint], setup: "Setup", *, any_data: bool = False
) -> dict[str, CheckpointError]:
    """The errors of the checkpoints that `refuse_foreign` refuses, by id."""
    refused = {}
    for checkpoint in checkpoints:
        try:
            refuse_foreign(checkpoint, setup, any_data=any_data)
        except CheckpointError as error:
            refused[checkpoint.id] = error
    return refused


def refuse_foreign(checkpoint: Checkpoint, setup: "Setup", *, any_data: bool = False) -> None:
    """Raise a CheckpointError if the checkpoint was trained with another prompt, another base or (unless `any_data`)
    other data than the setup has, or if it answers in another way. Facts that the checkpoint does not state are not
    compared.
    """
    revision, base = checkpoint.base_revision, setup.base
    # A folder may have another name on another machine. Its content is what counts.
    is_same_base = revision in (None, base.revision)
    stated = {
        "prompt": (checkpoint.prompt_fingerprint, setup.template.fingerprint),
        "data": (checkpoint.data_fingerprint, setup.items.fingerprint),
        "base": (None if is_same_base else f"{checkpoint.base}@{revision}", f"{base.name}@{base.revision}"),
    }
    for what, (trained, present) in stated.items():
        if trained not in (None, present) and not (what == "data" and any_data):
            raise CheckpointError(
                f"checkpoint step {checkpoint.step} ({checkpoint.id[:7]}) was trained with {what} {trained}, "
                f"this run has {what} {present}",
                "scores would not be comparable: put the run's config and data back as they were in training",
            )
    _refuse_other_answers(checkpoint, setup.answers)
    if revision is None and checkpoint.base != base.name and not is_local_folder(checkpoint.base):
        raise CheckpointError(
            f"checkpoint step {checkpoint.step} is an adapter of {checkpoint.base}, this config has {base.name}",
            f"--set model.base={checkpoint.base}",
        )


def _refuse_other_answers(checkpoint: Checkpoint, answers: Answers) -> None:
    if checkpoint.answers in (None, answers):
        return
    stated, present = asdict(checkpoint.answers), asdict(answers)
    other = [f"{name} {stated[name]}, not {present[name]}" for name in stated if stated[name] != present[name]]
    raise CheckpointError(
        f"the manifest of checkpoint step {checkpoint.step} ({checkpoint.id[:7]}) states {'; '.join(other)}",
        "the manifest or the run's data were changed by hand: put them back",
    )


def is_local_folder(base: str) -> bool:
    """Whether a base is named by a local folder. Another machine may not have it, or have another base there."""
    return not base.startswith("builtin:") and names_a_folder(base)


def load_scores(run: Run, evaluations: Sequence[Evaluation]) -> dict[str, ScoreTable]:
    """The scores behind these evaluations of checkpoints, by checkpoint id, to be compared item by item. Empty for a
    single evaluation. A RunError if scores are missing, or are of other items than the first ones.
    """
    if len(evaluations) < 2:
        return {}
    found: dict[str, ScoreTable] = {}
    for evaluation in evaluations:
        assert evaluation.candidate.id is not None  # no baseline is compared
        table = run.evaluations.scores(evaluation.candidate.id, evaluation.spec)
        if table is None:
            raise RunError(f"the scores of {evaluation.name} are missing", "pricer eval --all-checkpoints")
        if not table.has_items_of(next(iter(found.values()), table)):
            raise RunError(
                f"{evaluation.name} was scored on other items than {evaluations[0].name}, or in another order",
                f"remove {run.folder / 'evaluations'}, and run pricer eval --all-checkpoints",
            )
        found[evaluation.candidate.id] = table
    return found


def saved_breakdown(
    run: Run, checkpoint_id: str, spec: EvalSpec, items: Sequence[Item], near_copies: Collection[str] = ()
) -> Breakdown:
    """Break down an evaluation of a checkpoint from its scores and its saved predictions. `items` are the items of its
    spec. A KeyError if a prediction is missing.

    Intervals are corrected as `find_calibration` says. `near_copies` has the ids of the items with a near-copy among
    the training items.
    """
    table = run.evaluations.scores(checkpoint_id, spec)
    assert table is not None  # scores are kept with the evaluation
    by_id = {p.item_id: p for batch in run.evaluations.predictions(checkpoint_id, spec) for p in batch}
    predictions = [by_id[item.id] for item in items]
    return break_down(table, items, predictions, find_calibration(run, checkpoint_id, spec), near_copies=near_copies)


def find_calibration(run: Run, checkpoint_id: str, spec: EvalSpec) -> Calibration | None:
    """The correction of a checkpoint's intervals under a spec, from its answers to validation items. None if it was not
    evaluated on validation items under the same spec, or on too few, and for validation items themselves.
    """
    own = calibration_spec((e.spec for e in run.evaluations.all() if e.candidate.id == checkpoint_id), spec)
    return run.evaluations.calibration(checkpoint_id, own) if own else None
