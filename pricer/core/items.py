"""Items: products with a price, their permanent assignment to splits, and the prompts that ask for their price."""

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from pricer.core.prices import PriceFormat, format_price


class Split(StrEnum):
    """A part of the data: `train` for training, `val` for choosing a checkpoint, `test` for the final number only."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Item:
    """A product. `price` is above zero; `title` and `category` are None if the data has none."""

    id: str
    description: str
    price: float
    title: str | None = None
    category: str | None = None

    @property
    def text(self) -> str:
        """Everything that the model is told about the product: the title, if there is one, above the description."""
        return f"{self.title}\n{self.description}" if self.title else self.description


def hash_place(text: str) -> float:
    """The place of a text between 0 and 1, from a hash of its words. Texts with the same words have the same place, so
    a test item never repeats a training item word for word.
    """
    words = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def assign_split(place: float, val_fraction: float, test_fraction: float) -> Split:
    """The split of an Item, from its place. It does not change when other items are added."""
    if place < test_fraction:
        return Split.TEST
    return Split.VAL if place < test_fraction + val_fraction else Split.TRAIN


@dataclass(frozen=True, slots=True)
class ItemSet:
    """All Items of a run by split. Each split is sorted by place. `fingerprint` is a hash that changes with any Item.
    `items_above_max_price` is the number of Items that were left out because they cost more than `data.max_price`.
    `folder` is the data folder that they were read from, or None.
    """

    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    fingerprint: str
    items_above_max_price: int = 0
    folder: Path | None = None

    def items(self, split: Split) -> tuple[Item, ...]:
        """The Items of one split."""
        return {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}[split]

    @property
    def train_median(self) -> float:
        """The median training price. It is the best constant answer, and replaces a missing price in an answer."""
        return statistics.median(item.price for item in self.train)


def split_items(
    items: Iterable[Item],
    val_fraction: float,
    test_fraction: float,
    limits: Mapping[Split, int | None],
    max_price: float | None = None,
) -> ItemSet:
    """Put every Item of at most `max_price` into its split, and keep at most `limits[split]` Items in each
    split. None means no limit.

    Items are sorted by place, so the first N are a random sample. Copies have the same place and are sorted by id.
    """
    parts: dict[Split, list[Item]] = {split: [] for split in Split}
    given = list(items)
    kept = given if max_price is None else [item for item in given if item.price <= max_price]
    for place, item in sorted(((hash_place(item.text), item) for item in kept), key=lambda pair: (pair[0], pair[1].id)):
        parts[assign_split(place, val_fraction, test_fraction)].append(item)
    parts = {split: part[: limits.get(split)] for split, part in parts.items()}
    return ItemSet(
        train=tuple(parts[Split.TRAIN]),
        val=tuple(parts[Split.VAL]),
        test=tuple(parts[Split.TEST]),
        fingerprint=_fingerprint(parts),
        items_above_max_price=len(given) - len(kept),
    )


def _fingerprint(parts: Mapping[Split, Sequence[Item]]) -> str:
    digest = hashlib.sha256()
    for split in Split:
        for item in parts[split]:
            row = [split.value, item.id, item.text, item.price]
            digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt for one Item, in three parts. Only `description` may be cut to fit."""

    item_id: str
    head: str
    description: str
    tail: str

    @property
    def text(self) -> str:
        """The whole prompt."""
        return self.head + self.description + self.tail


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the right completion."""

    prompt: Prompt
    completion: str


def prompt_tail(lead: str) -> str:
    """The end of every prompt with this lead. It is never cut."""
    return f"\n\n{lead}"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How an Item becomes a prompt and a completion: question, blank line, description, blank line, `lead`.

    `max_length` is the maximum number of tokens in prompt, completion and end of text together. Longer descriptions are
    cut.
    """

    question: str
    lead: str
    price_format: PriceFormat
    max_length: int

    def prompt(self, item: Item) -> Prompt:
        """The prompt for an Item. It is built without the price, so it cannot leak it."""
        return Prompt(item.id, f"{self.question}\n\n", item.text.strip(), prompt_tail(self.lead))

    def completion(self, item: Item) -> str:
        """The right completion for an Item."""
        return format_price(item.price, self.price_format)

    def example(self, item: Item) -> Example:
        """Prompt and completion, for training."""
        return Example(prompt=self.prompt(item), completion=self.completion(item))

    @property
    def fingerprint(self) -> str:
        """A hash that changes with anything that changes a prompt or the parsing of an answer."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
