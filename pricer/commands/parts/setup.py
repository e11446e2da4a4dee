"""Check and settle everything before weights are loaded: items, template, tokens, and the limits of this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pricer.commands.parts.settling import Facts, Machine, measure_lengths, settle_defaults
from pricer.config import RunConfig
from pricer.core.data_summary import explain_summary
from pricer.core.defaults import Default
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Item, ItemSet, PromptTemplate, Split, prompt_tail
from pricer.core.metrics import choose_hit_error
from pricer.core.prefix_search import PriceTrie
from pricer.core.prices import (
    MAX_PLAIN_DIGITS,
    choose_estimator,
    choose_price_format,
    explain_greedy,
    explain_padding,
    format_price,
    refuse_zeros,
    width_for,
)
from pricer.core.units import PriceUnit, choose_decimals, choose_lead, choose_question
from pricer.data.preparation import load_items, require
from pricer.errors import CheckpointError, DataError, ModelError, RunError
from pricer.ml.base import dense_bytes, load_base, load_tokenizer
from pricer.ml.devices import (
    PAGED,
    Precision,
    choose_optimizer,
    choose_precision,
    device_name,
    gpu_here,
    read_state,
    refuse_several_gpus,
)
from pricer.ml.tokens import Encoder, PriceTokens, TokenizedPrompt, find_digit_tokens, find_price_tokens, splits_digits
from pricer.stores.bases import Base, find_base
from pricer.stores.runs import Run

# Maximum number of tokens of a price with the end of text. A tokenizer with one token per digit writes 27 digits in it.
_MAX_ANSWER = 32


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked parts of a run. In `config` every `auto` is settled and the revision of the base is pinned.
    `defaults` has the value and the reason of each `auto` that the data decided. `price_tokens` says how prices are
    tokenized; None: no distribution over prices can be computed. `notes` are lines that the user should see once.
    """

    config: RunConfig
    defaults: Mapping[str, Default]
    items: ItemSet
    base: Base
    tokenizer: Any
    template: PromptTemplate
    encoder: Encoder
    precision: Precision
    price_tokens: PriceTokens | None
    notes: tuple[str, ...]

    def prompts(self, items: Sequence[Item]) -> list[TokenizedPrompt]:
        """The tokenized prompt of each Item, in the order of the Items."""
        return self.encoder.prompts([self.template.prompt(item) for item in items])

    def spec(self, split: Split, limit: int | None) -> EvalSpec:
        """The EvalSpec for scoring the first `limit` items (None: all) of a split."""
        settings, unit = self.config.eval, self.template.price_format.price_unit
        assert settings.hit_error != "auto"  # settled with the items
        is_searched = isinstance(self.price_tokens, PriceTrie) and settings.estimator != "greedy"
        return EvalSpec(
            data_fingerprint=self.items.fingerprint,
            split=split,
            limit=None if limit is None or limit >= len(self.items.items(split)) else limit,
            prompt_fingerprint=self.template.fingerprint,
            base=self.base.name,
            base_revision=self.base.revision,
            precision=self.precision.label,
            estimator=settings.estimator,
            fallback=self.items.train_median,
            unit=unit.symbol,
            decimals=unit.decimals,
            hit_error=settings.hit_error,
            hit_share=settings.hit_share,
            residual_mass=settings.residual_mass if is_searched else None,
        )

    @property
    def batch_tokens(self) -> int:
        """Maximum number of tokens in a batch of prompts if none was measured."""
        wanted = self.config.eval.batch_tokens
        return wanted if wanted != "auto" else 8192 if self.precision.device == "cuda" else 2048


def load_base_of(setup: Setup, run: Run | None) -> Any:
    """Load the base. Weights are dequantized or not as `run` did before on this device, because the last bits of an
    answer can depend on it. With None, they are dequantized if there is room.
    """
    device = device_name(setup.precision)
    known = run.facts().get("dense", {}) if run else {}
    base = load_base(setup.base.folder, setup.precision, dense=known.get(device))
    if run and setup.precision.device == "cuda" and device not in known:
        run.record(dense={**known, **record_dequantized(setup, base)})
    return base


