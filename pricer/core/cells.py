"""Cells: an evaluation in parts that any process can answer. Shards: fixed shares of the cells."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_SHARDS = 9999
"""The maximum number of shards of an evaluation."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The items from `start` up to (not including) `stop`."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One batch of items that one candidate answers. `name` is the candidate's key. `indices` are the positions of the
    items among all items of the evaluation.
    """

    name: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `of` parts, numbered from 1. Other numbers are a ValueError."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if self.number == 0:
            raise ValueError(f"{self} is no shard: they are numbered from 1 to {self.of}")
        if not 1 <= self.of <= MOST_SHARDS:
            raise ValueError(f"{self} is no shard: an evaluation has 1 to {MOST_SHARDS:,} shards")
        if not 1 <= self.number <= self.of:
            raise ValueError(f"{self} is no shard: the last one is {self.of}/{self.of}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def label(self) -> str:
        """The shard in the name of a file: `3of8`."""
        return f"{self.number}of{self.of}"


def parse_shard(text: str) -> Shard:
    """The shard that a text like `3/8` or `3of8` names; a ValueError of one line for any other text."""
    found = re.fullmatch(r"([0-9]{1,6})(?:/|of)([0-9]{1,6})", text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no shard: the third of eight is 3/8")
    return Shard(int(found[1]), int(found[2]))


def share(cells: Sequence[Cell], shard: Shard) -> Sequence[Cell]:
    """The cells of a shard: a contiguous part, so that a shard of cells in the order of candidates needs few adapters.
    Every cell is in one shard, and the sizes of shards differ by at most one cell.
    """
    return cells[len(cells) * (shard.number - 1) // shard.of : len(cells) * shard.number // shard.of]
