"""Scores in columns: what one checkpoint was charged for each item, from which every metric can be worked out again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.metrics import Score


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The Scores of one evaluation in the order of its items, each column (items,): `price` and `charged` in dollars,
    `answered` whether there was a price in the answer. Under one EvalSpec the items are the same and in the same order.
    """

    price: np.ndarray
    charged: np.ndarray
    answered: np.ndarray

    @classmethod
    def of(cls, scores: Sequence[Score]) -> "Scores":
        """The columns of some Scores."""
        return cls(
            np.array([s.price for s in scores], dtype=np.float64),
            np.array([s.charged for s in scores], dtype=np.float64),
            np.array([s.answered for s in scores], dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.price)

    @property
    def abs_error(self) -> np.ndarray:
        """|charged − price| in dollars."""
        error: np.ndarray = np.abs(self.charged - self.price)
        return error

    @property
    def log_error(self) -> np.ndarray:
        """ln(charged + 1) − ln(price + 1)."""
        ratio: np.ndarray = np.log1p(self.charged) - np.log1p(self.price)
        return ratio

    @property
    def hit(self) -> np.ndarray:
        """Whether the error is below $40 or below 20 % of the price; never without an answer."""
        hit: np.ndarray = self.answered & ((self.abs_error < 40) | (self.abs_error < 0.2 * self.price))
        return hit
