"""The device of a run: its precision, its memory, and what a launcher has set in the environment."""

import os
import resource
import sys
from dataclasses import dataclass

import psutil
import torch

from pricer.config import ModelConfig
from pricer.core.machine_checks import find_several_processes, show_one_gpu
from pricer.errors import ModelError


@dataclass(frozen=True, slots=True)
class Precision:
    """How a base is held in memory: `device` is cpu or cuda, `quantization` nf4 or none, `dtype` the compute dtype."""

    device: str
    quantization: str
    dtype: str

    @property
    def label(self) -> str:
        """Its text in an EvalSpec. It does not name the device, because precisions mean the same on any device, except
        for float16: only a GPU computes adapters in it.
        """
        if self.dtype == "float32":
            return f"{self.quantization}/{self.dtype}"
        adapter = self.dtype if is_mixed(self.device, getattr(torch, self.dtype)) else "float32"
        return f"{self.quantization}/{self.dtype}, adapter {adapter}, logits float32"


def is_mixed(device: str, dtype: torch.dtype) -> bool:
    """Whether training uses mixed precision. On the CPU there is no scaler for float16's gradients."""
    return dtype == torch.bfloat16 or (dtype == torch.float16 and device == "cuda")


def choose_precision(config: ModelConfig) -> Precision:
    """Settle `auto`: bfloat16 on a GPU from compute capability 8, float16 on older ones, float32 on the CPU."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ModelError("model.device is cuda, but this machine has no CUDA device", "model.device: auto, or cpu")
    device = "cuda" if has_gpu and config.device != "cpu" else "cpu"
    dtype: str = config.compute_dtype
    if dtype == "auto":
        if device == "cpu":
            dtype = "float32"
        else:
            dtype = "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    return Precision(device, config.quantization, dtype)


def device_name(precision: Precision) -> str:
    """The device in words, for run.json."""
    return torch.cuda.get_device_name() if precision.device == "cuda" else "cpu"


def memory(device: str) -> tuple[int, int]:
    """Bytes in use, and in total. For cuda: of the GPU, or of the part of it that is visible. For cpu: in use by this
    process, and in total in the machine.
    """
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return total - free, total
    return psutil.Process().memory_info().rss, psutil.virtual_memory().total


def peak_memory(device: str) -> int:
    """Maximum number of bytes that this process has used so far, on the GPU for cuda, in main memory for cpu."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    # In kilobytes on Linux, in bytes on a Mac.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def gpu_utilisation(device: str) -> float | None:
    """The percentage of the last second or so in which the GPU computed. None for cpu, and where it is not reported:
    for a part of a GPU, or in a container without the driver's library.
    """
    if device != "cuda":
        return None
    try:
        return float(torch.cuda.utilization())
    except Exception:  # torch passes on what the driver's library raises
        return None


def refuse_several_gpus(precision: Precision) -> None:
    """Raise a ModelError if training would see more than one GPU."""
    if precision.device == "cuda" and (count := torch.cuda.device_count()) > 1:
        # transformers would split batches over all of them (DataParallel), which neither trl nor 4-bit weights support.
        raise ModelError(
            f"several GPUs are visible ({count}), and a run trains on one",
            show_one_gpu(os.environ.get("CUDA_VISIBLE_DEVICES")),
        )


def refuse_several_processes() -> None:
    """Raise a ModelError if this is one of several processes that a launcher started."""
    if several := find_several_processes(os.environ):
        raise ModelError(*several)


# With any of these, accelerate makes even a single process a distributed training.
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
# With these, it trains differently than the run's config says.
_SETTINGS = (
    *("MIXED_PRECISION", "USE_CPU", "TORCH_DEVICE", "DYNAMO_BACKEND", "GRADIENT_ACCUMULATION_STEPS"),
    *("USE_DEEPSPEED", "USE_FSDP", "USE_MEGATRON_LM", "USE_SAGEMAKER", "USE_PARALLELISM_CONFIG"),
)
_OFF = ("", "0", "1", "no", "false")


def forget_launcher() -> list[str]:
    """Remove from the environment what a launcher has set for a single process, so that only a run's config decides how
    it is trained. Returns the settings that would have changed something, as `NAME=value`.
    """
    for name in _RANKS:
        os.environ.pop(name, None)
    settings = {f"ACCELERATE_{name}": os.environ.pop(f"ACCELERATE_{name}", "") for name in _SETTINGS}
    return [f"{name}={value}" for name, value in settings.items() if value.lower() not in _OFF]