def record_dequantized(setup: Setup, model: Any) -> dict[str, bool]:
    """The fact in run.json: whether the model's weights are dequantized on this device."""
    return {device_name(setup.precision): not dense_bytes(model)}


def prepare(config: RunConfig, machine: Machine | None = None) -> Setup:
    """Read and check everything that can be wrong, for a machine (None: this one). Raises a PricerError before a model
    is loaded.
    """
    items = load_items(config.data)
    require(items, Split.TRAIN, config.data)
    if config.train.val_items:
        require(items, Split.VAL, config.data)
    return _assemble(config, items, items.max_train_price, machine)


def prepare_to_ask(config: RunConfig) -> Setup:
    """The Setup for predictions by a trained checkpoint. If the config determines how prices are written, no data is
    read and `items` is empty.
    """
    width, decimals = config.prompt.price_width, config.data.decimals
    is_open = "auto" in (decimals, config.prompt.max_length)
    if config.prompt.price_format != "padded" or width is None or decimals == "auto" or is_open:
        return prepare(config)
    setup = _assemble(config, ItemSet(), PriceUnit(decimals=decimals).from_steps(10**width - 1))
    # If the number of tokens varies, the data decides how many tokens are reserved for a price.
    return setup if isinstance(setup.price_tokens, tuple) else prepare(config)


def _assemble(config: RunConfig, items: ItemSet, max_price: float, machine: Machine | None = None) -> Setup:
    """Make a Setup from Items and the highest training price."""
    if machine is None:
        precision = choose_precision(config.model)
        is_limited = precision.device == "cuda" and config.prompt.max_length == "auto"
        machine = Machine(precision, gpu_here() if is_limited else None)
    precision = machine.precision
    base = find_base(config.model, weights=not machine.is_planned)
    tokenizer = load_tokenizer(base.folder)
    prompt = config.prompt
    unit, why = _choose_unit(config, items)
    notes = [f"data.decimals: {unit.decimals}, because {why}"] if why and unit.decimals else []
    hit_error = config.eval.hit_error
    if items.train:
        refuse_zeros([item.price for item in items.train], unit)
        hit_error, _ = choose_hit_error(hit_error, unit, items.train_median)
    tail = prompt_tail(choose_lead(prompt.lead, unit, is_padded=True, found=items.prompts_lead))
    digits = width_for([max_price], unit.decimals)
    splits = splits_digits(tokenizer, tail)
    # Prices of this length can be decoded exactly if they are padded, but not if they are plain.
    can_pad = digits > MAX_PLAIN_DIGITS and find_digit_tokens(tokenizer, tail, digits) is not None
    price_format = choose_price_format(
        prompt.price_format,
        prompt.price_width,
        auto="padded" if splits or can_pad else "plain",
        max_price=max_price,
        unit=unit,
    )
    lead = choose_lead(prompt.lead, unit, is_padded=price_format.width is not None, found=items.prompts_lead)
    tail = prompt_tail(lead)
    # Its length is settled below, from the lengths of the prompts.
    template = PromptTemplate(
        choose_question(prompt.question, unit, items.prompts_question), lead, price_format, max_length=0
    )
    price_tokens = find_price_tokens(tokenizer, tail, price_format, price_format.width or digits)
    completions = [template.completion(item) for item in items.train] or [format_price(max_price, price_format)]
    encoder = Encoder(tokenizer, template.max_length, tail, completions)
    _refuse_endless_price(encoder.answer_length, max_price)
    defaults = {"data.decimals": Default(unit.decimals, why)} if why else {}
    if items.train:
        lengths = partial(measure_lengths, encoder, template, items)
        config, settled_defaults = settle_defaults(Facts(len(items.train), items, unit, lengths, config, base, machine))
        defaults |= settled_defaults
    template = replace(template, max_length=config.prompt.max_length)
    encoder = encoder.within(template.max_length)
    encoder.check(template.prompt(Item("", "", max_price)))
    estimator = choose_estimator(config.eval.estimator, unit, has_distribution=price_tokens is not None)
    notes += explain_summary(items.summary, items.folder)
    if prompt.price_format == "auto" and price_format.width is not None and not splits:
        notes.append(explain_padding(price_format.width, max_price, unit))
    if price_tokens is None:
        notes.append(explain_greedy(price_format.width, max_price, unit, can_pad=can_pad))
    revision = items.summary.revision if items.summary else None
    settled = {
        # A resumed run reads the same commit of a Hub data set.
        "data": {"revision": revision or config.data.revision, "decimals": unit.decimals},
        "model": {"revision": base.revision, "compute_dtype": precision.dtype},
        "prompt": {
            "question": template.question,
            "lead": lead,
            "price_format": price_format.style,
            "price_width": price_format.width,
        },
        "eval": {"estimator": estimator, "hit_error": hit_error},
    }
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in settled.items()}
    return Setup(
        config=config.model_copy(update=sections),
        defaults=defaults,
        items=items,
        base=base,
        tokenizer=tokenizer,
        template=template,
        encoder=encoder,
        precision=precision,
        price_tokens=price_tokens,
        notes=tuple(notes),
    )


