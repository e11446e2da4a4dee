"""GPUs: the estimated memory use of a training on a GPU, and whether this machine's GPUs can train."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pricer.core.machine_checks import Finding, format_gigabytes, show_one_gpu
from pricer.core.memory import TrainingMemory, TrainingShape, fit_to_gpu, largest_micro_batch, training_memory
from pricer.errors import ModelError


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory` is the total in bytes that `torch.cuda.mem_get_info` reports, a little less than advertised. `bfloat16`:
    compute capability 8 or higher; older cards compute in float16.
    """

    name: str
    memory: int
    bfloat16: bool


# Memory in GiB as torch reports it in out-of-memory errors; it differs by a few tenths between drivers and boards.
GPUS = {
    name: Gpu(name, round(gib * 2**30), bfloat16)
    for name, gib, bfloat16 in (
        ("t4", 14.7, False),
        ("v100-16", 15.8, False),
        ("v100-32", 31.7, False),
        ("rtx-16", 15.6, True),
        ("rtx-24", 23.6, True),
        ("rtx-32", 31.4, True),
        ("l4", 22.0, True),
        ("a10", 22.0, True),
        ("l40s", 44.4, True),
        ("a100-40", 39.5, True),
        ("a100-80", 79.2, True),
        ("h100", 79.1, True),
        ("h200", 139.8, True),
    )
}


@dataclass(frozen=True, slots=True)
class Fit:
    """How a training fits on a GPU, if activations are kept, or recomputed (`checkpointing`). `whole` is the memory for
    the whole batch in one forward pass. `micro_batch` is the largest micro-batch that fits, None if none fits.
    """

    checkpointing: bool
    whole: TrainingMemory
    micro_batch: int | None


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """The estimated use of a GPU's memory by a run, for steps of `batch_size` items with `tokens` tokens each.

    `paged`: the optimizer's state may move to main memory. `dequantized`: there is room to dequantize 4-bit weights.
    `fits` has one Fit without and one with activation checkpointing; it is empty if the base is not built like Llama.
    """

    gpu: Gpu
    batch_size: int
    tokens: int
    paged: bool
    dequantized: bool
    fits: tuple[Fit, ...]


def find_gpu(name: str) -> Gpu:
    """The GPU with this name. An unknown name is a ModelError, which lists all names."""
    if found := GPUS.get(name.lower()):
        return found
    raise ModelError(f"there is no GPU known as {name}", f"known by name: {', '.join(GPUS)}")


def plan_gpu(gpu: Gpu, shape: TrainingShape | None, *, batch_size: int, tokens: int, paged: bool) -> GpuPlan:
    """Estimate the memory of a training on a GPU. `shape` is None if the base is not built like Llama."""
    if shape is None:
        return GpuPlan(gpu, batch_size, tokens, paged, dequantized=False, fits=())
    fitted = fit_to_gpu(shape, gpu.memory, is_ampere=gpu.bfloat16)
    fits = tuple(
        Fit(
            checkpointing=checkpointing,
            whole=training_memory(fitted, batch_size, tokens, checkpointing=checkpointing, accumulates=False),
            micro_batch=largest_micro_batch(fitted, gpu.memory, batch_size, tokens, checkpointing=checkpointing),
        )
        for checkpointing in (False, True)
    )
    return GpuPlan(gpu, batch_size, tokens, paged, fitted.base_bytes != shape.base_bytes, fits)


