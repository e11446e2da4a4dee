"""Whether this machine can train what a config says: checked before anything is downloaded or loaded."""

from collections.abc import Callable
from pathlib import Path

from pricer.config import RunConfig
from pricer.errors import CheckpointError, ModelError, RunError
from pricer.ml.devices import (
    choose_precision,
    forget_launcher,
    refuse_several_gpus,
    refuse_several_processes,
)
from pricer.ml.optimizers import OPTIMIZERS, choose_optimizer, read_state
from pricer.stores.runs import Run


def leave_launcher(note: Callable[[str], None]) -> None:
    """Ignore what a launcher has set for a single process, with a note; a ModelError in one of several processes."""
    refuse_several_processes()
    if settings := forget_launcher():
        note(f"not used, since a run's config says how it is trained: {', '.join(settings)}")


def settle(config: RunConfig, resume: str | None = None) -> RunConfig:
    """The config with its optimizer settled for this machine; a ModelError if it cannot be trained here.

    `resume` is the command that resumes the run on another machine. None: the run is new, and its config can change.
    """
    elsewhere = resume and f"on a machine with a GPU: {resume}"
    try:
        precision = choose_precision(config.model)
    except ModelError as error:
        raise ModelError(error.message, elsewhere or error.hint) from None
    refuse_several_gpus(precision)
    optimizer = choose_optimizer(config.train.optimizer, precision.device)
    if precision.device not in OPTIMIZERS[optimizer].devices:
        why = "model.device is cpu" if config.model.device == "cpu" else "this machine has no CUDA device"
        raise ModelError(
            f"train.optimizer is {optimizer}, which needs a GPU, but {why}", elsewhere or "train.optimizer: auto"
        )
    return config.model_copy(update={"train": config.train.model_copy(update={"optimizer": optimizer})})


def settle_resumed(run: Run, state_folder: Path | None, note: Callable[[str], None]) -> RunConfig:
    """The config of a run that is resumed here from the training state in a folder (None: from the beginning). A
    PricerError if this machine cannot continue as the run was trained so far.
    """
    resume = f"pricer train --resume --run {run.name}"
    settled, state = settle(run.config(), resume), read_state(state_folder) if state_folder else None
    precision = choose_precision(settled.model)
    if state and state.format not in (None, OPTIMIZERS[settled.train.optimizer].state):
        raise CheckpointError(
            f"the training state of {run.name} was not written by train.optimizer = {settled.train.optimizer}",
            f"put {run.folder / 'config.yaml'} back as it was, or train another run",
        )
    if state and state.is_scaled and precision.device == "cpu":
        raise RunError(
            f"{run.name} is trained in float16 with scaled gradients, which needs a GPU",
            f"on a machine with a GPU: {resume}",
        )
    first = run.facts().get("precision", precision.label)
    if first != precision.label:
        raise RunError(
            f"{run.name} began to train in {first}, this is {precision.label}",
            f"put {run.folder / 'config.yaml'} back as it was, or train another run",
        )
    if state and not state.has_gpu_random and precision.device == "cuda":
        note(f"{run.name} was trained on a CPU so far; on a GPU it will not end with the same adapter bit for bit")
    return settled
