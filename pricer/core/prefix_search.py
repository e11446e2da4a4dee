"""Best-first search over the prefixes of prices, for tokenizers whose price tokens are not in numeric order.

`129.00` and `1299.00` may both begin with the token `129`, so token order is not price order. The search expands the
most probable prefixes first, until the residual mass (the share of all unexpanded prefixes) is small.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pricer.core.predictions import PROMPT, DecodingStep, Distribution, compute_quantiles, renormalize


@dataclass(frozen=True, slots=True, eq=False)
class PriceTrie:
    """A branching point in the token sequences of all prices.

    Candidate i is the token `tokens[i]`. The prices that continue with it are between `low[i]` and `high[i]` steps.
    `children[i]` is their next branching point, or None if only one price is left. Arrays are (n,).
    """

    tokens: np.ndarray
    low: np.ndarray
    high: np.ndarray
    children: tuple["PriceTrie | None", ...]


def build_trie(tokens_by_price: Mapping[int, Sequence[int]]) -> PriceTrie:
    """The trie of prices in whole steps of the unit; a ValueError if one price's tokens are a prefix of another's."""
    return _build_node(sorted(tokens_by_price.items()), 0)


def _build_node(prices: Sequence[tuple[int, Sequence[int]]], depth: int) -> PriceTrie:
    branches: dict[int, list[tuple[int, Sequence[int]]]] = {}
    for price, tokens in prices:
        if len(tokens) == depth:
            raise ValueError(f"the tokens of {price} are a prefix of another price's")
        branches.setdefault(tokens[depth], []).append((price, tokens))
    return PriceTrie(
        tokens=np.array(list(branches), dtype=np.int64),
        low=np.array([branch[0][0] for branch in branches.values()]),
        high=np.array([branch[-1][0] for branch in branches.values()]),
        children=tuple(None if len(branch) == 1 else _build_node(branch, depth + 1) for branch in branches.values()),
    )


@dataclass(order=True, slots=True)
class _Prefix:
    """A prefix of prices from `low` to `high`. `rank` is minus its share of the distribution, so a heap returns the
    most probable prefix first. `probability` is lower than the share because of tokens that are no price.
    """

    rank: float
    parent: int
    token: int
    probability: float = field(compare=False)
    low: int = field(compare=False)
    high: int = field(compare=False)
    node: PriceTrie = field(compare=False)


class _ItemSearch:
    """The search for one Item."""

    def __init__(self, root: PriceTrie) -> None:
        self.frontier: list[_Prefix] = []
        self.requested = [_Prefix(-1.0, PROMPT, PROMPT, 1.0, int(root.low.min()), int(root.high.max()), root)]
        self.expanded = 0
        self.no_price = 0.0
        self._prices: list[np.ndarray] = []
        self._shares: list[np.ndarray] = []

    @property
    def residual_mass(self) -> float:
        """The share of all prefixes that were not expanded."""
        return -sum(prefix.rank for prefix in self.frontier)

    def expand(self, prefix: _Prefix, slot: int, log_probabilities: np.ndarray) -> None:
        """Process the log-probabilities (n,) of the candidates of the prefix in `slot`."""
        node = prefix.node
        conditional, on_prices = renormalize(log_probabilities[: len(node.tokens)])
        self.no_price += prefix.probability * float(1 - on_prices)
        shares = -prefix.rank * conditional
        is_price = np.array([child is None for child in node.children])
        self._prices.append(node.low[is_price])
        self._shares.append(shares[is_price])
        for index, child in enumerate(node.children):
            if child is not None and shares[index] > 0:
                probability = prefix.probability * float(on_prices * conditional[index])
                token, low, high = int(node.tokens[index]), int(node.low[index]), int(node.high[index])
                rank = -float(shares[index])
                heapq.heappush(self.frontier, _Prefix(rank, slot, token, probability, low, high, child))

    def pop_best(self, count: int, max_residual_mass: float) -> list[_Prefix]:
        """Remove and return the most probable prefixes. Stops at `count` prefixes, or once the rest has a share of at
        most `max_residual_mass`.
        """
        chosen: list[_Prefix] = []
        residual_mass = self.residual_mass
        while self.frontier and len(chosen) < count and residual_mass > max_residual_mass:
            chosen.append(heapq.heappop(self.frontier))
            residual_mass += chosen[-1].rank
        self.expanded += len(chosen)
        return chosen

    def result(self) -> Distribution:
        prices, shares = np.concatenate(self._prices), np.concatenate(self._shares)
        left = -np.array([prefix.rank for prefix in self.frontier])
        low = np.array([prefix.low for prefix in self.frontier])
        high = np.array([prefix.high for prefix in self.frontier])
        mean = (shares * prices).sum() + (left * (low + high)).sum() / 2
        if not shares.sum() > 0:  # no price is complete: use the cheapest price of each prefix
            prices, shares = np.concatenate([prices, low]), np.concatenate([shares, left])
        mode = int(shares.argmax())
        return Distribution(
            quantiles=compute_quantiles(prices, shares),
            mode=float(prices[mode]),
            mode_is_certain=bool(shares[mode] >= left.max(initial=0.0)),
            mean=float(mean),
            mean_error=float((left * (high - low)).sum() / 2),
            no_price=self.no_price,
            residual_mass=float(left.sum()),
        )


class PrefixSearch:
    """The PriceDecoder for a PriceTrie. In each step, it expands up to `prefixes_per_step` prefixes of each Item. It
    stops when the residual mass is at most `max_residual_mass`, or after `max_prefixes` prefixes.
    """

    def __init__(
        self, trie: PriceTrie, items: int, max_residual_mass: float, prefixes_per_step: int, max_prefixes: int
    ) -> None:
        self.first_candidates = trie.tokens
        self._max_residual_mass = max_residual_mass
        self._prefixes_per_step, self._max_prefixes = prefixes_per_step, max_prefixes
        self._items = [_ItemSearch(trie) for _ in range(items)]
        self._first_slot = PROMPT

    def advance(self, log_probabilities: np.ndarray) -> DecodingStep | list[Distribution]:
        """See PriceDecoder; `log_probabilities` are (items, m, n)."""
        for item, conditional in zip(self._items, log_probabilities, strict=True):
            for index, prefix in enumerate(item.requested):
                item.expand(prefix, self._first_slot + index, conditional[index])
        self._first_slot += log_probabilities.shape[1]
        for item in self._items:
            room = min(self._prefixes_per_step, self._max_prefixes - item.expanded)
            item.requested = item.pop_best(room, self._max_residual_mass)
        count = max(len(item.requested) for item in self._items)
        return self._next_step(count) if count else [item.result() for item in self._items]

    def _next_step(self, count: int) -> DecodingStep:
        """The step with each Item's requests, padded to `count` with tokens whose results are ignored."""
        requested = [item.requested for item in self._items]
        parents = np.full((len(requested), count), PROMPT, dtype=np.int64)
        tokens = np.full_like(parents, self.first_candidates[0])
        width = max(len(prefix.node.tokens) for prefixes in requested for prefix in prefixes)
        candidates = np.full((len(requested), count, width), self.first_candidates[0], dtype=np.int64)
        for row, prefixes in enumerate(requested):
            for index, prefix in enumerate(prefixes):
                parents[row, index], tokens[row, index] = prefix.parent, prefix.token
                candidates[row, index, : len(prefix.node.tokens)] = prefix.node.tokens
        return DecodingStep(parents, tokens, candidates)
