"""What train and eval both need before a weight is loaded: items, template, tokens and precision, all checked."""

from dataclasses import dataclass, replace
from typing import Any

from pricer.config import RunConfig
from pricer.core.evaluation import EvalSpec
from pricer.core.expansion import Fork
from pricer.core.items import Item, ItemSet, Split
from pricer.core.predictions import Estimator
from pricer.core.prices import PriceFormat, format_price, width_for
from pricer.core.prompts import PromptTemplate, tail_of
from pricer.core.walk import Levels
from pricer.errors import ConfigError
from pricer.ml.model import Precision, choose_precision, load_tokenizer
from pricer.ml.tokens import Encoder, splits_digits
from pricer.ml.writing import writing_of
from pricer.stores.bases import Base, find_base
from pricer.stores.items import load_items, require


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked ingredients of a run. `config` has every `auto` settled and the base's revision pinned. `writing` is
    how the tokenizer writes prices, None where no distribution over them can be read.
    """

    config: RunConfig
    items: ItemSet
    base: Base
    tokenizer: Any
    template: PromptTemplate
    encoder: Encoder
    precision: Precision
    writing: Levels | Fork | None

    def with_repo(self, repo: str) -> "Setup":
        """The same with the name of the repository settled."""
        hub = self.config.hub.model_copy(update={"repo": repo})
        return replace(self, config=self.config.model_copy(update={"hub": hub}))

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
            unexplored=self._unexplored,
        )

    @property
    def batch_tokens(self) -> int:
        """Most tokens in a batch of prompts where no trial is worth its time."""
        wanted = self.config.eval.batch_tokens
        if wanted == "auto":
            return 8192 if self.precision.device == "cuda" else 2048
        return wanted

    @property
    def _unexplored(self) -> float | None:
        is_expanded = isinstance(self.writing, Fork) and self.config.eval.estimator != "greedy"
        return self.config.eval.unexplored if is_expanded else None


def prepare(config: RunConfig) -> Setup:
    """Read and check everything that a mistake could be in; raises a PricerError before a model is loaded."""
    items = load_items(config.data)
    train = require(items, Split.TRAIN, config.data.source)
    if config.train.val_items:
        require(items, Split.VAL, config.data.source)
    return _assemble(config, items, max(item.price for item in train))


def prepare_to_ask(config: RunConfig) -> Setup:
    """The Setup for asking a trained checkpoint about texts. Where the config alone says how prices are written, the
    data are not needed and not read: `items` is empty.
    """
    width = config.prompt.price_width
    if config.prompt.price_format != "padded" or width is None:
        return prepare(config)
    setup = _assemble(config, ItemSet((), (), (), ""), float(10**width - 1))
    # Prices of a varying number of tokens: how many are kept free for them is known from the data alone.
    return setup if isinstance(setup.writing, tuple) else prepare(config)


def _assemble(config: RunConfig, items: ItemSet, dearest: float) -> Setup:
    """A Setup from Items and the price in dollars of the dearest one to train on."""
    precision = choose_precision(config.model)
    base = find_base(config.model)
    tokenizer = load_tokenizer(base.folder)
    tail = tail_of(config.prompt.lead)
    template = template_for(config, splits_digits(tokenizer, tail), dearest)
    writing = writing_of(tokenizer, tail, template.price_format, template.price_format.width or width_for([dearest]))
    completions = [template.completion(item) for item in items.train] or [format_price(dearest, template.price_format)]
    encoder = Encoder(tokenizer, config.prompt.max_length, tail, completions)
    encoder.check(template.prompt(Item("", "", dearest)))
    settled = config.model_copy(
        update={
            "model": config.model.model_copy(update={"revision": base.revision, "compute_dtype": precision.dtype}),
            "prompt": config.prompt.model_copy(
                update={
                    "price_format": template.price_format.style,
                    "price_width": template.price_format.width,
                }
            ),
            "eval": config.eval.model_copy(update={"estimator": estimator_for(config, writing)}),
        }
    )
    return Setup(settled, items, base, tokenizer, template, encoder, precision, writing)


def estimator_for(config: RunConfig, writing: Levels | Fork | None) -> Estimator:
    """The estimator of a config, `auto` settled; a ConfigError if it needs a distribution that cannot be read."""
    wanted = config.eval.estimator
    if wanted == "auto":
        return "greedy" if writing is None else "median"
    if writing is None and wanted != "greedy":
        raise ConfigError(
            [f"eval.estimator is {wanted}, but the way this tokenizer writes prices cannot be read as a distribution"],
            "prompt.price_format: padded, or eval.estimator: greedy",
        )
    return wanted


def template_for(config: RunConfig, digits_are_tokens: bool, dearest: float) -> PromptTemplate:
    """The PromptTemplate of a config, `auto` settled by the tokenizer and the dearest training price in dollars."""
    prompt = config.prompt
    style = prompt.price_format
    if style == "auto":
        style = "padded" if digits_are_tokens else "plain"
    width = None
    if style == "padded":
        needed = width_for([dearest])
        width = prompt.price_width or needed
        if width < needed:
            raise ConfigError(
                [f"prompt.price_width is {width}, the dearest training item costs {dearest:g}"],
                f"prompt.price_width: {needed}",
            )
    elif prompt.price_width is not None:
        raise ConfigError(
            [f"prompt.price_width is {prompt.price_width}, but a plain price has no width"],
            "prompt.price_format: padded",
        )
    return PromptTemplate(prompt.question, prompt.lead, PriceFormat(style, width), prompt.max_length)
