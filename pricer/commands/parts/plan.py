"""`pricer train --dry-run`: the steps, sizes and memory of a run, before anybody rents a GPU for it."""

import math
from dataclasses import dataclass

from pricer.config import RunConfig
from pricer.core.gpus import Gpu, GpuPlan, plan_gpu
from pricer.core.items import Split
from pricer.data.preparation import load_items, require
from pricer.data.sources import local_path
from pricer.ml.base import Sizes, measure
from pricer.ml.devices import PAGED, Precision, gpu_here
from pricer.stores.bases import find_base


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run.

    `items` is the number of training items. `items_are_a_limit`: the data is not on this machine, and `items` is
    `data.train_limit`. `items_above_max_price` is the number of items that `data.max_price` left out of all
    splits. `upload_bytes` is the size of all checkpoints together. `gpu` is None if no GPU was named and
    this machine has none.
    """

    items: int
    items_are_a_limit: bool
    items_above_max_price: int
    steps: int
    steps_per_epoch: int
    checkpoints: int
    sizes: Sizes
    upload_bytes: int
    precision: str
    gpu: GpuPlan | None


def plan(config: RunConfig, gpu: Gpu | None = None) -> Plan:
    """Plan a run. Reads only its config, its data (if they are on this machine) and the config.json of the base.

    Memory is estimated for `gpu`. None: for this machine's GPU, if the config lets the run use it.
    """
    model, train = config.model, config.train
    if gpu is None and model.device != "cpu":
        gpu = gpu_here()
    limit = config.data.train_limit
    is_limit = limit is not None and local_path(config.data) is None
    found = None if is_limit else load_items(config.data)
    items = len(require(found, Split.TRAIN, config.data)) if found else limit or 0
    steps = train.steps(items)
    checkpoints = math.ceil(steps / train.checkpoint_every)
    # The precision on the planned GPU, which this machine may not have.
    automatic = "bfloat16" if gpu is None or gpu.bfloat16 else "float16"
    dtype = automatic if model.compute_dtype == "auto" else model.compute_dtype
    sizes = measure(find_base(model, weights=False).folder, config.adapter, Precision("cpu", model.quantization, dtype))
    gpu_plan = (
        None
        if gpu is None
        else plan_gpu(
            gpu,
            sizes.training,
            batch_size=train.batch_size,
            tokens=config.prompt.max_length,
            paged=train.optimizer == PAGED,
        )
    )
    return Plan(
        items=items,
        items_are_a_limit=is_limit,
        items_above_max_price=found.summary.dropped.get("above max_price", 0) if found and found.summary else 0,
        steps=steps,
        steps_per_epoch=train.steps_per_epoch(items),
        checkpoints=checkpoints,
        sizes=sizes,
        upload_bytes=checkpoints * sizes.adapter_bytes,
        precision=f"{model.quantization}/{dtype}",
        gpu=gpu_plan,
    )
