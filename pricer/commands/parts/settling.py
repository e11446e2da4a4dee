"""Settings that are `auto` and that the data decides: all of them are settled here. Also the warnings before a run that
would be wasted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pricer.config import RunConfig
from pricer.core.defaults import (
    Default,
    choose_batch_size,
    choose_checkpoint_every,
    choose_epochs,
    choose_learning_rate,
    choose_max_length,
    count_cut,
    find_waste,
    half_width,
)
from pricer.core.gpus import Gpu
from pricer.core.items import Item, ItemSet, PromptTemplate, Split
from pricer.core.memory import fit_to_gpu, largest_length
from pricer.core.metrics import choose_hit_error
from pricer.core.units import PriceUnit
from pricer.ml.base import Sizes, measure
from pricer.ml.devices import Precision, gpu_here
from pricer.ml.tokens import MIN_DESCRIPTION, Encoder
from pricer.stores.bases import Base, read_context

if TYPE_CHECKING:
    from pricer.commands.parts.setup import Setup

# Number of training items whose prices and lengths are looked at. The first items of a split are a random sample.
_SAMPLE = 4_000


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that a training is set up for. `gpu` is None for a CPU. `is_planned`: no weights are needed, because
    nothing is trained here.
    """

    precision: Precision
    gpu: Gpu | None
    is_planned: bool = False


def planned_machine(config: RunConfig, gpu: Gpu | None = None) -> Machine:
    """The machine for a config that is only looked at. `gpu` None: the GPU of this machine, if the run may use it."""
    if gpu is None and config.model.device != "cpu":
        gpu = gpu_here()
    # The precision on the planned GPU, which this machine may not have.
    automatic = "bfloat16" if gpu is None or gpu.bfloat16 else "float16"
    dtype = automatic if config.model.compute_dtype == "auto" else config.model.compute_dtype
    return Machine(Precision("cpu", config.model.quantization, dtype), gpu, is_planned=True)


@dataclass(frozen=True)
class Facts:
    """What the defaults are chosen from. `train_items` is the number of training items. `items` is None if the data was
    not read; what needs it then stays `auto`.
    """

    train_items: int
    items: ItemSet | None
    unit: PriceUnit
    lengths: Callable[[], tuple[list[int], int]]
    config: RunConfig
    base: Base
    machine: Machine

    @cached_property
    def sizes(self) -> Sizes:
        """The sizes of base and adapter."""
        return measure(self.base.folder, self.config.adapter, self.machine.precision)


def settle_defaults(facts: Facts) -> tuple[RunConfig, dict[str, Default]]:
    """The config with a value for every `auto` that the facts decide, and the reason for each, by setting."""
    config, found = facts.config, {}
    for setting, choose in _CHOICES.items():
        section, name = setting.split(".")
        values = getattr(config, section)
        if getattr(values, name) == "auto" and (default := choose(facts, config)):
            found[setting] = default
            config = config.model_copy(update={section: values.model_copy(update={name: default.value})})
    return config, found


def list_open(config: RunConfig) -> list[str]:
    """The settings that are still `auto` and that the data decides."""
    return [
        setting
        for setting in ("data.decimals", *_CHOICES, *_ANSWERS)
        if getattr(getattr(config, setting.split(".")[0]), setting.split(".")[1]) == "auto"
    ]


def measure_lengths(encoder: Encoder, template: PromptTemplate, items: ItemSet) -> tuple[list[int], int]:
    """Tokens of a sample of training prompts with the longest price, and the least that a prompt needs."""
    lengths = encoder.lengths([template.prompt(item) for item in items.train[:_SAMPLE]])
    (frame,) = encoder.lengths([template.prompt(Item("", "", 1.0))])
    return lengths, frame + MIN_DESCRIPTION


def explain_answers(
    asked: RunConfig, settled: RunConfig, items: ItemSet, *, one_digit_tokens: bool
) -> dict[str, Default]:
    """The reasons for what unit, tokenizer and ready-made prompts decided, by setting. `asked` is the config before.
    `one_digit_tokens`: the tokenizer gives each digit a token.
    """
    is_padded, is_greedy = settled.prompt.price_format == "padded", settled.eval.estimator == "greedy"
    _, why_hit = choose_hit_error("auto", settled.data.price_unit, items.train_median)
    padded = "every digit is a token" if one_digit_tokens else "the highest price is too long for a plain one"
    reasons = {
        "prompt.price_format": padded if is_padded else "this tokenizer has tokens of several digits",
        "prompt.question": "the data has ready-made prompts" if items.prompts_question else "it fits unit and step",
        "prompt.lead": "the data has ready-made prompts" if items.prompts_lead else "it fits unit and price format",
        "eval.estimator": f"{'no' if is_greedy else 'a'} distribution over prices can be computed",
        "eval.hit_error": why_hit,
    }
    found = {}
    if is_padded and asked.prompt.price_width is None:
        found["prompt.price_width"] = Default(settled.prompt.price_width, "the highest price has that many digits")
    for setting, reason in reasons.items():
        section, name = setting.split(".")
        if getattr(getattr(asked, section), name) == "auto":
            found[setting] = Default(getattr(getattr(settled, section), name), reason)
    return found


