"""Predictions: what a checkpoint answered about an Item, as a price and as a distribution over prices.

The distribution is that of the model constrained to prices: at each branching point, probabilities are renormalised
over the tokens that continue a valid price. The mass of all other tokens is `no_price`. Tokens without an alternative
(the `.00` of a plain price, the end of text) are not looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# The parent of the first token of a path: it follows the prompt itself.
PROMPT = -1

# The two ends of a 95 % and of an 80 % interval, and the median between them.
QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)


@dataclass(frozen=True, slots=True)
class Distribution:
    """One Item's distribution over prices, in dollars.

    Each of the `quantiles`, those at QUANTILES, is the lowest price with at least that share at or below it. `mode` is
    the most probable price found; `mode_is_certain` says that no other price can be more probable. `mean` is off by at
    most `mean_error`. `residual_mass` is the share that quantiles and mode leave out (0: they are exact). `no_price` is
    a lower bound for the probability that the model writes something that is no price.
    """

    quantiles: tuple[float, ...]
    mode: float
    mode_is_certain: bool
    mean: float
    mean_error: float
    no_price: float
    residual_mass: float

    def __post_init__(self) -> None:
        if len(self.quantiles) != len(QUANTILES):
            raise ValueError(f"{len(self.quantiles)} quantiles, not {len(QUANTILES)}")

    @property
    def median(self) -> float:
        """The price with the lowest expected absolute error."""
        return self.quantiles[QUANTILES.index(0.5)]

    @property
    def is_silent(self) -> bool:
        """Whether the model is at least as likely as not to say no price."""
        return self.no_price >= 0.5

    def interval(self, coverage: float) -> tuple[float, float]:
        """The central interval, not calibrated, that holds this share (0.8 or 0.95); a ValueError for others."""
        ends = [round((1 - coverage) / 2, 6), round((1 + coverage) / 2, 6)]
        low, high = (self.quantiles[QUANTILES.index(end)] for end in ends)
        return low, high


@dataclass(frozen=True, slots=True)
class Estimator:
    """A way to get one price from an answer. `read` takes it from a distribution; None: the price that the model wrote
    is taken. `label` is for a sentence about answers.
    """

    name: str
    label: str
    read: Callable[[Distribution], float] | None


ESTIMATORS = {
    estimator.name: estimator
    for estimator in (
        Estimator("greedy", "greedy answers", None),
        Estimator("mode", "mode of the model's distribution", lambda distribution: distribution.mode),
        Estimator("mean", "mean of the model's distribution", lambda distribution: distribution.mean),
        Estimator("median", "median of the model's distribution", lambda distribution: distribution.median),
    )
}
"""Every estimator by its name, in the order in which tables show them."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer about one Item.

    `completion` is the greedy answer, `price` the price in dollars that it states, None if there is none.
    `distribution` is None in training, of a baseline, and where none can be computed.
    """

    item_id: str
    completion: str
    price: float | None
    distribution: Distribution | None = None

    def estimate(self, estimator: str) -> float | None:
        """The price in dollars by an estimator; None: no price. An unknown estimator is a ValueError.

        Without a distribution every estimator gives the price of the completion.
        """
        if estimator not in ESTIMATORS:
            raise ValueError(f"{estimator} is no estimator")
        read = ESTIMATORS[estimator].read
        if read is None or self.distribution is None:
            return self.price
        return None if self.distribution.is_silent else read(self.distribution)


@dataclass(frozen=True, slots=True)
class DecodingStep:
    """What the model has to compute next for a batch of Items.

    Each of `tokens` (items, m) is appended to the path that ends in the slot `parents` (items, m). Wanted are the
    log-probabilities of the `candidates` that may follow: token ids, (n,) for all alike, or (items, m, n). Slots are
    numbered per Item over all steps, in the order of requests; PROMPT precedes them all. `greedy` (items,) says which
    of the m continues the greedy path; None: unknown.
    """

    parents: np.ndarray
    tokens: np.ndarray
    candidates: np.ndarray
    greedy: np.ndarray | None = None


class PriceDecoder(Protocol):
    """An algorithm that decodes price distributions: it says what to compute, step by step, until it knows enough."""

    @property
    def first_candidates(self) -> np.ndarray:
        """The tokens (n,) whose log-probabilities are wanted right after the prompt."""

    def advance(self, log_probabilities: np.ndarray) -> DecodingStep | list[Distribution]:
        """Take in the log-probabilities (items, m, n) in nats that the last DecodingStep asked for; the first time
        those of `first_candidates`, with m = 1. Return the next DecodingStep; at the end, one Distribution per Item.
        """


def compute_quantiles(prices: np.ndarray, shares: np.ndarray) -> tuple[float, ...]:
    """The prices at QUANTILES where `shares` (n,) lie on `prices` (n,), in any order, with any sum above zero."""
    order = np.argsort(prices, kind="stable")
    cumulative = np.cumsum(shares[order])
    targets = np.array(QUANTILES) * cumulative[-1]
    indices = np.minimum(np.searchsorted(cumulative, targets, side="left"), len(prices) - 1)
    return tuple(float(price) for price in prices[order][indices])


def renormalize(log_probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each token's share of the tokens' total probability (…, n), and that total (…).

    `log_probabilities` (…, n) are in nats, of n tokens out of a whole vocabulary. Where they are not finite (a model
    that overflows), the shares are equal and the total is zero: everything counts as no price.
    """
    highest = log_probabilities.max(axis=-1, keepdims=True)  # (…, 1)
    is_finite = np.isfinite(highest)
    scaled = np.exp(np.where(is_finite, log_probabilities, 0.0) - np.where(is_finite, highest, 0.0))
    total = scaled.sum(axis=-1, keepdims=True)
    probability = np.where(is_finite, np.exp(np.where(is_finite, highest, 0.0)) * total, 0.0)
    return scaled / total, probability[..., 0]
