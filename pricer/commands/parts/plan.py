"""`pricer train --dry-run`: what a run will take, before a GPU is rented for it."""

import math
from dataclasses import dataclass

from pricer.config import RunConfig
from pricer.core.gpus import GPUS, Gpu
from pricer.core.items import Split
from pricer.core.memory import TrainingMemory, TrainingShape, largest_micro_batch, on_card, training_memory
from pricer.data.reading import load_items, require
from pricer.data.sources import local_path
from pricer.errors import ModelError
from pricer.ml.base_sizes import Sizes, gpu_here, measure
from pricer.ml.devices import Precision
from pricer.stores.bases import find_base


@dataclass(frozen=True, slots=True)
class Fit:
    """Training on a GPU with activations kept, or (`checkpointing`) recomputed: `whole` is its memory with the whole
    batch in one forward pass, `micro_batch` the most items in one that fit, None if not even one does.
    """

    checkpointing: bool
    whole: TrainingMemory
    micro_batch: int | None


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """What the run takes of a GPU, estimated for `batch_size` items in an optimizer step, of `tokens` each.

    `paged`: the optimizer's state may move to main memory. `dequantized`: 4-bit weights are, once, for there is room.
    `fits` is first without, then with activation checkpointing; it is empty where the base is not built like Llama.
    """

    gpu: Gpu
    batch_size: int
    tokens: int
    paged: bool
    dequantized: bool
    fits: tuple[Fit, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run. `items` are training items; where the data is not at hand they are `data.train_limit`, and
    `items_are_a_limit` says so. `too_dear` counts the items of all splits that `data.max_price` left out.
    `upload_bytes` is all checkpoints together. `gpu` is None where none was named and none is there.
    """

    items: int
    items_are_a_limit: bool
    too_dear: int
    steps: int
    steps_per_epoch: int
    checkpoints: int
    sizes: Sizes
    upload_bytes: int
    precision: str
    gpu: GpuPlan | None


def find_gpu(name: str) -> Gpu:
    """The GPU of that name; a ModelError with all names if it is not known."""
    try:
        return GPUS[name.lower()]
    except KeyError:
        raise ModelError(f"there is no GPU known as {name}", f"known by name: {', '.join(GPUS)}") from None


def plan(config: RunConfig, gpu: Gpu | None = None) -> Plan:
    """Work the plan out from the config, the data if it is at hand, and the base's config.json alone.

    Memory is estimated for `gpu`; if None, for the one that is here and that the config lets the run use.
    """
    if gpu is None and config.model.device != "cpu":
        gpu = gpu_here()
    items, is_limit, too_dear = _train_items(config)
    steps = config.train.steps(items)
    checkpoints = math.ceil(steps / config.train.checkpoint_every)
    # The precision the run is meant for, not that of this machine: plans are made on a laptop.
    automatic = "bfloat16" if gpu is None or gpu.bfloat16 else "float16"
    dtype = automatic if config.model.compute_dtype == "auto" else config.model.compute_dtype
    precision = Precision("cpu", config.model.quantization, dtype)
    sizes = measure(find_base(config.model, weights=False).folder, config.adapter, precision)
    return Plan(
        items=items,
        items_are_a_limit=is_limit,
        too_dear=too_dear,
        steps=steps,
        steps_per_epoch=config.train.steps_per_epoch(items),
        checkpoints=checkpoints,
        sizes=sizes,
        upload_bytes=checkpoints * sizes.adapter_bytes,
        precision=f"{config.model.quantization}/{dtype}",
        gpu=_on_gpu(gpu, sizes.training, config) if gpu else None,
    )


def _on_gpu(gpu: Gpu, shape: TrainingShape | None, config: RunConfig) -> GpuPlan:
    batch_size = config.train.batch_size
    tokens = config.prompt.max_length
    paged = config.train.optimizer == "paged_adamw_32bit"
    if shape is None:
        return GpuPlan(gpu, batch_size, tokens, paged, dequantized=False, fits=())
    there = on_card(shape, gpu.memory, is_ampere=gpu.bfloat16)
    fits = tuple(_fit(gpu, there, batch_size, tokens, again) for again in (False, True))
    return GpuPlan(gpu, batch_size, tokens, paged, there.base_bytes != shape.base_bytes, fits)


def _fit(gpu: Gpu, shape: TrainingShape, batch_size: int, tokens: int, checkpointing: bool) -> Fit:
    whole = training_memory(
        shape, micro_batch=batch_size, tokens=tokens, checkpointing=checkpointing, accumulates=False
    )
    micro_batch = largest_micro_batch(
        shape, gpu.memory, batch_size=batch_size, tokens=tokens, checkpointing=checkpointing
    )
    return Fit(checkpointing, whole, micro_batch)


def _train_items(config: RunConfig) -> tuple[int, bool, int]:
    limit = config.data.train_limit
    if limit is not None and local_path(config.data) is None:
        return limit, True, 0
    items = load_items(config.data)
    return len(require(items, Split.TRAIN, config.data)), False, items.too_dear