def describe_defaults(setup: "Setup") -> list[str]:
    """A line with the settings that the data decided, without whole sentences; an empty list if there are none."""
    values = [f"{name}={default.text}" for name, default in setup.defaults.items() if " " not in default.text]
    return [f"auto: {', '.join(values)} (--dry-run and run.json say why)"] if values else []


def find_warnings(setup: "Setup", cut: float | None = None) -> list[str]:
    """Sentences about what would waste a training with this Setup, each with what to set. `cut` is the share of the
    training descriptions that are cut; None: it is measured on a sample.
    """
    train, items = setup.config.train, setup.items
    lengths, least = measure_lengths(setup.encoder, setup.template, items)
    return find_waste(
        steps=train.steps(len(items.train)),
        epochs=train.epochs,
        checkpoint_every=train.checkpoint_every,
        val_items=len(items.val),
        cut=count_cut(lengths, setup.template.max_length) if cut is None else cut,
        max_length=setup.template.max_length,
        enough=int(choose_max_length(lengths, least, read_context(setup.base), None).value),
    )


def describe_interval(items: ItemSet, split: Split, unit: PriceUnit) -> str | None:
    """The 95 % interval of an error on a split, at most: `± $9`. None if there is too little data for one."""
    median = items.train_median
    half = half_width([abs(item.price - median) for item in items.train[:_SAMPLE]], len(items.items(split)))
    return None if half is None else f"± {unit.short_price(half)}"


def _choose_share(facts: Facts, split: Split) -> Default | None:
    """The share that was cut off for a split, and what its size is good for. None if the data has the split."""
    share = None
    if facts.items:
        share = facts.items.val_fraction if split is Split.VAL else facts.items.test_fraction
    if facts.items is None or share is None:
        return None
    interval = describe_interval(facts.items, split, facts.unit)
    reason = f"{len(facts.items.items(split)):,} items"
    return Default(share, f"{reason} give an error's 95 % interval of at most {interval}" if interval else reason)


def _choose_length(facts: Facts, config: RunConfig) -> Default | None:
    if facts.items is None:
        return None
    lengths, least = facts.lengths()
    context = read_context(facts.base)
    return choose_max_length(lengths, least, context, _find_room(facts, config, context or max(lengths)))


def _find_room(facts: Facts, config: RunConfig, most: int) -> int | None:
    """The length at which one pass of a training step fits into the GPU's memory; None without a GPU, or if the memory
    cannot be estimated.
    """
    gpu, train = facts.machine.gpu, config.train
    if gpu is None or facts.sizes.training is None:
        return None
    micro_batch = 1 if train.micro_batch == "auto" else min(train.micro_batch, train.batch_size)
    return largest_length(
        fit_to_gpu(facts.sizes.training, gpu.memory, is_ampere=gpu.bfloat16),
        gpu.memory,
        micro_batch,
        most,
        checkpointing=train.activation_checkpointing is not False,
        accumulates=micro_batch < train.batch_size,
    )


# How the model is asked and how its answers are written and judged. They are settled with the tokenizer.
_ANSWERS = ("prompt.price_format", "prompt.question", "prompt.lead", "eval.estimator", "eval.hit_error")
# In this order, because checkpoint_every depends on epochs and batch size, and the room in a GPU on the batch size.
_CHOICES: Mapping[str, Callable[[Facts, RunConfig], Default | None]] = {
    "data.val_fraction": lambda facts, _: _choose_share(facts, Split.VAL),
    "data.test_fraction": lambda facts, _: _choose_share(facts, Split.TEST),
    "train.batch_size": lambda facts, _: choose_batch_size(facts.train_items),
    "train.epochs": lambda facts, _: choose_epochs(facts.train_items, facts.sizes.base_parameters),
    "train.learning_rate": lambda facts, _: choose_learning_rate(facts.sizes.base_parameters),
    "train.checkpoint_every": lambda facts, config: choose_checkpoint_every(
        config.train.steps(facts.train_items), config.train.epochs
    ),
    "prompt.max_length": _choose_length,
}