# If a smaller share of a GPU's memory is free, other processes use the GPU.
_LITTLE_GPU_SHARE = 0.8
_INSTALL = "https://pytorch.org/get-started/locally"
# Parts of torch's messages: there is no driver, and the driver offers no GPU.
_NO_DRIVER = "no NVIDIA driver"
_NONE_LEFT = "No CUDA GPUs"


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU that torch can use, or a part of one (MIG). `free` and `total` in bytes."""

    name: str
    capability: tuple[int, int]
    free: int
    total: int

    @property
    def dtype(self) -> str:
        """The compute dtype that `auto` chooses on this GPU."""
        return "bfloat16" if self.capability[0] >= 8 else "float16"


@dataclass(frozen=True, slots=True)
class Cuda:
    """What torch reports. `built_for` is the CUDA version that torch was built for. `problem` says why torch finds no
    GPU. `archs` are the architectures of its kernels (sm_75 …), empty if unknown.
    """

    torch: str
    built_for: str | None
    cards: tuple[Card, ...] = ()
    problem: str = ""
    archs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVIDIA's driver reports: its version, the newest CUDA version it supports, and the names of all GPUs. If
    `state` is not `works`, these fields are empty and `problem` says why.
    """

    state: Literal["works", "absent", "fails", "unknown"]
    version: str = ""
    cuda: str = ""
    cards: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Product:
    """How exact products with 4-bit weights are. `errors` has the relative error of each computation, compared with the
    product with dequantised weights. `quantisation` is the relative error of the dequantised weights themselves.
    """

    device: str
    dtype: str
    quantisation: float
    errors: dict[str, float]


def judge_cuda(cuda: Cuda, driver: Driver, visible: str | None) -> list[Finding]:
    """Two findings for each GPU (the GPU, its memory), and one more if there are several GPUs or none. `visible` is the
    value of CUDA_VISIBLE_DEVICES.
    """
    if not cuda.cards:
        return [_no_gpu(cuda, driver, visible)]
    several = len(cuda.cards) > 1
    findings = []
    for index, card in enumerate(cuda.cards):
        number = f" {index}" if several else ""
        capability = ".".join(str(part) for part in card.capability)
        lacks = "" if card.dtype == "bfloat16" else ", for want of bfloat16"
        text = f"{card.name}, compute capability {capability}: "
        if has_kernels(card.capability, cuda.archs):
            findings.append(Finding(f"GPU{number}", "ok", f"{text}computes in {card.dtype}{lacks}"))
        else:
            text += f"torch {cuda.torch} has nothing that runs on it (it has {', '.join(cuda.archs)})"
            oldest = min((int(found[2]), int(found[3])) for arch in cuda.archs if (found := _ARCH.fullmatch(arch)))
            other = "an older" if card.capability < oldest else "a newer"
            hint = f"install a torch built for it ({other} CUDA): {_INSTALL}"
            findings.append(Finding(f"GPU{number}", "failed", text, hint))
        taken = card.free < _LITTLE_GPU_SHARE * card.total
        hint = "other processes have the rest; nvidia-smi shows which" if taken else ""
        room = f"{format_gigabytes(card.free)} of {format_gigabytes(card.total)} free"
        findings.append(Finding(f"GPU{number} memory", "warning" if taken else "ok", room, hint))
    if several:
        text = f"{len(cuda.cards)} are visible, and pricer train takes one process for each"
        hint = f"torchrun --nproc-per-node {len(cuda.cards)} -m -- pricer train …, or for one: {show_one_gpu(visible)}"
        findings.append(Finding("GPUs", "warning", text, hint))
    return findings


