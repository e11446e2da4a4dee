"""`pricer data`: clean, split and count the data of a config, and show what a model gets to read of it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pricer.commands.parts.settling import describe_interval, find_warnings, planned_machine
from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.token_cache import tokenize_training
from pricer.commands.parts.watcher import Watcher
from pricer.config import RunConfig
from pricer.core.data_summary import DataSummary, explain_summary
from pricer.core.items import Split, prompt_tail
from pricer.core.prices import format_price
from pricer.core.prompt_facts import PromptFacts, PromptSample, WrittenPrice, measure_lengths
from pricer.core.units import PriceUnit
from pricer.errors import DataError
from pricer.ml.tokens import tokenize_continuations
from pricer.stores.files import write_atomically
from pricer.views.data_card import data_card

CARD = "README.md"
_SAMPLES = 3
# Training items whose prompts are measured. The first items of a split are a random sample.
_MEASURED = 4_000
# Quantiles of all prices that are shown as tokens: places in DataSummary.price_quantiles.
_SHOWN_QUANTILES = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class TrainingTokens:
    """The number of tokens that an epoch of training reads, and of descriptions that are cut."""

    count: int
    cut: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared data set. `held_out` has a sentence for each held-out split. `notes` say why prices are written so, if
    that needs a reason. `next_command` is what to do next. `tokens` is None if none were made.
    """

    source: str
    folder: Path
    summary: DataSummary
    unit: PriceUnit
    prompts: PromptFacts
    held_out: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    next_command: str
    tokens: TrainingTokens | None = None


def prepare_data(config: RunConfig, arguments: Sequence[str], watcher: Watcher) -> Prepared:
    """Make the data folder of a config, or open it if it is there, write its card, and keep the tokens in it that
    training reads. `arguments` name the config in commands. A PricerError if the data or the tokenizer of the base
    cannot be used; the weights are not needed.
    """
    setup = prepare(config, planned_machine(config), watcher.preparing)
    prepared = write_card(setup, arguments)
    table = tokenize_training(setup, watcher.preparing)
    return replace(prepared, tokens=TrainingTokens(int(table.lengths.sum()), int(table.cut.sum())))


def write_card(setup: Setup, arguments: Sequence[str] = ()) -> Prepared:
    """Describe the data of a setup, and write the card of its data folder."""
    items = setup.items
    if items.summary is None or items.folder is None:
        raise DataError(f"{setup.config.data.source} has no data folder")
    prepared = Prepared(
        source=setup.config.data.source,
        folder=items.folder,
        summary=items.summary,
        unit=setup.template.price_format.price_unit,
        prompts=_describe_prompts(setup, items.summary),
        held_out=tuple(_describe_held_out(setup)),
        notes=tuple(_explain_prices(setup)),
        warnings=tuple(dict.fromkeys([*items.summary.warnings, *find_warnings(setup)])),
        next_command=shlex.join(["pricer", "train", *arguments]),
    )
    write_atomically(items.folder / CARD, data_card(prepared))
    return prepared


def _explain_prices(setup: Setup) -> list[str]:
    """Why prices are written as they are: the reason for the decimals if there are any, and the notes of the setup that
    are not about the rows, which have tables of their own.
    """
    decimals = setup.defaults.get("data.decimals")
    reason = [f"data.decimals: {decimals.value}, because {decimals.reason}"] if decimals and decimals.value else []
    about_rows = explain_summary(setup.items.summary, setup.items.folder)
    return reason + [note for note in setup.notes if note not in about_rows]


def _describe_prompts(setup: Setup, summary: DataSummary) -> PromptFacts:
    template, items = setup.template, setup.items.train[:_MEASURED]
    lengths = setup.encoder.lengths([template.prompt(item) for item in items])
    samples = [
        PromptSample(template.prompt(item).text, template.completion(item), length)
        for item, length in zip(items[:_SAMPLES], lengths[:_SAMPLES], strict=True)
    ]
    style, default = template.price_format, setup.defaults.get("prompt.max_length")
    width = "" if style.width is None else f", {style.width} digits"
    return PromptFacts(
        base=setup.base.name,
        max_length=template.max_length,
        max_length_reason=default.reason if default else "",
        price_format=f"{style.style}{width}",
        lengths=measure_lengths(lengths, template.max_length),
        prices=tuple(_write_prices(setup, summary)),
        samples=tuple(samples),
    )


def _write_prices(setup: Setup, summary: DataSummary) -> list[WrittenPrice]:
    """A low, a middle, a high and the highest training price, as completions and tokens."""
    quantiles = [summary.price_quantiles[place] for place in _SHOWN_QUANTILES]
    style, unit = setup.template.price_format, setup.template.price_format.price_unit
    prices = sorted({unit.from_steps(max(unit.to_steps(price), 1)) for price in quantiles})
    prices = [price for price in prices if price < setup.items.max_train_price] + [setup.items.max_train_price]
    texts = [format_price(price, style) for price in prices]
    tokens = tokenize_continuations(setup.tokenizer, prompt_tail(setup.template.lead), texts)
    return [
        WrittenPrice(price, text, tuple(setup.tokenizer.decode([token]) for token in ids))
        for price, text, ids in zip(prices, texts, tokens, strict=True)
    ]


def _describe_held_out(setup: Setup) -> list[str]:
    """For each held-out split, the interval that an error on it will have."""
    sentences = []
    for split, name in ((Split.VAL, "validation"), (Split.TEST, "test")):
        if interval := describe_interval(setup.items, split, setup.template.price_format.price_unit):
            count = len(setup.items.items(split))
            sentences.append(f"{count:,} {name} items: the 95 % interval of an error is {interval} at most.")
    return sentences
