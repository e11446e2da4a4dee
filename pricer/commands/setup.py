"""What train and eval both need before a weight is loaded: items, template, tokens and precision, all checked."""

from dataclasses import dataclass, replace
from typing import Any

from pricer.config import RunConfig
from pricer.core.evaluation import EvalSpec
from pricer.core.items import ItemSet, Split
from pricer.core.prices import PriceFormat, width_for
from pricer.core.prompts import PromptTemplate
from pricer.errors import ConfigError
from pricer.ml.model import Precision, choose_precision, load_tokenizer
from pricer.ml.tokens import Encoder, splits_digits
from pricer.stores.bases import Base, find_base
from pricer.stores.items import load_items, require

ESTIMATOR = "greedy"


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked ingredients of a run. `config` has every `auto` settled and the base's revision pinned."""

    config: RunConfig
    items: ItemSet
    base: Base
    tokenizer: Any
    template: PromptTemplate
    encoder: Encoder
    precision: Precision

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
            estimator=ESTIMATOR,
            fallback=self.items.train_median,
        )


def prepare(config: RunConfig) -> Setup:
    """Read and check everything that a mistake could be in; raises a PricerError before a model is loaded."""
    items = load_items(config.data)
    train = require(items, Split.TRAIN, config.data.source)
    if config.train.val_items:
        require(items, Split.VAL, config.data.source)
    precision = choose_precision(config.model)
    base = find_base(config.model)
    tokenizer = load_tokenizer(base.folder)
    template = template_for(config, splits_digits(tokenizer), max(item.price for item in train))
    encoder = Encoder(tokenizer, config.prompt.max_length, (template.completion(item) for item in train))
    encoder.check(template.prompt(train[0]))
    settled = config.model_copy(
        update={
            "model": config.model.model_copy(update={"revision": base.revision, "compute_dtype": precision.dtype}),
            "prompt": config.prompt.model_copy(
                update={
                    "price_format": template.price_format.style,
                    "price_width": template.price_format.width,
                }
            ),
        }
    )
    return Setup(settled, items, base, tokenizer, template, encoder, precision)


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
