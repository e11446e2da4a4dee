"""Whether this machine can train what a config says: asked before anything is downloaded or loaded."""

from collections.abc import Callable
from pathlib import Path

from pricer.config import RunConfig
from pricer.errors import CheckpointError, ModelError, RunError
from pricer.ml.devices import (
    Precision,
    choose_precision,
    forget_launcher,
    refuse_several_gpus,
    refuse_several_processes,
)
from pricer.ml.optimizers import OPTIMIZERS, Format, choose_optimizer, optimizer_for, read_state
from pricer.stores.runs import Run


def leave_launcher(note: Callable[[str], None]) -> None:
    """Raise a ModelError in one of several processes; in a single one, leave to the config what a launcher has set."""
    refuse_several_processes()
    if settings := forget_launcher():
        note(f"not used, since a run's config says how it is trained: {', '.join(settings)}")


def settle(config: RunConfig, go_on: str | None = None) -> RunConfig:
    """The config with its optimizer settled for this machine; a ModelError if it cannot be trained here. `go_on` is the
    command that goes on with a run on another machine; None: it is a new run, whose config can still be changed.
    """
    elsewhere = go_on and f"on a machine with a GPU: {go_on}"
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
    return _with_optimizer(config, optimizer)


def settle_again(run: Run, folder: Path | None, note: Callable[[str], None]) -> RunConfig:
    """The config of a run that is gone on with here from the training state in `folder` (None: from the beginning). A
    PricerError if this machine cannot go on from it as the run was trained so far.
    """
    go_on = f"pricer train --resume --run {run.name}"
    config, state = run.config(), read_state(folder) if folder else None
    if state and state.format:
        config = _with_optimizer(config, _optimizer_of(config.train.optimizer, state.format, run))
    settled = settle(config, go_on)
    precision = choose_precision(settled.model)
    if state and state.is_scaled and precision.device == "cpu":
        raise RunError(
            f"{run.name} is trained in float16 with scaled gradients, which needs a GPU",
            f"on a machine with a GPU: {go_on}",
        )
    _refuse_other_precision(run, precision)
    if state and not state.has_gpu_random and precision.device == "cuda":
        note(f"{run.name} was trained on a CPU so far; on a GPU it will not end with the same adapter bit for bit")
    return settled


def _optimizer_of(wanted: str, found: Format, run: Run) -> str:
    """The optimizer that goes on with a state of the format `found`. In runs from before it was pinned, `auto` is the
    one that wrote the state.
    """
    if wanted == "auto":
        return optimizer_for(found)
    if OPTIMIZERS[wanted].state != found:
        whose = "torch's" if found == "torch" else "bitsandbytes'"
        # Both of torch's leave the same: which one it was cannot be seen.
        fused = ", or adamw_torch_fused if it ran on a GPU" if found == "torch" else ""
        raise CheckpointError(
            f"the training state of {run.name} was written by an optimizer of {whose}, its train.optimizer is {wanted}",
            f"train.optimizer: {optimizer_for(found)} in {run.folder / 'config.yaml'}{fused}",
        )
    return wanted


def _refuse_other_precision(run: Run, precision: Precision) -> None:
    began = run.facts().get("precision", precision.label)
    if began != precision.label:
        raise RunError(
            f"{run.name} began to train in {began}, this is {precision.label}",
            f"put {run.folder / 'config.yaml'} back as it was, or train another run",
        )


def _with_optimizer(config: RunConfig, optimizer: str) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"optimizer": optimizer})})
