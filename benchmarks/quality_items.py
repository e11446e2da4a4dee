"""The items of benchmarks/quality.py as tokens, prepared once for all variants, where no GPU is needed."""

import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.commands.parts.settling import Machine
from pricer.commands.parts.setup import Setup, prepare
from pricer.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from pricer.config_file import load_config
from pricer.core.items import Example, Item, Prompt
from pricer.core.prices import PriceFormat, format_price
from pricer.data.near_duplicates import Signer, find_groups
from pricer.ml.devices import Precision
from pricer.ml.tokens import Encoder, PriceTokens, TokenizedExample, TokenizedPrompt
from pricer.ml.validation import fits_format

NEIGHBOURS, NEIGHBOUR_CHARACTERS = 3, 160


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Training examples and validation prompts in one form, and what decoding needs. `val_examples` has the validation
    items whose price the format can write.
    """

    train: list[TokenizedExample]
    val: list[TokenizedPrompt]
    val_examples: list[TokenizedExample]
    price_format: PriceFormat
    answer_tokens: int
    price_tokens: PriceTokens | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """One data set. `train` has every setting of the training, with `auto` settled. `fallback` is the median training
    price, which counts where an answer has no price. `prompts` by form: `padded` is the format that pricer chose.
    """

    data: str
    base: str
    train: TrainConfig
    residual_mass: float
    fallback: float
    price_step: float
    val_ids: list[str]
    val_prices: list[float]
    prompts: dict[str, PromptSet]


def prepare_items(
    data: str,
    source: str | None,
    base: str | None,
    train_items: int | None,
    val: int | None,
    max_length: int | None = None,
) -> Prepared:
    """Prepare `demo` (the quickstart, with the default dropout) or other data, in the shape of amazon-items.jsonl.

    `max_length` is the tokens of an item at most; longer descriptions are cut. None: as configured.
    """
    limits = {"train_limit": train_items, "val_limit": val}
    if data == "demo":
        config = load_config(Path(__file__).parent.parent / "configs" / "quickstart.yaml")
    else:
        assert source, "--source FILE: where the items are"
        config = RunConfig(data=DataConfig(source=source))
    model = ModelConfig(base=base or config.model.base, quantization="none", device="cpu")
    config = config.model_copy(update={"model": model, "data": config.data.model_copy(update=limits)})
    if max_length is not None:
        config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"max_length": max_length})})
    machine = Machine(Precision("cpu", "none", "float32"), None)
    setup = prepare(config, machine)
    prompt = config.prompt.model_copy(update={"price_format": "plain", "max_length": setup.template.max_length})
    plain = prepare(config.model_copy(update={"prompt": prompt}), machine)
    neighbours = find_neighbours(setup.items.train, setup.items.val, setup.config.data.near_duplicate_similarity)
    prices = np.array([item.price for item in setup.items.train])
    shuffled = np.random.default_rng(0).permutation(prices)
    return Prepared(
        data=data,
        base=config.model.base,
        train=setup.config.train,
        residual_mass=setup.config.eval.residual_mass,
        fallback=setup.answers.train_median,
        price_step=setup.template.price_format.price_unit.step,
        val_ids=[item.id for item in setup.items.val],
        val_prices=[item.price for item in setup.items.val],
        prompts={
            "padded": _tokenize(setup, setup.encoder, None),
            "plain": _tokenize(plain, plain.encoder, None),
            "near": _tokenize(setup, setup.encoder, (neighbours, prices)),
            "shuffled": _tokenize(setup, setup.encoder, (neighbours, shuffled)),
        },
    )


def find_neighbours(train: Sequence[Item], val: Sequence[Item], similarity: float) -> np.ndarray:
    """The indices (train + val, NEIGHBOURS) of each item's nearest training items, by the cosine of TF-IDF. Never the
    item itself, nor a near-duplicate of it.
    """
    texts = [item.text for item in [*train, *val]]
    groups = find_groups(Signer().sign(texts), np.arange(len(texts)), similarity)
    # As for the baseline with ridge, but with every word that occurs.
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit(texts[: len(train)])
    weights = vectorizer.transform(texts)
    n = len(train)
    found = []
    for start in range(0, len(texts), 512):
        similar = (weights[start : start + 512] @ weights[:n].T).toarray()
        similar[groups[start : start + 512, None] == groups[:n]] = -1
        found.append(np.argsort(-similar, axis=1, kind="stable")[:, :NEIGHBOURS])
    return np.concatenate(found)


def _tokenize(setup: Setup, encoder: Encoder, shown: tuple[np.ndarray, np.ndarray] | None) -> PromptSet:
    """The tokens of all items. `shown`: each item's neighbours, and the training items' prices to show with them."""
    template, train, val = setup.template, list(setup.items.train), list(setup.items.val)
    prompts = [template.prompt(item) for item in [*train, *val]]
    if shown is not None:
        price_format, bare = template.price_format, prompts
        texts = [" ".join(item.text.split())[:NEIGHBOUR_CHARACTERS] for item in train]
        neighbours, prices = shown
        prompts = [
            replace(
                prompt,
                head=f"{prompt.head}Similar products:\n"
                + "".join(f"{texts[i]} {template.lead}{format_price(prices[i], price_format)}\n" for i in indices)
                + "\n",
            )
            for prompt, indices in zip(bare, neighbours, strict=True)
        ]
        # The description keeps its room.
        frames = [encoder.lengths([Prompt("", p.head, "", p.tail) for p in some]) for some in (prompts, bare[:1])]
        encoder = encoder.within(template.max_length + max(frames[0]) - frames[1][0])
    completions = {
        i: template.completion(item)
        for i, item in enumerate([*train, *val])
        if fits_format(item, template.price_format)
    }
    n = len(train)
    examples = encoder.examples([Example(prompts[i], completions[i]) for i in completions])
    count = sum(i < n for i in completions)
    return PromptSet(
        train=examples[:count],
        val=encoder.prompts(prompts[n:]),
        val_examples=examples[count:],
        price_format=template.price_format,
        answer_tokens=encoder.answer_tokens,
        price_tokens=setup.price_tokens,
    )


def write_prepared(prepared: Prepared, path: Path) -> None:
    """Write prepared items, for a machine that cannot prepare them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(prepared))


def read_prepared(path: Path) -> Prepared:
    """Read what `write_prepared` wrote. A pickle is run as code: read no file from elsewhere."""
    found = pickle.loads(path.read_bytes())
    assert isinstance(found, Prepared)
    return found
