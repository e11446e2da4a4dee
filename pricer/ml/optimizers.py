"""Optimizers and the training states they leave: where each runs, and what another device can go on from."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.trainer_pt_utils import safe_globals

from pricer.errors import CheckpointError

Format = Literal["torch", "bitsandbytes"]
"""How an optimizer names its running means: a state of one format means nothing to an optimizer of the other."""


# The Trainer says in a paragraph that a state from a machine without a GPU has no random numbers for one. Who goes on
# from such a state is told so in a line; what else may be wrong with them is still said.
logging.getLogger("transformers.trainer_pt_utils").addFilter(
    lambda record: "RNG states of the CUDA because of the following error:\n 'cuda'\n" not in record.getMessage()
)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The format of its state, and the devices (cpu, cuda) it runs on."""

    state: Format
    devices: frozenset[str]


OPTIMIZERS = {
    "adamw_torch": Optimizer("torch", frozenset({"cpu", "cuda"})),
    # One kernel for all parameters.
    "adamw_torch_fused": Optimizer("torch", frozenset({"cpu", "cuda"})),
    # On a CPU bitsandbytes has nothing to page, and warns that it "falls back". Who wants that has adamw_torch.
    "paged_adamw_32bit": Optimizer("bitsandbytes", frozenset({"cuda"})),
}
"""By their names in `train.optimizer`. The first one of a format is what `auto` meant before runs pinned it."""


def choose_optimizer(wanted: str, device: str) -> str:
    """Settle `auto`: adamw_torch_fused on a GPU, adamw_torch on the CPU."""
    if wanted != "auto":
        return wanted
    return "adamw_torch_fused" if device == "cuda" else "adamw_torch"


def optimizer_for(state: Format) -> str:
    """The optimizer that `auto` meant, before runs pinned it, where it left a state of this format."""
    return next(name for name, optimizer in OPTIMIZERS.items() if optimizer.state == state)


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a training state says of the machine that wrote it. `format` is that of its optimizer, None if it holds
    nothing; `is_scaled`: gradients were scaled, as float16 on a GPU needs; `has_gpu_random`: it holds a GPU's random
    state.
    """

    format: Format | None
    is_scaled: bool
    has_gpu_random: bool


def read_state(folder: Path) -> TrainingState:
    """The training state in a folder, maybe from another machine; a CheckpointError unless all that torch saved in it
    is numbers. Weights stay on disk.
    """
    optimizer = _numbers(folder / "optimizer.pt")
    _numbers(folder / "scheduler.pt")
    scaler, random = _numbers(folder / "scaler.pt"), _numbers(folder / "rng_state.pth")
    return TrainingState(_format(optimizer), scaler is not None, isinstance(random, dict) and "cuda" in random)


def _format(optimizer: Any) -> Format | None:
    """The Format of what an optimizer's state_dict holds for its first parameter."""
    of_parameters = optimizer.get("state") if isinstance(optimizer, dict) else None
    first = next(iter(of_parameters.values()), None) if isinstance(of_parameters, dict) else None
    names = first if isinstance(first, dict) else {}
    if "exp_avg" in names:
        return "torch"
    # bitsandbytes wraps its tensors, and reads those that are not wrapped, as they once were, as well.
    return "bitsandbytes" if "state1" in names.get("__bnb_optimizer_quant_state__", names) else None


def _numbers(path: Path) -> Any:
    """What torch saved in a file; None if there is no such file.

    The Trainer would refuse to unpickle anything but numbers as well, in a paragraph that recommends to do it all the
    same.
    """
    if not path.is_file():
        return None
    try:
        with safe_globals():
            # Mapped: an optimizer's state may be larger than memory is at this point, and only its names are asked for.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # it raises what it likes for a file that is not its own
        raise CheckpointError(f"{path} cannot be read as numbers, and nothing else is read") from None
