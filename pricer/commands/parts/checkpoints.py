"""Which checkpoints of a run the user means, and whether they can be scored under its setup."""

from collections.abc import Collection

from pricer.commands.parts.setup import Setup
from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError
from pricer.stores.bases import names_a_folder
from pricer.stores.runs import Run


def choose_checkpoints(run: Run, which: str) -> list[Checkpoint]:
    """The checkpoints that `which` names: all, last, best, a step, a name, or the beginning of an id or a commit, four
    characters or more. A CheckpointError if no checkpoint or, except for all, more than one has that name.
    """
    checkpoints = run.store.checkpoints()
    if not checkpoints:
        raise CheckpointError(f"the run {run.name} has no checkpoint yet", f"pricer train --resume --run {run.name}")
    if which == "all":
        return checkpoints
    if which == "last":
        return checkpoints[-1:]
    if which == "best":
        best = run.store.tagged("best")
        if best is None:
            raise CheckpointError(f"no best checkpoint of {run.name} has been picked yet", "pricer pick")
        return [best]
    known = [*checkpoints, *run.store.soups()]
    found = [c for c in known if which == c.name or (which == str(c.step) and not c.members)]
    found = found or [c for c in known if len(which) >= 4 and _starts_with(c, which)]
    if len(found) != 1:
        steps = ", ".join(str(c.step) for c in checkpoints)
        what = "several checkpoints" if found else "no checkpoint"
        raise CheckpointError(f"{which} names {what} of {run.name}", f"a step ({steps}), a revision, best or last")
    return found


def _starts_with(checkpoint: Checkpoint, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in (checkpoint.id, checkpoint.commit) if name)


def refuse_foreign(checkpoint: Checkpoint, setup: Setup, checked: Collection[str] = ("prompt", "data", "base")) -> None:
    """Raise a CheckpointError if the checkpoint was trained with another prompt, data or base than the setup has.
    `checked` says which of them matter. What the checkpoint does not state is not compared.
    """
    base = None if checkpoint.base_revision is None else f"{checkpoint.base}@{checkpoint.base_revision}"
    stated = {
        "prompt": (checkpoint.prompt_fingerprint, setup.template.fingerprint),
        "data": (checkpoint.data_fingerprint, setup.items.fingerprint),
        "base": (base, f"{setup.base.name}@{setup.base.revision}"),
    }
    for what, (trained, present) in stated.items():
        if what in checked and trained is not None and trained != present:
            raise CheckpointError(
                f"checkpoint step {checkpoint.step} ({checkpoint.id[:7]}) was trained with {what} {trained}, "
                f"this run has {what} {present}",
                "scores would not be comparable: put the run's config and data back as they were in training",
            )
    if base is None and checkpoint.base != setup.base.name and not is_local_folder(checkpoint.base):
        raise CheckpointError(
            f"checkpoint step {checkpoint.step} is an adapter of {checkpoint.base}, this config has {setup.base.name}",
            f"--set model.base={checkpoint.base}",
        )


def is_local_folder(base: str) -> bool:
    """Whether a base is named by a folder. On another machine such a name means nothing, or something else."""
    return not base.startswith("builtin:") and names_a_folder(base)
