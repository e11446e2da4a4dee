"""What a model believes an item costs: its whole predictive distribution over prices, summed up.

The distribution is that of the model held to prices: wherever the writing of prices in the run's format parts, the
probabilities of the tokens that go on with one are taken as shares of their sum. What the model would rather have said
there is not lost: its probability is `no_price`. Tokens that follow of necessity (the `.00` of a plain price, the end
of text) are not looked at; the model was taught them with every single example.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

# Of a decoding step: no token is tried after this place, but after the prompt itself.
PROMPT = -1

# The two ends of a 95 % and of an 80 % interval, and the median between them.
QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)


@dataclass(frozen=True, slots=True)
class Distribution:
    """One Item's distribution of the price, in dollars.

    `quantiles` are those at QUANTILES: of each, the lowest price up to which at least that share lies. `mode` is the
    likeliest price found; `mode_is_certain`: no other can be likelier. `mean` is off by at most `mean_error`, which is
    what the prices that were not told apart could at worst add up to. `unexplored` is the share that quantiles and mode
    know nothing of (0: they are exact). `no_price` is the probability of saying something that is no price, as far as
    it was met: at least this much.
    """

    quantiles: tuple[float, ...]
    mode: float
    mode_is_certain: bool
    mean: float
    mean_error: float
    no_price: float
    unexplored: float

    @property
    def median(self) -> float:
        """The price with half of the distribution on either side: the answer with the lowest expected error."""
        return self.quantiles[QUANTILES.index(0.5)]

    @property
    def is_silent(self) -> bool:
        """Whether it is at least as likely as not that the model says no price: then it has none, by any estimator."""
        return self.no_price >= 0.5

    def interval(self, coverage: float) -> tuple[float, float]:
        """The central interval that holds this share (0.8 or 0.95) of the distribution; a ValueError for others.

        Raw: how many prices lie in it is the model's opinion, which nothing has calibrated.
        """
        ends = [round((1 - coverage) / 2, 6), round((1 + coverage) / 2, 6)]
        low, high = (self.quantiles[QUANTILES.index(end)] for end in ends)
        return low, high

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Distribution":
        """Read back what was saved as JSON values; KeyError, TypeError or ValueError where it was not this."""
        values = cls(**{**record, "quantiles": tuple(float(value) for value in record["quantiles"])})
        if len(values.quantiles) != len(QUANTILES):
            raise ValueError(f"{len(values.quantiles)} quantiles, not {len(QUANTILES)}")
        return values


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be computed next about a batch of Items: each of `tokens` (items, m) is tried after the place in
    `parents` (items, m), and of what may follow it, the log-probabilities of `options` are wanted: token ids, (n,) the
    same everywhere, or (items, m, n).

    Places are counted per Item over all steps, in the order in which they were asked for; PROMPT is before them all.
    `likeliest` (items,), where a reading knows it, is which of the m goes on with the likeliest token each time.
    """

    parents: np.ndarray
    tokens: np.ndarray
    options: np.ndarray
    likeliest: np.ndarray | None = None


class Reading(Protocol):
    """How distributions are read: it says what is to be computed, until it knows enough."""

    @property
    def first(self) -> np.ndarray:
        """The tokens (n,) whose log-probabilities are wanted right after the prompt."""

    def step(self, log_probabilities: np.ndarray) -> Step | list[Distribution]:
        """Take in the log-probabilities (items, m, n) in nats that the last Step (or `first`, with m = 1) asked for.
        Returns the next Step or, at the end, one Distribution per Item.
        """


def quantiles_of(prices: np.ndarray, shares: np.ndarray) -> tuple[float, ...]:
    """The prices at QUANTILES of a distribution given outright: `shares` (n,) lie on `prices` (n,), in any order and
    with any sum above zero.
    """
    order = np.argsort(prices, kind="stable")
    cumulative = np.cumsum(shares[order])
    targets = np.array(QUANTILES) * cumulative[-1]
    places = np.minimum(np.searchsorted(cumulative, targets, side="left"), len(prices) - 1)
    return tuple(float(price) for price in prices[order][places])


def shares_of(log_probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shares of the options along the last axis, and the probability of them all together.

    `log_probabilities` (…, n) are in nats, of n tokens out of a whole vocabulary. Where they are no numbers (a model
    that overflows), the options are equally likely shares of a probability of zero: all of it is no price.
    """
    highest = log_probabilities.max(axis=-1, keepdims=True)
    is_number = np.isfinite(highest)
    scaled = np.exp(np.where(is_number, log_probabilities, 0.0) - np.where(is_number, highest, 0.0))
    total = scaled.sum(axis=-1, keepdims=True)
    on_prices = np.where(is_number, np.exp(np.where(is_number, highest, 0.0)) * total, 0.0)
    return scaled / total, on_prices[..., 0]
