"""The optimizer of a training, and whether this machine can continue the training that another one began."""

from collections.abc import Callable
from pathlib import Path

from pricer.config import RunConfig
from pricer.errors import CheckpointError, ModelError, RunError
from pricer.ml.devices import (
    PAGED,
    Precision,
    choose_optimizer,
    choose_precision,
    read_state,
    refuse_several_gpus,
)
from pricer.stores.runs import Run


def settle_optimizer(config: RunConfig, resume: str | None = None) -> RunConfig:
    """The config with the optimizer settled for this machine. A ModelError if this machine cannot train it.

    `resume` is the command that resumes the run on another machine. None: the run is new, and its config can change.
    """
    elsewhere = resume and f"on a machine with a GPU: {resume}"
    try:
        precision = choose_precision(config.model)
    except ModelError as error:
        raise ModelError(error.message, elsewhere or error.hint) from None
    refuse_several_gpus(precision)
    optimizer = choose_optimizer(config.train.optimizer)
    if optimizer == PAGED and precision.device == "cpu":
        why = "model.device is cpu" if config.model.device == "cpu" else "this machine has no CUDA device"
        raise ModelError(
            f"train.optimizer is {optimizer}, which needs a GPU, but {why}", elsewhere or "train.optimizer: auto"
        )
    return config.model_copy(update={"train": config.train.model_copy(update={"optimizer": optimizer})})


def settle_resumed(run: Run, state_folder: Path | None, note: Callable[[str], None]) -> RunConfig:
    """The config of a run that is resumed here from the training state in a folder (None: from the beginning). A
    PricerError if this machine cannot continue the training with the same optimizer and precision.
    """
    resume = f"pricer train --resume --run {run.name}"
    put_back = f"put {run.folder / 'config.yaml'} back as it was, or train another run"
    settled, state = settle_optimizer(run.config(), resume), read_state(state_folder) if state_folder else None
    optimizer, precision = settled.train.optimizer, choose_precision(settled.model)
    if state and state.optimizer not in (None, "bitsandbytes" if optimizer == PAGED else "torch"):
        raise CheckpointError(
            f"the training state of {run.name} was not written by train.optimizer = {optimizer}", put_back
        )
    first = run.facts().get("precision", precision.label)
    if first != precision.label:
        # On a CPU, float16 trains the adapter in float32, because there is no gradient scaler for CPUs.
        needs_gpu = first == Precision("cuda", precision.quantization, precision.dtype).label
        raise RunError(
            f"{run.name} began to train in {first}, this is {precision.label}",
            f"on a machine with a GPU: {resume}" if needs_gpu else put_back,
        )
    if state and not state.has_gpu_random and precision.device == "cuda":
        note(f"{run.name} was trained on a CPU so far; on a GPU it will not end with the same adapter bit for bit")
    return settled
