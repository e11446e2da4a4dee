"""GPUs by name, and what a training takes of one."""

from dataclasses import dataclass

from pricer.core.memory import TrainingMemory, TrainingShape, fit_to_gpu, largest_micro_batch, training_memory
from pricer.errors import ModelError


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory` is the total in bytes that `torch.cuda.mem_get_info` reports, a little less than what is printed on the
    box. `bfloat16`: compute capability 8 or higher; older cards compute in float16.
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
    """Training on a GPU with activations kept or (`checkpointing`) recomputed. `whole` is its memory with the whole
    batch in one forward pass; `micro_batch` is the largest number of items that fits in one, None if none does.
    """

    checkpointing: bool
    whole: TrainingMemory
    micro_batch: int | None


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """An estimate of what a run takes of a GPU, for steps of `batch_size` items with `tokens` tokens each.

    `paged`: the optimizer's state may move to main memory. `dequantized`: there is room to dequantize 4-bit weights
    once. `fits` is first without, then with activation checkpointing; empty if the base is not built like Llama.
    """

    gpu: Gpu
    batch_size: int
    tokens: int
    paged: bool
    dequantized: bool
    fits: tuple[Fit, ...]


def find_gpu(name: str) -> Gpu:
    """The GPU with this name; a ModelError that lists all names if it is unknown."""
    try:
        return GPUS[name.lower()]
    except KeyError:
        raise ModelError(f"there is no GPU known as {name}", f"known by name: {', '.join(GPUS)}") from None


def plan_gpu(gpu: Gpu, shape: TrainingShape | None, *, batch_size: int, tokens: int, paged: bool) -> GpuPlan:
    """What a training of this shape takes of a GPU. None: the base is not built like Llama."""
    if shape is None:
        return GpuPlan(gpu, batch_size, tokens, paged, dequantized=False, fits=())
    fitted = fit_to_gpu(shape, gpu.memory, is_ampere=gpu.bfloat16)
    fits = tuple(_estimate(gpu, fitted, batch_size, tokens, checkpointing) for checkpointing in (False, True))
    return GpuPlan(gpu, batch_size, tokens, paged, fitted.base_bytes != shape.base_bytes, fits)


def _estimate(gpu: Gpu, shape: TrainingShape, batch_size: int, tokens: int, checkpointing: bool) -> Fit:
    whole = training_memory(
        shape, micro_batch=batch_size, tokens=tokens, checkpointing=checkpointing, accumulates=False
    )
    micro_batch = largest_micro_batch(
        shape, gpu.memory, batch_size=batch_size, tokens=tokens, checkpointing=checkpointing
    )
    return Fit(checkpointing, whole, micro_batch)