def has_kernels(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """Whether torch has kernels for a GPU. `archs` comes from torch.cuda.get_arch_list; True if it is empty.

    A binary (sm_75) runs on GPUs with the same major version and at least its minor version. PTX (compute_75) runs on
    all later GPUs. A binary for one architecture (sm_90a) runs on that architecture only.
    """
    built = [found for arch in archs if (found := _ARCH.fullmatch(arch))]
    return not built or any(_runs(found, capability) for found in built)


_ARCH = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


def _runs(arch: re.Match[str], capability: tuple[int, int]) -> bool:
    built = (int(arch[2]), int(arch[3]))
    if arch[4] == "a":
        return built == capability
    if arch[1] == "compute" and not arch[4]:
        return built <= capability
    return built[0] == capability[0] and built <= capability


def _no_gpu(cuda: Cuda, driver: Driver, visible: str | None) -> Finding:
    enough = "the CPU is enough for the demo, an 8B or 3B needs a GPU"
    if driver.state == "absent":
        return Finding("GPU", "warning", f"none: {enough}")
    if driver.state == "unknown" and (cuda.built_for is None or _NO_DRIVER in cuda.problem):
        return Finding("GPU", "warning", f"none found: {enough}")
    names = ", ".join(driver.cards) or "a GPU"
    if cuda.built_for is None:
        text = f"torch {cuda.torch} is built without CUDA and cannot use {names}"
        return Finding("GPU", "warning", text, f"install a torch with CUDA: {_INSTALL}")
    if visible is not None and not visible.replace("-1", "").strip():
        return Finding("GPU", "warning", f"CUDA_VISIBLE_DEVICES={visible} hides {names}", "unset CUDA_VISIBLE_DEVICES")
    if visible is not None and driver.state == "works" and _names_none(visible, cuda, driver):
        text = f"CUDA_VISIBLE_DEVICES={visible} names no GPU here ({names})"
        return Finding("GPU", "warning", text, "unset CUDA_VISIBLE_DEVICES")
    # A driver can run code for any CUDA version with the same major version.
    hint = "does nvidia-smi work? After an update of the driver: restart the machine"
    if driver.cuda and _major(driver.cuda) < _major(cuda.built_for):
        hint = f"update the NVIDIA driver, or install a torch for CUDA {driver.cuda}: {_INSTALL}"
    return Finding("GPU", "warning", f"{names} cannot be used: {cuda.problem or 'torch does not say why'}", hint)


def _names_none(visible: str, cuda: Cuda, driver: Driver) -> bool:
    """Whether the first GPU in CUDA_VISIBLE_DEVICES does not exist. CUDA then uses no GPU."""
    first = visible.partition(",")[0].strip()
    # Only CUDA knows names such as GPU-8a… and MIG-…
    return int(first) >= len(driver.cards) if first.isdecimal() else _NONE_LEFT in cuda.problem


def judge_driver(driver: Driver, cuda: Cuda) -> Finding:
    """Report the driver's version and newest CUDA version, and the CUDA version of torch."""
    if driver.state == "absent":
        # In a container, the GPU may work although the driver's library is missing.
        text = "its library (NVML) is not here: utilisation will not be logged" if cuda.cards else "none from NVIDIA"
        return Finding("driver", "unknown", text)
    if driver.state == "unknown":
        return Finding("driver", "unknown", driver.problem)
    if driver.state == "fails":
        return Finding("driver", "warning", driver.problem, "does nvidia-smi work? If not, restart the machine")
    built = f"torch is built for {cuda.built_for}" if cuda.built_for else "torch is built without CUDA"
    return Finding("driver", "ok", f"{driver.version}, for CUDA up to {driver.cuda}; {built}")


# Maximum relative errors. They allow for rounding to 8, 11 and 24 bits of mantissa, and for another order of summation.
# A wrong kernel has an error of about 1.
_BOUNDS = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
# Maximum relative error of 4-bit NormalFloat weights. It is about 0.09 for normally distributed weights.
_QUANTISATION = 0.2


def judge_product(product: Product) -> Finding:
    """Judge whether products with 4-bit weights are right, forward and backward."""
    where = "the GPU" if product.device == "cuda" else "the CPU"
    bound = _BOUNDS[product.dtype]
    wrong = [f"{name} off by {error:.0%}" for name, error in product.errors.items() if not error <= bound]
    if not product.quantisation <= _QUANTISATION:
        wrong.insert(0, f"weights off by {product.quantisation:.0%}")
    if wrong:
        text = f"wrong on {where} in {product.dtype}: {', '.join(wrong)}"
        return Finding("4-bit product", "failed", text, "another version of bitsandbytes, or model.quantization: none")
    worst = max(product.errors.values())
    text = f"right on {where} in {product.dtype}, {f'to {worst:.0e}' if worst else 'to the last bit'}"
    return Finding("4-bit product", "ok", text)


def _major(version: str) -> int:
    return int(version.partition(".")[0])
