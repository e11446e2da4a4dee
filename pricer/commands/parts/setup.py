"""Check and settle everything before weights are loaded: items, template, tokens, and the limits of this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pricer.commands.parts.settling import Facts, Machine, explain_answers, measure_lengths, settle_defaults
from pricer.config import RunConfig
from pricer.core.checkpoints import Answers, Checkpoint
from pricer.core.data_summary import explain_summary
from pricer.core.defaults import Default
from pricer.core.evaluation import EvalSpec, Scored
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
from pricer.data.acceptance import Progress
from pricer.data.preparation import load_items, require, training_prices
from pricer.errors import DataError
from pricer.ml.base import dense_bytes, load_base, load_tokenizer
from pricer.ml.devices import (
    Precision,
    choose_precision,
    device_name,
    gpu_here,
)
from pricer.ml.tokens import (
    Encoder,
    PriceTokens,
    TokenizedPrompt,
    count_answer_tokens,
    find_digit_tokens,
    find_price_tokens,
    splits_digits,
)
from pricer.stores.bases import Base, find_base, spell_as_path
from pricer.stores.runs import Run

# Maximum number of tokens of a price with the end of text. A tokenizer with one token per digit writes 27 digits in it.
_MAX_ANSWER = 32


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked parts of a run. In `config` every `auto` is settled and the revision of the base is pinned.
    `defaults` has the value and the reason of each `auto` that the data decided. `price_tokens` says how prices are
    tokenized; None: no distribution over prices can be computed. `notes` are lines that the user should see once.
    `answers` is for the manifests of checkpoints.
    """

    config: RunConfig
    defaults: Mapping[str, Default]
    items: ItemSet
    answers: Answers
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
        return self._spec(split, self.items.fingerprint, len(self.items.items(split)), limit)

    def spec_of_other_data(self, fingerprint: str, n: int, limit: int | None) -> EvalSpec:
        """The EvalSpec for scoring the first `limit` items (None: all) of `n` items that are not the run's."""
        return self._spec("data", fingerprint, n, limit)

    def _spec(self, split: Scored, fingerprint: str, n: int, limit: int | None) -> EvalSpec:
        settings, unit = self.config.eval, self.answers.price_format.price_unit
        assert settings.hit_error != "auto"  # settled with the answers
        is_searched = isinstance(self.price_tokens, PriceTrie) and settings.estimator != "greedy"
        return EvalSpec(
            data_fingerprint=fingerprint,
            split=split,
            limit=None if limit is None or limit >= n else limit,
            prompt_fingerprint=self.template.fingerprint,
            base=self.base.name,
            base_revision=self.base.revision,
            precision=self.precision.label,
            estimator=settings.estimator,
            fallback=self.answers.train_median,
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


def load_base_of(setup: Setup, run: Run | None, *, sharded: bool = False) -> Any:
    """Load the base. Weights are dequantized or not as `run` did before on this device, because the last bits of an
    answer can depend on it. With None, they are dequantized if there is room. A base that is to be `sharded` never is.
    """
    device = device_name(setup.precision)
    known = run.facts().get("dense", {}) if run else {}
    base = load_base(setup.base.folder, setup.precision, dense=known.get(device), sharded=sharded)
    if run and device not in known and not sharded:
        # Read again: while the base was loaded, another shard may have recorded another device.
        run.record(dense={**run.facts().get("dense", {}), **record_dequantized(setup, base)})
    return base


def record_dequantized(setup: Setup, model: Any) -> dict[str, bool]:
    """The fact in run.json: whether the model's weights are dequantized on this device."""
    return {device_name(setup.precision): not dense_bytes(model)}


def prepare(
    config: RunConfig, machine: Machine | None = None, progress: Progress | None = None, *, needs_val: bool = True
) -> Setup:
    """Read and check everything that can be wrong, for a machine (None: this one). `progress` is for data that is not
    prepared yet. Without `needs_val`, there may be no validation items. Raises a PricerError before a model is loaded.
    """
    items = load_items(config.data, progress)
    require(items, Split.TRAIN, config.data)
    if config.train.val_items and needs_val:
        require(items, Split.VAL, config.data)
    if machine is None:
        precision = choose_precision(config.model)
        is_limited = precision.device == "cuda" and config.prompt.max_length == "auto"
        machine = Machine(precision, gpu_here() if is_limited else None)
    prices, max_price, prompt = training_prices(items), items.max_train_price, config.prompt
    base = find_base(config.model, weights=not machine.is_planned)
    tokenizer = load_tokenizer(base.folder)
    unit, why = _choose_unit(config, prices)
    refuse_zeros(prices.tolist(), unit)
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
    question = choose_question(prompt.question, unit, items.prompts_question)
    completions = {format_price(price, price_format) for price in np.unique(prices).tolist()}
    answer_tokens = count_answer_tokens(tokenizer, prompt_tail(lead), completions)
    _refuse_endless_price(answer_tokens, max_price)
    # The length of the prompts is one of the settings that are chosen from their lengths.
    encoder = Encoder(tokenizer, 0, prompt_tail(lead), answer_tokens)
    lengths = partial(measure_lengths, encoder, PromptTemplate(question, lead, price_format, 0), items)
    settled, defaults = settle_defaults(Facts(len(items.train), items, unit, lengths, config, base, machine))
    asked = settled.prompt.model_copy(update={"question": question, "lead": lead})
    answers = Answers(price_format, answer_tokens, max_price, items.train_median)
    setup = _assemble(settled.model_copy(update={"prompt": asked}), items, answers, base, tokenizer, machine.precision)
    notes = explain_summary(items.summary, items.folder)
    if prompt.price_format == "auto" and price_format.width is not None and not splits:
        notes.append(explain_padding(price_format.width, max_price, unit))
    if setup.price_tokens is None:
        notes.append(explain_greedy(price_format.width, max_price, unit, can_pad=can_pad))
    defaults = {"data.decimals": Default(unit.decimals, why), **defaults} if why else defaults
    explained = explain_answers(config, setup.config, items, one_digit_tokens=splits)
    return replace(setup, defaults=defaults | explained, notes=tuple(notes))


def prepare_to_ask(
    config: RunConfig, checkpoint: Checkpoint, progress: Progress | None = None, machine: Machine | None = None
) -> Setup:
    """The Setup for predictions by a trained checkpoint. No data are read, and `items` is empty, unless the checkpoint
    comes from another trainer and does not say how it answers, or the config leaves the length of prompts open.
    """
    if checkpoint.answers is None:
        try:
            return prepare(config, machine, progress, needs_val=False)
        except DataError as error:
            raise DataError(
                f"{checkpoint.name} comes from another trainer and does not say how it writes prices, so its training "
                f"data are needed: {error.message}",
                error.hint,
            ) from None
    if config.prompt.max_length == "auto":  # the command line gave this config, which was never settled
        return prepare(config, machine, progress, needs_val=False)
    base = find_base(config.model)
    tokenizer, precision = load_tokenizer(base.folder), machine.precision if machine else choose_precision(config.model)
    return _assemble(config, ItemSet(), checkpoint.answers, base, tokenizer, precision)


def _assemble(
    config: RunConfig, items: ItemSet, answers: Answers, base: Base, tokenizer: Any, precision: Precision
) -> Setup:
    """Make a Setup, without notes and defaults, from what is known of its answers."""
    prompt, price_format, unit = config.prompt, answers.price_format, answers.price_format.price_unit
    assert prompt.max_length != "auto"  # settled in training
    lead = choose_lead(prompt.lead, unit, is_padded=price_format.width is not None)
    template = PromptTemplate(choose_question(prompt.question, unit), lead, price_format, prompt.max_length)
    digits = price_format.width or width_for([answers.max_price], unit.decimals)
    price_tokens = find_price_tokens(tokenizer, prompt_tail(lead), price_format, digits)
    encoder = Encoder(tokenizer, prompt.max_length, prompt_tail(lead), answers.answer_tokens)
    encoder.check(template.prompt(Item("", "", answers.max_price)))
    estimator = choose_estimator(config.eval.estimator, unit, has_distribution=price_tokens is not None)
    revision = items.summary.revision if items.summary else None
    hit_error, _ = choose_hit_error(config.eval.hit_error, unit, answers.train_median)
    given = {name: getattr(config.data, name) for name in ("source", "val_source", "test_source")}
    settled = {
        "model": {
            "base": spell_as_path(config.model.base),
            "revision": base.revision,
            "compute_dtype": precision.dtype,
        },
        "data": {
            **{name: source and spell_as_path(source) for name, source in given.items()},
            "unit": unit.symbol,
            "decimals": unit.decimals,
            # A resumed run reads the same commit of a Hub data set.
            "revision": revision or config.data.revision,
        },
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
        defaults={},
        items=items,
        answers=answers,
        base=base,
        tokenizer=tokenizer,
        template=template,
        encoder=encoder,
        precision=precision,
        price_tokens=price_tokens,
        notes=(),
    )


def _refuse_endless_price(answer_tokens: int, max_price: float) -> None:
    """Raise a DataError if a price is so high that it takes more tokens than any sensible price."""
    if answer_tokens > _MAX_ANSWER:
        raise DataError(
            f"the dearest training item costs {max_price:g}, which takes {answer_tokens:,} tokens to write",
            "data.max_price leaves out what cannot be a price",
        )


def _choose_unit(config: RunConfig, prices: np.ndarray) -> tuple[PriceUnit, str]:
    """The unit of the prices with its step, and the reason for the step; empty unless `data.decimals` is auto."""
    data = config.data
    if data.decimals != "auto":
        return PriceUnit(data.unit, data.decimals), ""
    ordered = np.sort(prices)
    lowest, quartile, median = float(ordered[0]), float(ordered[len(ordered) // 4]), float(np.median(ordered))
    decimals, why = choose_decimals(data.decimals, data.unit, lowest=lowest, lower_quartile=quartile, median=median)
    return PriceUnit(data.unit, decimals), why
