"""Predictions: a checkpoint's answer about an Item, as one price and as a distribution over prices.

The distribution is the model's own, constrained to prices. At each branching point, probabilities are renormalised over
the tokens that continue a valid price. The mass of all other tokens is `no_price`. Tokens without an alternative (the
`.00` of a plain price, the end of text) are ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pricer.core.units import PriceUnit

# Stands for the prompt where a token's parent is expected: the first token of a path follows the prompt.
PROMPT = -1

# The ends of the 95 % and the 80 % interval, and the median.
QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)


@dataclass(frozen=True, slots=True)
class Distribution:
    """One Item's distribution over prices.

    `quantiles` are the prices at QUANTILES: each is the lowest price at which the cumulative share reaches the
    quantile. `mode` is the most probable price found; `mode_is_certain` says that no other price can be more probable.
    The error of `mean` is at most `mean_error`. `residual_mass` is the share that quantiles and mode ignore; 0 means
    that they are exact. `no_price` is a lower bound for the probability that the model's answer is not a price.
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
        """Whether the model gives no price with a probability of at least 50 %."""
        return self.no_price >= 0.5

    def interval(self, coverage: float) -> tuple[float, float]:
        """The uncalibrated central interval that contains a share of 0.8 or 0.95. Any other share is a ValueError."""
        ends = [round((1 - coverage) / 2, 6), round((1 + coverage) / 2, 6)]
        low, high = (self.quantiles[QUANTILES.index(end)] for end in ends)
        return low, high

    def from_steps(self, unit: PriceUnit) -> "Distribution":
        """The distribution over prices in units that has this one over whole steps."""
        return replace(
            self,
            quantiles=tuple(map(unit.from_steps, self.quantiles)),
            mode=unit.from_steps(self.mode),
            mean=unit.from_steps(self.mean),
            mean_error=unit.from_steps(self.mean_error),
        )


@dataclass(frozen=True, slots=True)
class Estimator:
    """A way to get one price from an answer. `read` takes the price from a distribution; if it is None, the estimate is
    the price that the model wrote. `label` describes the answers in a sentence.
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

    `completion` is the greedy answer. `price` is the price in units that it states, or None. `distribution` is None
    during training, for a baseline, and if no distribution can be computed.
    """

    item_id: str
    completion: str
    price: float | None
    distribution: Distribution | None = None

    def estimate(self, estimator: str) -> float | None:
        """The estimator's price in units, or None. An unknown estimator is a ValueError.

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

    Each token of `tokens` (items, m) continues the path that ends at the slot in `parents` (items, m). The model
    computes the log-probabilities of the token ids in `candidates` as the next token. `candidates` is (n,) if it is the
    same for all paths, else (items, m, n). Each Item numbers its slots over all steps, in the order of requests; PROMPT
    stands for the prompt. `greedy` (items,) is the index in m of the token that continues the greedy path; None:
    unknown.
    """

    parents: np.ndarray
    tokens: np.ndarray
    candidates: np.ndarray
    greedy: np.ndarray | None = None


class PriceDecoder(Protocol):
    """An algorithm that decodes price distributions. It requests computations step by step, until it knows enough. Its
    prices are whole steps of the unit.
    """

    @property
    def first_candidates(self) -> np.ndarray:
        """The token ids (n,) whose log-probabilities are needed directly after the prompt."""

    def advance(self, log_probabilities: np.ndarray) -> DecodingStep | list[Distribution]:
        """Process the log-probabilities (items, m, n), in nats, that the last DecodingStep requested. The first call
        gets those of `first_candidates`, with m = 1. Returns the next DecodingStep, or at the end one Distribution per
        Item.
        """


def compute_quantiles(prices: np.ndarray, shares: np.ndarray) -> tuple[float, ...]:
    """The prices at QUANTILES of a distribution: each of the `prices` (n,) has one of the `shares` (n,). Prices may be
    in any order, and shares may have any positive sum.
    """
    order = np.argsort(prices, kind="stable")
    cumulative = np.cumsum(shares[order])
    targets = np.array(QUANTILES) * cumulative[-1]
    indices = np.minimum(np.searchsorted(cumulative, targets, side="left"), len(prices) - 1)
    return tuple(float(price) for price in prices[order][indices])


def renormalize(log_probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares (…, n) of n tokens in their total probability, and the total probability (…).

    `log_probabilities` (…, n) are in nats, of n tokens out of a whole vocabulary. If they are not finite because the
    model overflowed, the shares are equal and the total is zero: all mass counts as no price.
    """
    highest = log_probabilities.max(axis=-1, keepdims=True)  # (…, 1)
    is_finite = np.isfinite(highest)
    scaled = np.exp(np.where(is_finite, log_probabilities, 0.0) - np.where(is_finite, highest, 0.0))
    total = scaled.sum(axis=-1, keepdims=True)
    probability = np.where(is_finite, np.exp(np.where(is_finite, highest, 0.0)) * total, 0.0)
    return scaled / total, probability[..., 0]
