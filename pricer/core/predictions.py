"""Predictions: what one checkpoint answered about one Item, and the estimates that can be read from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pricer.core.price_distribution import Distribution


@dataclass(frozen=True, slots=True)
class Estimator:
    """A way to read one price from an answer. `label` says it in a sentence about answers; `read` takes the price from
    a distribution, None: the estimator takes the price that the model wrote.
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

    `completion` is what the model says if it always takes the likeliest token; `price` is the price in dollars that
    stands in it, None if there is none. `distribution` is None where nothing but the completion was asked for: in
    training, and of a baseline.
    """

    item_id: str
    completion: str
    price: float | None
    distribution: Distribution | None = None

    def estimate(self, estimator: str) -> float | None:
        """The price in dollars by an estimator; None: no price. An unknown estimator is a ValueError.

        By mode, mean and median an Item has no price if the model is at least as likely as not to say none. Without a
        distribution every estimator gives the price of the completion.
        """
        if estimator not in ESTIMATORS:
            raise ValueError(f"{estimator} is no estimator")
        read = ESTIMATORS[estimator].read
        if read is None or self.distribution is None:
            return self.price
        return None if self.distribution.is_silent else read(self.distribution)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Prediction":
        """Read back what was saved as JSON values; KeyError, TypeError or ValueError where it was not this."""
        distribution = record["distribution"]
        return cls(**{**record, "distribution": None if distribution is None else Distribution.from_json(distribution)})
