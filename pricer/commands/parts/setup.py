"""Check and settle everything before weights are loaded: items, template, tokens, and the limits of this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pricer.config import RunConfig
from pricer.core.checkpoints import Answers, Checkpoint
from pricer.core.data_summary import explain_summary
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
    refuse_inexact,
    refuse_zeros,
    width_for,
)
from pricer.core.units import PriceUnit, choose_decimals, choose_lead, choose_question
from pricer.data.preparation import load_items, require, training_prices
from pricer.errors import CheckpointError, DataError, ModelError, RunError
from pricer.ml.base import dense_bytes, load_base, load_tokenizer
from pricer.ml.devices import (
    PAGED,
    Precision,
    choose_optimizer,
    choose_precision,
    device_name,
    read_state,
    refuse_several_gpus,
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
from pricer.stores.bases import Base, find_base
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked parts of a run. In `config` every `auto` is settled and the revision of the base is pinned. `answers`
    is for the manifests of checkpoints.
    `price_tokens` says how prices are tokenized; None: no distribution over prices can be computed. `notes` are lines
    that the user should see once.
    """

    config: RunConfig
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


def prepare(config: RunConfig) -> Setup:
    """Read and check everything that can be wrong. Raises a PricerError before a model is loaded."""
    items = load_items(config.data)
    require(items, Split.TRAIN, config.data)
    if config.train.val_items:
        require(items, Split.VAL, config.data)
    prices, max_price, prompt = training_prices(items), items.max_train_price, config.prompt
    unit, notes = _choose_unit(config, prices)
    refuse_zeros(prices.tolist(), unit)
    precision = choose_precision(config.model)
    base = find_base(config.model)
    tokenizer = load_tokenizer(base.folder)
    tail = prompt_tail(choose_lead(prompt.lead, unit, is_padded=True))
    splits = splits_digits(tokenizer, tail)
    # Prices of this length can be decoded exactly if they are padded, but not if they are plain.
    digits = width_for([max_price], unit.decimals)
    can_pad = digits > MAX_PLAIN_DIGITS and find_digit_tokens(tokenizer, tail, digits) is not None
    price_format = choose_price_format(
        prompt.price_format,
        prompt.price_width,
        auto="padded" if splits or can_pad else "plain",
        max_price=max_price,
        unit=unit,
    )
    refuse_inexact(price_format, max_price)
    tail = prompt_tail(choose_lead(prompt.lead, unit, is_padded=price_format.width is not None))
    completions = [format_price(price, price_format) for price in np.unique(prices).tolist()]
    answer_tokens = count_answer_tokens(tokenizer, tail, completions)
    answers = Answers(price_format, answer_tokens, max_price, items.train_median)
    setup = _assemble(config, items, answers, base, tokenizer, precision)
    notes += explain_summary(items.summary, items.folder)
    if prompt.price_format == "auto" and price_format.width is not None and not splits:
        notes.append(explain_padding(price_format.width, max_price, unit))
    if setup.price_tokens is None:
        notes.append(explain_greedy(price_format.width, max_price, unit, can_pad=can_pad))
    return replace(setup, notes=tuple(notes))


def prepare_to_ask(config: RunConfig, checkpoint: Checkpoint) -> Setup:
    """The Setup for predictions by a trained checkpoint. No data are read, and `items` is empty, unless the checkpoint
    comes from another trainer and does not say how it answers.
    """
    if checkpoint.answers is None:
        try:
            return prepare(config)
        except DataError as error:
            raise DataError(
                f"{checkpoint.name} comes from another trainer and does not say how it writes prices, so its training "
                f"data are needed: {error.message}",
                error.hint,
            ) from None
    base = find_base(config.model)
    tokenizer, precision = load_tokenizer(base.folder), choose_precision(config.model)
    return _assemble(config, ItemSet(), checkpoint.answers, base, tokenizer, precision)


def _assemble(
    config: RunConfig, items: ItemSet, answers: Answers, base: Base, tokenizer: Any, precision: Precision
) -> Setup:
    """Make a Setup without notes from what is known of its answers."""
    prompt, price_format, unit = config.prompt, answers.price_format, answers.price_format.price_unit
    lead = choose_lead(prompt.lead, unit, is_padded=price_format.width is not None)
    template = PromptTemplate(choose_question(prompt.question, unit), lead, price_format, prompt.max_length)
    digits = price_format.width or width_for([answers.max_price], unit.decimals)
    price_tokens = find_price_tokens(tokenizer, prompt_tail(lead), price_format, digits)
    encoder = Encoder(tokenizer, prompt.max_length, prompt_tail(lead), answers.answer_tokens)
    encoder.check(template.prompt(Item("", "", answers.max_price)))
    estimator = choose_estimator(config.eval.estimator, unit, has_distribution=price_tokens is not None)
    revision = items.summary.revision if items.summary else None
    hit_error, _ = choose_hit_error(config.eval.hit_error, unit, answers.train_median)
    settled = {
        "model": {"revision": base.revision, "compute_dtype": precision.dtype},
        # A resumed run reads the same commit of a Hub data set.
        "data": {"unit": unit.symbol, "decimals": unit.decimals, "revision": revision or config.data.revision},
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


def _choose_unit(config: RunConfig, prices: np.ndarray) -> tuple[PriceUnit, list[str]]:
    """The unit of the prices with its step, and a note if `data.decimals: auto` chose other than whole units."""
    data = config.data
    if data.decimals != "auto":
        return PriceUnit(data.unit, data.decimals), []
    lowest, quartile, median = (float(value) for value in np.quantile(prices, [0, 0.25, 0.5]))
    decimals, why = choose_decimals(data.decimals, data.unit, lowest=lowest, lower_quartile=quartile, median=median)
    return PriceUnit(data.unit, decimals), [f"data.decimals: {decimals}, because {why}"] if decimals else []


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
