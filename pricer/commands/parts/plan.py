"""`pricer train --dry-run`: the settings, steps, sizes and memory of a run, before anybody rents a GPU for it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pricer.commands.parts.settling import (
    Facts,
    Machine,
    describe_interval,
    find_warnings,
    list_open,
    planned_machine,
    settle_defaults,
)
from pricer.commands.parts.setup import prepare
from pricer.config import RunConfig
from pricer.core.defaults import Default
from pricer.core.gpus import Gpu, GpuPlan, plan_gpu
from pricer.core.items import Split
from pricer.core.ranks import share_batch
from pricer.core.units import PriceUnit
from pricer.data.acceptance import Progress
from pricer.data.source_files import is_hub_name
from pricer.ml.base import Sizes, measure
from pricer.ml.devices import PAGED
from pricer.stores.bases import find_base


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out split: its number of items, and the 95 % interval of an error at most; None if it is unknown."""

    items: int
    interval: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run.

    `items` is the number of training items. `held_out` is None if the data was not read; `items` is then
    `data.train_limit`. `defaults` has the value and the reason of each `auto`. `upload_bytes` is the size of all
    checkpoints together.
    A batch of `batch_size` items is shared out among `processes`. Each computes its share in parts of `micro_batch`
    items, None if the machine decides.
    `gpu` is None if no GPU was named and this machine has none. `notes` are lines that `pricer train` would show, too.
    """

    items: int
    held_out: Mapping[Split, HeldOut] | None
    defaults: Mapping[str, Default]
    steps: int
    steps_per_epoch: int
    checkpoints: int
    batch_size: int
    processes: int
    micro_batch: int | None
    sizes: Sizes
    upload_bytes: int
    precision: str
    gpu: GpuPlan | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is known of a run before it is planned."""

    config: RunConfig
    defaults: Mapping[str, Default]
    items: int
    held_out: Mapping[Split, HeldOut] | None = None
    notes: tuple[str, ...] = ()


def plan(config: RunConfig, gpu: Gpu | None = None, progress: Progress | None = None, *, processes: int = 1) -> Plan:
    """Plan a run. What training would refuse is refused here, too. Of the base, only its config and tokenizer are read.

    Memory is estimated for `gpu`. None: for this machine's GPU, if the config lets the run use it. A Hub data set is
    not downloaded if `data.train_limit` says how many items there are and no setting needs more.
    """
    machine = planned_machine(config, gpu)
    gpu = machine.gpu
    limit = config.data.train_limit
    is_far = is_hub_name(config.data.source) and not Path(config.data.source).exists()
    is_read = limit is None or not is_far or config.prompt.max_length == "auto"
    prepared = _read(config, machine, progress) if is_read or limit is None else _assume(config, machine, limit)
    train = prepared.config.train
    share = share_batch(train.batch_size, processes)
    steps = train.steps(prepared.items)
    checkpoints = math.ceil(steps / train.checkpoint_every)
    sizes = measure(find_base(config.model, weights=False).folder, config.adapter, machine.precision)
    gpu_plan = (
        None
        if gpu is None
        else plan_gpu(
            gpu,
            sizes.training,
            batch_size=share,
            tokens=prepared.config.prompt.max_length,
            paged=train.optimizer == PAGED,
        )
    )
    return Plan(
        items=prepared.items,
        held_out=prepared.held_out,
        defaults=prepared.defaults,
        steps=steps,
        steps_per_epoch=train.steps_per_epoch(prepared.items),
        checkpoints=checkpoints,
        batch_size=train.batch_size,
        processes=processes,
        micro_batch=None if train.micro_batch == "auto" else min(train.micro_batch, share),
        sizes=sizes,
        upload_bytes=checkpoints * sizes.adapter_bytes,
        precision=f"{config.model.quantization}/{machine.precision.dtype}",
        gpu=gpu_plan,
        notes=prepared.notes,
    )


def _read(config: RunConfig, machine: Machine, progress: Progress | None) -> _Prepared:
    """Prepare a run as for training, with its data."""
    setup = prepare(config, machine, progress)
    items, unit = setup.items, setup.template.price_format.price_unit
    return _Prepared(
        config=setup.config,
        defaults=setup.defaults,
        items=len(items.train),
        held_out={
            split: HeldOut(len(items.items(split)), describe_interval(items, split, unit))
            for split in (Split.VAL, Split.TEST)
        },
        notes=(*setup.notes, *find_warnings(setup)),
    )


def _assume(config: RunConfig, machine: Machine, items: int) -> _Prepared:
    """Prepare a run whose data is not read, with this number of training items."""
    base = find_base(config.model, weights=False)
    settled, defaults = settle_defaults(Facts(items, None, PriceUnit(), lambda: ([], 0), config, base, machine))
    unsettled = f"not settled, because the data was not read: {', '.join(list_open(settled))}"
    return _Prepared(settled, defaults, items, notes=(unsettled,) if list_open(settled) else ())
