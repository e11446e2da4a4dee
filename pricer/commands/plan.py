"""`pricer train --dry-run`: what a run will take, before a GPU is rented for it."""

import math
from dataclasses import dataclass

from pricer.config import RunConfig
from pricer.core.items import Split
from pricer.ml.devices import Precision
from pricer.ml.plan import Sizes, measure
from pricer.stores.bases import find_base
from pricer.stores.items import load_items, local_path, require


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run. `items` are training items; where the data is not at hand they are `data.train_limit`, and
    `items_are_a_limit` says so. `too_dear` counts the items of all splits that `data.max_price` left out.
    `upload_bytes` is all checkpoints together.
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


def plan(config: RunConfig) -> Plan:
    """Work the plan out from the config, the data if it is at hand, and the base's config.json alone."""
    items, is_limit, too_dear = _train_items(config)
    steps = config.train.steps(items)
    checkpoints = math.ceil(steps / config.train.checkpoint_every)
    # The precision the run is meant for, not that of this machine: plans are made on a laptop.
    dtype = "bfloat16" if config.model.compute_dtype == "auto" else config.model.compute_dtype
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
        precision=precision.label,
    )


def _train_items(config: RunConfig) -> tuple[int, bool, int]:
    limit = config.data.train_limit
    if limit is not None and local_path(config.data) is None:
        return limit, True, 0
    items = load_items(config.data)
    return len(require(items, Split.TRAIN, config.data.source)), False, items.too_dear