def _refuse_endless_price(answer_length: int, max_price: float) -> None:
    """Raise a DataError if a price is so high that it takes more tokens than any sensible price."""
    if answer_length > _MAX_ANSWER:
        raise DataError(
            f"the dearest training item costs {max_price:g}, which takes {answer_length:,} tokens to write",
            "data.max_price leaves out what cannot be a price",
        )


def _choose_unit(config: RunConfig, items: ItemSet) -> tuple[PriceUnit, str]:
    """The unit of the prices with its step, and the reason for the step; empty unless `data.decimals` is auto."""
    data = config.data
    if data.decimals != "auto":
        return PriceUnit(data.unit, data.decimals), ""
    prices = sorted(item.price for item in items.train)
    decimals, why = choose_decimals(
        data.decimals, data.unit, lowest=prices[0], lower_quartile=prices[len(prices) // 4], median=items.train_median
    )
    return PriceUnit(data.unit, decimals), why


def settle_optimizer(config: RunConfig, resume: str | None = None) -> RunConfig:
    """The config with the optimizer settled for this machine. A ModelError if this machine cannot train it.

    `resume` is the command that resumes the run on another machine. None: the run is new, and its config can change.
    """
    elsewhere = resume and f"on a machine with a GPU: {resume}"
    try:
        precision = choose_precision(config.model)
    except ModelError as error:
        raise ModelError(error.message, elsewhere or error.hint) from None
    refuse_several_gpus(precision)
    optimizer = choose_optimizer(config.train.optimizer, precision.device)
    if optimizer == PAGED and precision.device == "cpu":
        why = "model.device is cpu" if config.model.device == "cpu" else "this machine has no CUDA device"
        raise ModelError(
            f"train.optimizer is {optimizer}, which needs a GPU, but {why}", elsewhere or "train.optimizer: auto"
        )
    return config.model_copy(update={"train": config.train.model_copy(update={"optimizer": optimizer})})


def settle_resumed(run: Run, state_folder: Path | None, note: Callable[[str], None]) -> RunConfig:
    """The config of a run that is resumed here from the training state in a folder (None: from the beginning). A
    PricerError if this machine cannot continue the training with the same optimizer and precision.
    """
    resume = f"pricer train --resume --run {run.name}"
    put_back = f"put {run.folder / 'config.yaml'} back as it was, or train another run"
    settled, state = settle_optimizer(run.config(), resume), read_state(state_folder) if state_folder else None
    optimizer, precision = settled.train.optimizer, choose_precision(settled.model)
    if state and state.optimizer not in (None, "bitsandbytes" if optimizer == PAGED else "torch"):
        raise CheckpointError(
            f"the training state of {run.name} was not written by train.optimizer = {optimizer}", put_back
        )
    first = run.facts().get("precision", precision.label)
    if first != precision.label:
        # On a CPU, float16 trains the adapter in float32, because there is no gradient scaler for CPUs.
        needs_gpu = first == Precision("cuda", precision.quantization, precision.dtype).label
        raise RunError(
            f"{run.name} began to train in {first}, this is {precision.label}",
            f"on a machine with a GPU: {resume}" if needs_gpu else put_back,
        )
    if state and not state.has_gpu_random and precision.device == "cuda":
        note(f"{run.name} was trained on a CPU so far; on a GPU it will not end with the same adapter bit for bit")
    return settled
