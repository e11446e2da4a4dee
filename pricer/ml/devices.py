"""The device of a run: precision, memory and optimizer, the effect of launchers, and the origin of a training state."""

import logging
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from transformers.trainer_pt_utils import safe_globals

from pricer.config import ModelConfig
from pricer.core.gpus import Gpu
from pricer.core.machine_checks import show_one_gpu
from pricer.core.ranks import LAUNCHED, MPI, RANDOM_STATE, Ranks, is_random_state, read_ranks
from pricer.errors import CheckpointError, ModelError

PAGED = "paged_adamw_32bit"
"""The optimizer of bitsandbytes, by its name in `train.optimizer`. It needs a GPU: on a CPU it has nothing to page."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How a base is held in memory: `device` is cpu or cuda, `quantization` nf4 or none, `dtype` the compute dtype."""

    device: str
    quantization: str
    dtype: str

    @property
    def label(self) -> str:
        """The text for an EvalSpec. It does not name the device, because a precision is the same on any device. The
        exception is float16, in which only a GPU computes adapters, so the text names the adapter's dtype.
        """
        if self.dtype == "float32":
            return f"{self.quantization}/{self.dtype}"
        adapter = self.dtype if is_mixed(self.device, getattr(torch, self.dtype)) else "float32"
        return f"{self.quantization}/{self.dtype}, adapter {adapter}, logits float32"


def is_mixed(device: str, dtype: torch.dtype) -> bool:
    """Whether training uses mixed precision. The CPU does not for float16, because it has no gradient scaler."""
    return dtype == torch.bfloat16 or (dtype == torch.float16 and device == "cuda")


def choose_precision(config: ModelConfig) -> Precision:
    """Settle `auto`: bfloat16 on a GPU from compute capability 8, float16 on older ones; on the CPU bfloat16 where that
    is fast, otherwise float32.
    """
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ModelError("model.device is cuda, but this machine has no CUDA device", "model.device: auto, or cpu")
    device = "cuda" if has_gpu and config.device != "cpu" else "cpu"
    dtype: str = config.compute_dtype
    if dtype == "auto" and device == "cpu":
        dtype = "bfloat16" if has_fast_bfloat16() else "float32"
    elif dtype == "auto":
        dtype = "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    return Precision(device, config.quantization, dtype)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 faster than in float32: with AMX, about seven times as fast.
    Instructions for bfloat16 alone (AVX512-BF16) do not make up for the conversions.
    """
    # Not every version of torch has it.
    read: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return bool(read().get("amx_bf16"))


def choose_optimizer(wanted: str) -> str:
    """Settle `auto`: adamw_torch_fused, which updates all weights in one operation."""
    return "adamw_torch_fused" if wanted == "auto" else wanted


def gpu_here() -> Gpu | None:
    """The GPU of this machine, or None."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return Gpu(properties.name, properties.total_memory, bfloat16=properties.major >= 8)


def device_name(precision: Precision) -> str:
    """The device in words, for run.json."""
    return torch.cuda.get_device_name() if precision.device == "cuda" else "cpu"


def memory(device: str) -> tuple[int, int]:
    """The bytes in use and the total bytes. For cuda, both are of the GPU, or of its visible part. For cpu, they are
    the memory of this process and the total memory of the machine.
    """
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return total - free, total
    return psutil.Process().memory_info().rss, psutil.virtual_memory().total


def free_bytes(device: str) -> int:
    """The bytes that are free: of the GPU for cuda, of main memory for cpu."""
    return int(torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available)


