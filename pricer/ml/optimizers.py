"""Optimizers: the devices that each runs on, and what a saved training state says of the machine it comes from."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.trainer_pt_utils import safe_globals

from pricer.errors import CheckpointError

Format = Literal["torch", "bitsandbytes"]
"""How an optimizer names its moments. A state of one format means nothing to an optimizer of the other."""

# The Trainer warns, in a paragraph, that a state from a machine without a GPU has no random state for one. We say that
# in one line when such a run is resumed. Its other warnings still appear.
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
    # On a CPU bitsandbytes has nothing to page.
    "paged_adamw_32bit": Optimizer("bitsandbytes", frozenset({"cuda"})),
}
"""The optimizers by their names in `train.optimizer`."""


def choose_optimizer(wanted: str, device: str) -> str:
    """Settle `auto`: adamw_torch_fused on a GPU, adamw_torch on the CPU."""
    if wanted != "auto":
        return wanted
    return "adamw_torch_fused" if device == "cuda" else "adamw_torch"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a training state says of the machine that wrote it. `format` is its optimizer's, None if there are no
    moments. `is_scaled`: gradients were scaled, as float16 on a GPU needs. `has_gpu_random`: there is a GPU's random
    state.
    """

    format: Format | None
    is_scaled: bool
    has_gpu_random: bool


def read_state(folder: Path) -> TrainingState:
    """The training state in a folder, maybe from another machine; a CheckpointError unless torch saved nothing but
    numbers in it. Tensors stay on disk.
    """
    optimizer = _load_numbers(folder / "optimizer.pt")
    _load_numbers(folder / "scheduler.pt")
    scaler, random = _load_numbers(folder / "scaler.pt"), _load_numbers(folder / "rng_state.pth")
    return TrainingState(_format(optimizer), scaler is not None, isinstance(random, dict) and "cuda" in random)


def _format(optimizer: Any) -> Format | None:
    """The Format of an optimizer's state_dict, by the names in its first parameter's state."""
    by_parameter = optimizer.get("state") if isinstance(optimizer, dict) else None
    first = next(iter(by_parameter.values()), None) if isinstance(by_parameter, dict) else None
    names = first if isinstance(first, dict) else {}
    if "exp_avg" in names:
        return "torch"
    return "bitsandbytes" if "state1" in names.get("__bnb_optimizer_quant_state__", names) else None


def _load_numbers(path: Path) -> Any:
    """What torch saved in a file; None if there is no such file. (The Trainer refuses pickles too, but its message
    recommends to load them all the same.)
    """
    if not path.is_file():
        return None
    try:
        with safe_globals():
            # Mapped: an optimizer's state may be larger than free memory, and only its names are used.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch raises many kinds of errors for foreign files
        raise CheckpointError(f"{path} cannot be read as numbers, and nothing else is read") from None
