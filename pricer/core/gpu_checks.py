"""Whether the GPUs of a machine can train: what torch and NVIDIA's driver report, judged in one line each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pricer.core.machine_checks import Finding, format_gigabytes, show_one_gpu

# Share of a GPU's memory; if less is free, other processes use it.
_LITTLE_GPU_SHARE = 0.8
_INSTALL = "https://pytorch.org/get-started/locally"
# What torch says if there is no driver, and if the driver has no GPU to offer.
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
        """The compute dtype that `auto` stands for."""
        return "bfloat16" if self.capability[0] >= 8 else "float16"


@dataclass(frozen=True, slots=True)
class Cuda:
    """What torch reports. `built_for` is the CUDA version of this build, None if it has none; `problem` says why torch
    finds no GPU; `archs` are the architectures of its kernels (sm_75 …), empty if unknown.
    """

    torch: str
    built_for: str | None
    cards: tuple[Card, ...] = ()
    problem: str = ""
    archs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVIDIA's driver reports: its version, the newest CUDA it can run, and the names of all GPUs. They are empty
    unless `state` is works: there is no driver (absent), it fails, or it could not be asked (unknown). `problem` says
    why.
    """

    state: Literal["works", "absent", "fails", "unknown"]
    version: str = ""
    cuda: str = ""
    cards: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Product:
    """How exact products with 4-bit weights are. `errors` gives, for each computation, the relative distance from the
    product with the dequantised weights; `quantisation` is the relative distance of those from the original weights.
    """

    device: str
    dtype: str
    quantisation: float
    errors: dict[str, float]


def judge_cuda(cuda: Cuda, driver: Driver, visible: str | None) -> list[Finding]:
    """A finding for each GPU and its memory, and one if there are several or none. `visible`: CUDA_VISIBLE_DEVICES."""
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
            other = "an older" if card.capability < _oldest(cuda.archs) else "a newer"
            hint = f"install a torch built for it ({other} CUDA): {_INSTALL}"
            findings.append(Finding(f"GPU{number}", "failed", text, hint))
        taken = card.free < _LITTLE_GPU_SHARE * card.total
        hint = "other processes have the rest; nvidia-smi shows which" if taken else ""
        room = f"{format_gigabytes(card.free)} of {format_gigabytes(card.total)} free"
        findings.append(Finding(f"GPU{number} memory", "warning" if taken else "ok", room, hint))
    if several:
        text = f"{len(cuda.cards)} are visible, and pricer train refuses more than one"
        findings.append(Finding("GPUs", "warning", text, show_one_gpu(visible)))
    return findings


def has_kernels(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """Whether a torch built for `archs` (of torch.cuda.get_arch_list) can compute on a card. A binary (sm_75) runs on
    the same major version from its minor version on, PTX (compute_75) on all later ones, and a binary for one card
    (sm_90a) on that card alone. True if no CUDA architecture is listed.
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


def _oldest(archs: Sequence[str]) -> tuple[int, int]:
    return min((int(found[2]), int(found[3])) for arch in archs if (found := _ARCH.fullmatch(arch)))


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
    # Within a major version, an older driver runs code for a newer CUDA.
    too_old = driver.cuda != "" and _major(driver.cuda) < _major(cuda.built_for)
    hint = (
        f"update the NVIDIA driver, or install a torch for CUDA {driver.cuda}: {_INSTALL}"
        if too_old
        else "does nvidia-smi work? After an update of the driver: restart the machine"
    )
    return Finding("GPU", "warning", f"{names} cannot be used: {cuda.problem or 'torch does not say why'}", hint)


def _names_none(visible: str, cuda: Cuda, driver: Driver) -> bool:
    """Whether the first GPU that the variable names does not exist; then CUDA uses none."""
    first = visible.partition(",")[0].strip()
    if first.isdecimal():
        return int(first) >= len(driver.cards)
    # Names such as GPU-8a… and MIG-… are known to CUDA alone.
    return _NONE_LEFT in cuda.problem


def judge_driver(driver: Driver, cuda: Cuda) -> Finding:
    """The driver's version and CUDA, compared with torch's."""
    if driver.state == "absent":
        # In a container the driver's library may be missing though the card can be used.
        text = "its library (NVML) is not here: utilisation will not be logged" if cuda.cards else "none from NVIDIA"
        return Finding("driver", "unknown", text)
    if driver.state == "unknown":
        return Finding("driver", "unknown", driver.problem)
    if driver.state == "fails":
        return Finding("driver", "warning", driver.problem, "does nvidia-smi work? If not, restart the machine")
    built = f"torch is built for {cuda.built_for}" if cuda.built_for else "torch is built without CUDA"
    return Finding("driver", "ok", f"{driver.version}, for CUDA up to {driver.cuda}; {built}")


# Rounding to 8, 11 and 24 bits of mantissa, with a margin for another order of summation; a wrong kernel is off by 1.
_BOUNDS = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
# 4-bit NormalFloat is off by about 0.09 for normally distributed weights.
_QUANTISATION = 0.2


def judge_product(product: Product) -> Finding:
    """Whether products with 4-bit weights are right, forward and backward."""
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