def peak_memory(device: str) -> int:
    """The maximum number of bytes that this process has used so far: GPU memory for cuda, main memory for cpu."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    # In kilobytes on Linux, in bytes on a Mac.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def gpu_utilisation(device: str) -> float | None:
    """The percentage of about the last second in which the GPU was busy. None for cpu, for a part of a GPU, and in a
    container without the driver's library.
    """
    if device != "cuda":
        return None
    try:
        return float(torch.cuda.utilization())
    except Exception:  # errors of the driver's library
        return None


def refuse_several_gpus(precision: Precision) -> None:
    """Raise a ModelError if this process would see more than one GPU."""
    if precision.device == "cuda" and (count := torch.cuda.device_count()) > 1:
        # transformers would split batches over all of them (DataParallel), which neither trl nor 4-bit weights support.
        raise ModelError(
            f"several GPUs are visible ({count}), and one process trains on one",
            f"torchrun --nproc-per-node {count} -m -- pricer train …, or for one GPU: "
            + show_one_gpu(os.environ.get("CUDA_VISIBLE_DEVICES")),
        )


# If one of these is set, accelerate overrides the run's config.
_SETTINGS = (
    *("MIXED_PRECISION", "USE_CPU", "TORCH_DEVICE", "DYNAMO_BACKEND", "GRADIENT_ACCUMULATION_STEPS"),
    *("USE_DEEPSPEED", "USE_FSDP", "USE_MEGATRON_LM", "USE_SAGEMAKER", "USE_PARALLELISM_CONFIG"),
)
_OFF = ("", "0", "1", "no", "false")


def leave_launcher() -> tuple[Ranks, list[str]]:
    """What a launcher says of this process, and the settings of its own that would have changed the training, as
    `NAME=value`. Its variables are removed from the environment, because only the run's config decides how it is
    trained, and because libraries would divide the work of the processes in their own ways. A ModelError as in
    `read_ranks`.
    """
    ranks = read_ranks(os.environ)
    for name in (*LAUNCHED, *MPI):
        os.environ.pop(name, None)
    settings = {f"ACCELERATE_{name}": os.environ.pop(f"ACCELERATE_{name}", "") for name in _SETTINGS}
    if ranks.sharded:
        del settings["ACCELERATE_USE_FSDP"]
    return ranks, [f"{name}={value}" for name, value in settings.items() if value.lower() not in _OFF]


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Facts about the machine that wrote a training state. `optimizer` is the library of its optimizer, None if the
    state has no moments. `has_gpu_random`: the state includes a GPU's random state.
    """

    optimizer: Literal["torch", "bitsandbytes"] | None
    has_gpu_random: bool


# For a state from a machine without a GPU, the Trainer warns in a paragraph that there is no random state for a GPU.
# pricer prints one line for this when it resumes the run. The Trainer's other warnings still appear.
logging.getLogger("transformers.trainer_pt_utils").addFilter(
    lambda record: "RNG states of the CUDA because of the following error:\n 'cuda'\n" not in record.getMessage()
)


def read_state(folder: Path) -> TrainingState:
    """Read the training state in a folder. It may come from another machine, so a CheckpointError is raised if its
    files contain anything but numbers. Tensors are not loaded into memory.
    """
    random_states = sorted(path.name for path in folder.iterdir() if is_random_state(path.name))
    names = ("optimizer.pt", "scheduler.pt", "scaler.pt", *random_states)
    found = {name: _load_numbers(folder / name) for name in names}
    optimizer, random = found["optimizer.pt"], found.get(RANDOM_STATE)
    by_parameter = optimizer.get("state") if isinstance(optimizer, dict) else None
    first = next(iter(by_parameter.values()), None) if isinstance(by_parameter, dict) else None
    moments = first if isinstance(first, dict) else {}
    library: Literal["torch", "bitsandbytes"] | None = "torch" if "exp_avg" in moments else None
    if "state1" in moments.get("__bnb_optimizer_quant_state__", moments):
        library = "bitsandbytes"
    return TrainingState(library, isinstance(random, dict) and "cuda" in random)


def _load_numbers(path: Path) -> Any:
    """The content of a file that torch saved; None if there is no file. (The Trainer refuses pickles too, but its error
    message recommends loading them.)
    """
    if not path.is_file():
        return None
    try:
        with safe_globals():
            # Mapped: an optimizer's state may be larger than free memory, and only its names are used.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch raises many kinds of errors for foreign files
        raise CheckpointError(f"{path} cannot be read as numbers, and nothing else is read") from None
