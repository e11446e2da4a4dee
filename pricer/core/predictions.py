"""Predictions: what one Checkpoint answered about one Item, and the estimates that can be read from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pricer.core.price_distribution import Distribution

Estimator = Literal["greedy", "mode", "mean", "median"]
# In the order they are shown.
ESTIMATORS: tuple[Estimator, ...] = ("greedy", "mode", "mean", "median")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer about one Item. `completion` is what the model says if it always takes the likeliest token, `price`
    the price in dollars that stands in it; None means that there was none. `distribution` is None where only that was
    asked for: in training, of a baseline, and in what was saved before distributions were.
    """

    item_id: str
    completion: str
    price: float | None
    distribution: Distribution | None = None

    def estimate(self, estimator: str) -> float | None:
        """The price in dollars by an estimator; None: no price.

        By mode, mean and median an Item has none if the model is at least as likely as not to say none. A Prediction
        that is a price and nothing else, as a baseline's is, has that one by any estimator.
        """
        if estimator not in ESTIMATORS:
            raise ValueError(f"{estimator} is no estimator")
        if estimator == "greedy" or self.distribution is None:
            return self.price
        if self.distribution.is_silent:
            return None
        estimate = {
            "mode": self.distribution.mode,
            "mean": self.distribution.mean,
            "median": self.distribution.median,
        }
        return estimate[estimator]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Prediction":
        """Read back what was saved as JSON values; KeyError, TypeError or ValueError where it was not this."""
        distribution = record.get("distribution")
        return cls(**{**record, "distribution": None if distribution is None else Distribution.from_json(distribution)})
