"""Items: products with a price, their permanent assignment to splits, and the prompts that ask for their price."""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from pricer.core.data_summary import DataSummary
from pricer.core.prices import PriceFormat, format_price


class Split(StrEnum):
    """A part of the data: `train` for training, `val` for choosing a checkpoint, `test` for the final number only."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


# The words that `datasets` knows, too.
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), Split.TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), Split.VAL),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), Split.TEST),
}


def name_split(name: str) -> Split | None:
    """The split that a name says, for example `train-00000-of-00003.parquet`. None if it says none or several."""
    words = re.split(r"[^a-z]+", name.partition(".")[0].lower())
    splits = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return splits.pop() if len(splits) == 1 else None


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


def hash_places(text: str) -> tuple[float, float]:
    """Two independent places of a text between 0 and 1, from a hash of its words. Texts with the same words have the
    same places, so a test item never repeats a training item word for word. The first place decides splits.
    """
    words = " ".join(text.casefold().split())
    digest = hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64, int.from_bytes(digest[8:16], "big") / 2**64


def hash_place(text: str) -> float:
    """The place of a text that decides its split."""
    return hash_places(text)[0]


@dataclass(frozen=True, slots=True)
class ItemSet:
    """All Items of a run by split, each sorted by place, so that the first N are a random sample. The sequences may
    read their Items from disk: go through `train` once, in order.

    `fingerprint` is a hash that changes with any Item. `train_median` and `max_train_price` are the median and the
    highest training price, NaN without training items. The median is the best constant answer, and replaces a missing
    price in an answer. `near_copies` has the ids of the held-out Items with a near-copy among the training items.
    `val_fraction` and `test_fraction` are the shares that were cut off by the hash; None: that split was not cut off.
    `prompts_question` and `prompts_lead` are the texts around the descriptions in ready-made prompts; None if the data
    has none. `folder` is the data folder; None if the Items come from elsewhere.
    """

    train: Sequence[Item] = ()
    val: Sequence[Item] = ()
    test: Sequence[Item] = ()
    fingerprint: str = ""
    train_median: float = math.nan
    max_train_price: float = math.nan
    summary: DataSummary | None = None
    near_copies: frozenset[str] = frozenset()
    val_fraction: float | None = None
    test_fraction: float | None = None
    prompts_question: str | None = None
    prompts_lead: str | None = None
    folder: Path | None = None

    def items(self, split: Split) -> Sequence[Item]:
        """The Items of one split."""
        return {Split.TRAIN: self.train, Split.VAL: self.val, Split.TEST: self.test}[split]


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
