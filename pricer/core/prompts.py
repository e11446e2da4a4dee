"""The question put to the model and the answer it is taught: TRL's prompt-completion format."""

import hashlib
import json
from dataclasses import asdict, dataclass

from pricer.core.items import Item
from pricer.core.prices import PriceFormat, format_price


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is shown for one Item, in three parts, so that only `description` is ever cut to fit."""

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
    """A prompt with the completion it should be answered by."""

    prompt: Prompt
    completion: str


def tail_of(lead: str) -> str:
    """What every prompt with this lead ends with, whatever is cut; the completion goes on from it."""
    return f"\n\n{lead}"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How an Item becomes a prompt and a completion: question, blank line, description, blank line, `lead`.

    `max_length` is the most tokens that prompt, completion and end-of-text token may take together; it is part of the
    template because it decides what the model gets to see.
    """

    question: str
    lead: str
    price_format: PriceFormat
    max_length: int

    def prompt(self, item: Item) -> Prompt:
        """What the model is shown. Never looks at the price, so a prompt cannot leak it."""
        return Prompt(
            item_id=item.id,
            head=f"{self.question}\n\n",
            description=item.text.strip(),
            tail=tail_of(self.lead),
        )

    def completion(self, item: Item) -> str:
        """What the model should say."""
        return format_price(item.price, self.price_format)

    def example(self, item: Item) -> Example:
        """Both, for training."""
        return Example(prompt=self.prompt(item), completion=self.completion(item))

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a prompt or how an answer is read."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
