"""What the base model is pretrained on, as token batches: fresh made-up goods and rows of real tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tools.base.goods import Item, Kind, make_item
from tools.base.tables import LoadedTable, render
from tools.rendering import completion, prompt

MAX_ATTRIBUTES = 9
HELD_OUT_ITEMS = 512
POOL_BATCHES = 16
"""Batches are cut from a pool this large, sorted by length, so that little is padding."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded token rows: prompt, price digits, end of text."""

    tokens: Tensor
    """(items, length)"""
    lengths: Tensor
    """(items,): tokens in the prompt."""
    log_prices: Tensor
    """(items,)"""
    running_places: tuple[Tensor, Tensor]
    """Rows and columns of the tokens that end a phrase whose running log-price is known."""
    running: Tensor
    """(places,)"""


class Supply:
    """The stream of training items and the held-out sets, all decided by the seed."""

    def __init__(
        self,
        kinds: tuple[Kind, ...],
        tables: list[LoadedTable],
        table_share: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.kinds = kinds
        self.tables = tables
        self.table_share = table_share
        self.batch_size = batch_size
        self.seed = seed
        # Square roots: 46,000 diamonds must not drown 2,800 houses.
        self.weights = [math.sqrt(len(table.train)) for table in tables]

    def pool(self, index: int, max_attributes: int) -> list[Item]:
        """The items of the index-th pool, the same whenever it is asked for."""
        rng = Random(f"pool:{self.seed}:{index}")
        return [self._draw(rng, max_attributes) for _ in range(self.batch_size * POOL_BATCHES)]

    def batches(
        self, first_step: int, steps: int, full_attributes_at: int, tokenizer: PreTrainedTokenizerBase
    ) -> Iterator[Batch]:
        """The batches of steps `first_step` to `steps`, at first of items with few attributes."""
        for index in range(first_step // POOL_BATCHES, math.ceil(steps / POOL_BATCHES)):
            start = index * POOL_BATCHES
            progress = min(1.0, start / full_attributes_at)
            items = self.pool(index, max_attributes=2 + round((MAX_ATTRIBUTES - 2) * progress))
            batches = encode(items, tokenizer, self.batch_size)
            Random(f"order:{self.seed}:{index}").shuffle(batches)
            yield from batches[max(0, first_step - start) : steps - start]

    def held_out(self) -> dict[str, list[Item]]:
        """Items of the known kinds that are not trained on, and rows of the tables that are not."""
        rng = Random(f"held out:{self.seed}")
        sets = {"made-up": [make_item(self.kinds, MAX_ATTRIBUTES, rng) for _ in range(HELD_OUT_ITEMS)]}
        for loaded in self.tables:
            rows = rng.sample(loaded.held_out, min(len(loaded.held_out), HELD_OUT_ITEMS))
            sets[loaded.table.name] = [render(loaded.table, row, rng) for row in rows]
        return sets

    def _draw(self, rng: Random, max_attributes: int) -> Item:
        if rng.random() < self.table_share:
            loaded = rng.choices(self.tables, self.weights)[0]
            return render(loaded.table, rng.choice(loaded.train), rng)
        return make_item(self.kinds, max_attributes, rng)


def encode(items: list[Item], tokenizer: PreTrainedTokenizerBase, size: int) -> list[Batch]:
    """The items in batches of about one length."""
    texts = [prompt(item.description) for item in items]
    encoded = tokenizer(texts, return_offsets_mapping=True)
    prompts, offsets = encoded["input_ids"], encoded["offset_mapping"]
    prices = tokenizer([completion(item.price) for item in items])["input_ids"]
    before = texts[0].index(items[0].description)
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))
    batches = []
    for chosen in (order[start : start + size] for start in range(0, len(order), size)):
        rows = [torch.tensor(prompts[i] + prices[i] + [tokenizer.eos_token_id]) for i in chosen]
        running = [
            (row, column, value)
            for row, i in enumerate(chosen)
            for column, value in _columns(items[i], offsets[i], before)
        ]
        batches.append(
            Batch(
                tokens=nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
                lengths=torch.tensor([len(prompts[i]) for i in chosen]),
                log_prices=torch.tensor([math.log(items[i].price) for i in chosen]),
                running_places=(
                    torch.tensor([row for row, _, _ in running], dtype=torch.long),
                    torch.tensor([column for _, column, _ in running], dtype=torch.long),
                ),
                running=torch.tensor([value for _, _, value in running]),
            )
        )
    return batches


def _columns(item: Item, offsets: list[tuple[int, int]], before: int) -> Iterator[tuple[int, float]]:
    """The tokens at which the item's phrases end, with the running log-price there."""
    column_of_end = {end: column for column, (_, end) in enumerate(offsets)}
    for end, value in item.running:
        column = column_of_end.get(before + end)
        if column is not None:
            yield column, value
