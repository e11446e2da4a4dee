"""A regression of prices on the embeddings of prompts."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class EmbeddingRegression:
    """A linear model of ln(price / step + 1): a weight for each dimension of an embedding, and an intercept.

    What it says is clipped to `low` and `high`, the range in training, because thousands of dimensions extrapolate
    wildly.
    """

    weights: tuple[float, ...]
    intercept: float
    low: float
    high: float
    step: float

    def prices(self, embeddings: np.ndarray) -> list[float]:
        """The price of each row of `embeddings` (items, hidden size)."""
        logs = embeddings.astype(np.float64) @ np.array(self.weights) + self.intercept
        return [float(price) for price in self.step * np.expm1(np.clip(logs, self.low, self.high))]
