"""Expanding prices, likeliest first, where they are several tokens in an order that is not the numeric one.

`129.00` and `1299.00` may both begin with the token `129`: no walk down the tokens is one along the prices. So the
beginnings of prices are followed by their probability until the share that has not been told apart is small.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pricer.core.price_distribution import PROMPT, Distribution, Step, quantiles_of, shares_of


@dataclass(frozen=True, slots=True, eq=False)
class Fork:
    """A place where the writing of prices parts: option i is the token `tokens[i]`, which leads to prices from `low[i]`
    to `high[i]` dollars by way of the fork `after[i]`. None: there is but one price, and what follows is its rest.
    """

    tokens: np.ndarray
    low: np.ndarray
    high: np.ndarray
    after: tuple["Fork | None", ...]


def fork_of(writings: Mapping[int, Sequence[int]]) -> Fork:
    """The first Fork of prices in whole dollars, each written as tokens of which none is the beginning of another."""
    return _fork(sorted(writings.items()), 0)


def _fork(writings: Sequence[tuple[int, Sequence[int]]], depth: int) -> Fork:
    parts: dict[int, list[tuple[int, Sequence[int]]]] = {}
    for price, tokens in writings:
        if len(tokens) == depth:
            raise ValueError(f"the writing of {price} is the beginning of another price's")
        parts.setdefault(tokens[depth], []).append((price, tokens))
    return Fork(
        tokens=np.array(list(parts), dtype=np.int64),
        low=np.array([part[0][0] for part in parts.values()]),
        high=np.array([part[-1][0] for part in parts.values()]),
        after=tuple(None if len(part) == 1 else _fork(part, depth + 1) for part in parts.values()),
    )


@dataclass(order=True, slots=True)
class _Beginning:
    """A beginning of prices that was not followed: `rank` is minus its share, so that the likeliest comes first."""

    rank: float
    parent: int
    token: int
    probability: float = field(compare=False)
    low: int = field(compare=False)
    high: int = field(compare=False)
    fork: Fork = field(compare=False)


class _Explored:
    """What is known of one Item."""

    def __init__(self, root: Fork) -> None:
        self.open: list[_Beginning] = []
        self.asked = [_Beginning(-1.0, PROMPT, PROMPT, 1.0, int(root.low.min()), int(root.high.max()), root)]
        self.followed = 0
        self.no_price = 0.0
        self._prices: list[np.ndarray] = []
        self._shares: list[np.ndarray] = []

    @property
    def left(self) -> float:
        """The share that was not told apart."""
        return -sum(beginning.rank for beginning in self.open)

    def tell(self, beginning: _Beginning, place: int, log_probabilities: np.ndarray) -> None:
        fork = beginning.fork
        own, on_prices = shares_of(log_probabilities[: len(fork.tokens)])
        self.no_price += beginning.probability * float(1 - on_prices)
        shares = -beginning.rank * own
        is_price = np.array([after is None for after in fork.after])
        self._prices.append(fork.low[is_price])
        self._shares.append(shares[is_price])
        for index, after in enumerate(fork.after):
            if after is not None and shares[index] > 0:
                probability = beginning.probability * float(on_prices * own[index])
                low, high = int(fork.low[index]), int(fork.high[index])
                token = int(fork.tokens[index])
                heapq.heappush(
                    self.open, _Beginning(-float(shares[index]), place, token, probability, low, high, after)
                )

    def result(self) -> Distribution:
        prices, shares = np.concatenate(self._prices), np.concatenate(self._shares)
        left = -np.array([beginning.rank for beginning in self.open])
        low = np.array([beginning.low for beginning in self.open])
        high = np.array([beginning.high for beginning in self.open])
        mean = (shares * prices).sum() + (left * (low + high)).sum() / 2
        if not shares.sum() > 0:  # nothing was told apart: each beginning stands for its cheapest price
            prices, shares = np.concatenate([prices, low]), np.concatenate([shares, left])
        likeliest = int(shares.argmax())
        return Distribution(
            quantiles=quantiles_of(prices, shares),
            mode=float(prices[likeliest]),
            mode_is_certain=bool(shares[likeliest] >= left.max(initial=0.0)),
            mean=float(mean),
            mean_error=float((left * (high - low)).sum() / 2),
            no_price=self.no_price,
            unexplored=float(left.sum()),
        )


class Expansion:
    """The expansion of a batch of Items from `root`: up to `at_once` beginnings of each Item in a step, until the share
    left is at most `bound`, or `most` beginnings were followed.
    """

    def __init__(self, root: Fork, items: int, bound: float, at_once: int, most: int) -> None:
        self.first = root.tokens
        self._bound, self._at_once, self._most = bound, at_once, most
        self._items = [_Explored(root) for _ in range(items)]
        self._start = PROMPT

    def step(self, log_probabilities: np.ndarray) -> Step | list[Distribution]:
        """As Reading says."""
        for item, own in zip(self._items, log_probabilities, strict=True):
            for place, beginning in enumerate(item.asked):
                item.tell(beginning, self._start + place, own[place])
        self._start += log_probabilities.shape[1]
        for item in self._items:
            item.asked = self._next(item)
        count = max(len(item.asked) for item in self._items)
        if count == 0:
            return [item.result() for item in self._items]
        return self._ask(count)

    def _next(self, item: _Explored) -> list[_Beginning]:
        chosen: list[_Beginning] = []
        room, left = min(self._at_once, self._most - item.followed), item.left
        while item.open and len(chosen) < room and left > self._bound:
            chosen.append(heapq.heappop(item.open))
            left += chosen[-1].rank
        item.followed += len(chosen)
        return chosen

    def _ask(self, count: int) -> Step:
        """The Step of what each Item asks; an Item that asks less is filled up with what nobody will look at."""
        asked = [item.asked for item in self._items]
        parents = np.full((len(asked), count), PROMPT, dtype=np.int64)
        tokens = np.full_like(parents, self.first[0])
        width = max(len(beginning.fork.tokens) for own in asked for beginning in own)
        options = np.full((len(asked), count, width), self.first[0], dtype=np.int64)
        for row, own in enumerate(asked):
            for place, beginning in enumerate(own):
                parents[row, place], tokens[row, place] = beginning.parent, beginning.token
                options[row, place, : len(beginning.fork.tokens)] = beginning.fork.tokens
        return Step(parents, tokens, options)
