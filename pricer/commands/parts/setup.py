"""What train and eval both need before a weight is loaded: items, template, tokens and precision, all checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pricer.config import RunConfig
from pricer.core.digit_quantiles import Levels
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Item, ItemSet, Split
from pricer.core.prefix_search import Fork
from pricer.core.prices import PriceFormat, format_price, width_for
from pricer.core.prompts import PromptTemplate, tail_of
from pricer.data.reading import load_items, require
from pricer.errors import ConfigError
from pricer.ml.base import dense_bytes, load_base, load_tokenizer
from pricer.ml.devices import Precision, choose_precision, device_name
from pricer.ml.price_tokens import MOST_DIGITS, ending_of, padded_levels, writing_of
from pricer.ml.tokens import Encoder, TokenizedPrompt, splits_digits
from pricer.stores.bases import Base, find_base
from pricer.stores.runs import Run

# Dollars up to which plain prices can be read as a distribution.
_MOST = 10**MOST_DIGITS - 1


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked ingredients of a run. `config` has every `auto` settled and the base's revision pinned. `writing` is
    how the tokenizer writes prices, None where no distribution over them can be read; `ending`, the tokens that all of
    them end in. `notes` are lines that the user should see once: what was left out, and what a dear item did to the
    estimator.
    """

    config: RunConfig
    items: ItemSet
    base: Base
    tokenizer: Any
    template: PromptTemplate
    encoder: Encoder
    precision: Precision
    writing: Levels | Fork | None
    ending: Sequence[int]
    notes: tuple[str, ...]

    def with_repo(self, repo: str) -> "Setup":
        """The same with the name of the repository settled."""
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


def load_base_of(setup: Setup, run: Run | None) -> Any:
    """The base in memory, with its weights dequantized on this device or not as `run` had them before (None: as there
    is room): the last bits of an answer can depend on that.
    """
    device = device_name(setup.precision)
    known = run.facts().get("dense", {}) if run else {}
    base = load_base(setup.base.folder, setup.precision, dense=known.get(device))
    if run and setup.precision.device == "cuda" and device not in known:
        run.record(dense={**known, **dense_fact(setup, base)})
    return base


def dense_fact(setup: Setup, model: Any) -> dict[str, bool]:
    """What run.json says of this device: whether the model's weights are dequantized there."""
    return {device_name(setup.precision): not dense_bytes(model)}


def prepare(config: RunConfig) -> Setup:
    """Read and check everything that a mistake could be in; raises a PricerError before a model is loaded."""
    items = load_items(config.data)
    train = require(items, Split.TRAIN, config.data)
    if config.train.val_items:
        require(items, Split.VAL, config.data)
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
    digits = width_for([dearest])
    # Padded, prices this long can be read exactly where plain ones cannot be read at all.
    pads = digits > MOST_DIGITS and padded_levels(tokenizer, tail, digits) is not None
    template = template_for(config, splits_digits(tokenizer, tail) or pads, dearest)
    writing = writing_of(tokenizer, tail, template.price_format, template.price_format.width or digits)
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
    notes = [
        *_on_what_was_left_out(config, items),
        *([] if splits_digits(tokenizer, tail) else _on_padding(config, template, dearest)),
        *([] if writing is not None else _on_greedy_answers(template, dearest, pads)),
    ]
    ending = ending_of(tokenizer, tail, template.price_format)
    return Setup(settled, items, base, tokenizer, template, encoder, precision, writing, ending, tuple(notes))


def _on_what_was_left_out(config: RunConfig, items: ItemSet) -> list[str]:
    most = config.data.max_price
    if most is None or not items.too_dear:
        return []
    cost = "item that costs" if items.too_dear == 1 else "items that cost"
    return [f"left out: {items.too_dear:,} {cost} more than {_dollars(most)} (data.max_price)"]


def _on_padding(config: RunConfig, template: PromptTemplate, dearest: float) -> list[str]:
    """What a dear item made of `prompt.price_format: auto` where the tokenizer does not split digits."""
    width = template.price_format.width
    if config.prompt.price_format != "auto" or width is None:
        return []
    return [
        f"the dearest training item costs {_dollars(dearest)}, so prices are padded to {width} digits "
        f"(prompt.price_format: auto): the median cannot be read from plain prices of more than {MOST_DIGITS} digits; "
        f"--set data.max_price={_MOST} keeps them plain"
    ]


def _on_greedy_answers(template: PromptTemplate, dearest: float, can_pad: bool) -> list[str]:
    """Why no distribution over prices is read, and what would change that."""
    width, needed = template.price_format.width, width_for([dearest])
    if (width or needed) <= MOST_DIGITS:
        return ["this tokenizer writes different prices alike: the median cannot be read, answers are greedy"]
    remedy = f"--set data.max_price={_MOST}"
    if needed <= MOST_DIGITS:
        remedy = f"--set prompt.price_width={needed}"
    elif can_pad and width is None:
        remedy += " or --set prompt.price_format=padded"
    return [
        f"the dearest training item costs {_dollars(dearest)}, so answers are greedy: with this tokenizer the median "
        f"cannot be read from {'plain' if width is None else 'padded'} prices of more than {MOST_DIGITS} digits; "
        f"train with {remedy} to have it"
    ]


def _dollars(price: float) -> str:
    return f"${price:,.2f}".removesuffix(".00")


def estimator_for(config: RunConfig, writing: Levels | Fork | None) -> str:
    """The estimator of a config, `auto` settled; a ConfigError if it needs a distribution that cannot be read."""
    wanted = config.eval.estimator
    if wanted == "auto":
        return "greedy" if writing is None else "median"
    if writing is None and wanted != "greedy":
        raise ConfigError(
            [f"eval.estimator is {wanted}, but the way this tokenizer writes prices cannot be read as a distribution"],
            f"data.max_price: {_MOST}, or prompt.price_format: padded, or eval.estimator: greedy",
        )
    return wanted


def template_for(config: RunConfig, pads: bool, dearest: float) -> PromptTemplate:
    """The PromptTemplate of a config for a dearest training price in dollars. `auto` is padded if `pads` says so."""
    prompt = config.prompt
    style = prompt.price_format
    if style == "auto":
        style = "padded" if pads else "plain"
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
