"""What train and eval both need before a weight is loaded: items, template, tokens and precision, all checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pricer.config import RunConfig
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Item, ItemSet, Split
from pricer.core.prefix_search import PriceTrie
from pricer.core.price_format import (
    MAX_PLAIN_DIGITS,
    choose_estimator,
    choose_price_format,
    explain_greedy,
    explain_left_out,
    explain_padding,
)
from pricer.core.prices import PriceFormat, format_price, width_for
from pricer.core.prompts import PromptTemplate, tail_of
from pricer.data.reading import load_items, require
from pricer.ml.base import dense_bytes, load_base, load_tokenizer
from pricer.ml.devices import Precision, choose_precision, device_name
from pricer.ml.price_tokens import PriceTokens, find_digit_tokens, find_price_suffix, find_price_tokens
from pricer.ml.tokens import Encoder, TokenizedPrompt, splits_digits
from pricer.stores.bases import Base, find_base
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked ingredients of a run. `config` has every `auto` settled and the base's revision pinned.
    `price_tokens` says how prices are tokenized; None: no distribution over them can be computed. `price_suffix` are
    the tokens that all prices end with. `notes` are lines that the user should see once.
    """

    config: RunConfig
    items: ItemSet
    base: Base
    tokenizer: Any
    template: PromptTemplate
    encoder: Encoder
    precision: Precision
    price_tokens: PriceTokens | None
    price_suffix: Sequence[int]
    notes: tuple[str, ...]

    def with_repo(self, repo: str) -> "Setup":
        """The same Setup with the name of the repository settled."""
        hub = self.config.hub.model_copy(update={"repo": repo})
        return replace(self, config=self.config.model_copy(update={"hub": hub}))

    def prompts(self, items: Sequence[Item]) -> list[TokenizedPrompt]:
        """The tokenized prompt of each Item, in their order."""
        return self.encoder.prompts([self.template.prompt(item) for item in items])

    def spec(self, split: Split, limit: int | None) -> EvalSpec:
        """The EvalSpec of scoring the first `limit` items (None: all) of a split."""
        return EvalSpec(
            data_fingerprint=self.items.fingerprint,
            split=split,
            limit=None if limit is None or limit >= len(self.items.items(split)) else limit,
            prompt_fingerprint=self.template.fingerprint,
            base=self.base.name,
            base_revision=self.base.revision,
            precision=self.precision.label,
            estimator=self.config.eval.estimator,
            fallback=self.items.train_median,
            residual_mass=self._residual_mass,
        )

    @property
    def batch_tokens(self) -> int:
        """Maximum number of tokens in a batch of prompts where none was found by measurement."""
        wanted = self.config.eval.batch_tokens
        if wanted == "auto":
            return 8192 if self.precision.device == "cuda" else 2048
        return wanted

    @property
    def _residual_mass(self) -> float | None:
        is_searched = isinstance(self.price_tokens, PriceTrie) and self.config.eval.estimator != "greedy"
        return self.config.eval.residual_mass if is_searched else None


def load_base_of(setup: Setup, run: Run | None) -> Any:
    """The base in memory. On this device, its weights are dequantized or not as `run` had them before (None: as there
    is room), because the last bits of an answer can depend on that.
    """
    device = device_name(setup.precision)
    known = run.facts().get("dense", {}) if run else {}
    base = load_base(setup.base.folder, setup.precision, dense=known.get(device))
    if run and setup.precision.device == "cuda" and device not in known:
        run.record(dense={**known, **dense_fact(setup, base)})
    return base


def dense_fact(setup: Setup, model: Any) -> dict[str, bool]:
    """The fact in run.json: whether the model's weights are dequantized on this device."""
    return {device_name(setup.precision): not dense_bytes(model)}


def prepare(config: RunConfig) -> Setup:
    """Read and check everything that can be wrong; raises a PricerError before a model is loaded."""
    items = load_items(config.data)
    train = require(items, Split.TRAIN, config.data)
    if config.train.val_items:
        require(items, Split.VAL, config.data)
    return _assemble(config, items, max(item.price for item in train))


def prepare_to_ask(config: RunConfig) -> Setup:
    """The Setup for predictions by a trained checkpoint. If the config alone says how prices are written, no data is
    read and `items` is empty.
    """
    width = config.prompt.price_width
    if config.prompt.price_format != "padded" or width is None:
        return prepare(config)
    setup = _assemble(config, ItemSet((), (), (), ""), float(10**width - 1))
    # Where the number of tokens varies, the data decides how many are reserved for a price.
    return setup if isinstance(setup.price_tokens, tuple) else prepare(config)


def _assemble(config: RunConfig, items: ItemSet, max_price: float) -> Setup:
    """A Setup from Items and the highest price in dollars to train on."""
    precision = choose_precision(config.model)
    base = find_base(config.model)
    tokenizer = load_tokenizer(base.folder)
    prompt = config.prompt
    tail = tail_of(prompt.lead)
    digits = width_for([max_price])
    splits = splits_digits(tokenizer, tail)
    # Prices of this length can be decoded exactly if padded, and not at all if plain.
    can_pad = digits > MAX_PLAIN_DIGITS and find_digit_tokens(tokenizer, tail, digits) is not None
    price_format = choose_price_format(
        prompt.price_format, prompt.price_width, auto="padded" if splits or can_pad else "plain", max_price=max_price
    )
    template = PromptTemplate(prompt.question, prompt.lead, price_format, prompt.max_length)
    price_tokens = find_price_tokens(tokenizer, tail, price_format, price_format.width or digits)
    completions = [template.completion(item) for item in items.train] or [format_price(max_price, price_format)]
    encoder = Encoder(tokenizer, prompt.max_length, tail, completions)
    encoder.check(template.prompt(Item("", "", max_price)))
    estimator = choose_estimator(config.eval.estimator, has_distribution=price_tokens is not None)
    notes = explain_left_out(items.too_dear, config.data.max_price)
    if prompt.price_format == "auto" and price_format.width is not None and not splits:
        notes.append(explain_padding(price_format.width, max_price))
    if price_tokens is None:
        notes.append(explain_greedy(price_format.width, max_price, can_pad=can_pad))
    return Setup(
        config=_settle(config, base.revision, precision.dtype, price_format, estimator),
        items=items,
        base=base,
        tokenizer=tokenizer,
        template=template,
        encoder=encoder,
        precision=precision,
        price_tokens=price_tokens,
        price_suffix=find_price_suffix(tokenizer, tail, price_format),
        notes=tuple(notes),
    )


def _settle(
    config: RunConfig, revision: str | None, compute_dtype: str, price_format: PriceFormat, estimator: str
) -> RunConfig:
    """The config with these values in place of `auto`."""
    changes = {
        "model": {"revision": revision, "compute_dtype": compute_dtype},
        "prompt": {"price_format": price_format.style, "price_width": price_format.width},
        "eval": {"estimator": estimator},
    }
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
    return config.model_copy(update=sections)
